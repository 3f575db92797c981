-- An attempt no longer waits.
DELETE FROM recollect_waiters WHERE user_id = %(user)s AND session_id = %(session)s AND token = %(token)s
