-- Locks a session until the transaction ends. GIVES when it was changed last, if it is there
SELECT updated_at FROM recollect_sessions WHERE user_id = %(user)s AND session_id = %(session)s FOR UPDATE
