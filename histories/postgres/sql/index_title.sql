-- Puts the words of a title into the index, unless they have come there meanwhile.
UPDATE recollect_sessions SET title_words = array_to_tsvector(%(words)s)
WHERE user_id = %(user)s AND session_id = %(session)s AND title_words IS NULL
