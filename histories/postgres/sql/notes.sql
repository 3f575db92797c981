-- A user's notes.
SELECT notes FROM recollect_notes WHERE user_id = %(user)s
