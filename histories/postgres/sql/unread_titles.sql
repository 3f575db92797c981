-- The same for titles.
SELECT session_id, title FROM recollect_sessions WHERE user_id = %(user)s AND title_words IS NULL LIMIT %(limit)s
