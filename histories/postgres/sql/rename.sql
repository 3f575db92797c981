-- Gives a session a title. GIVES a row if there is the session.
UPDATE recollect_sessions
SET title = %(title)s, title_words = array_to_tsvector(%(title_words)s), updated_at = clock_timestamp()
WHERE user_id = %(user)s AND session_id = %(session)s RETURNING session_id
