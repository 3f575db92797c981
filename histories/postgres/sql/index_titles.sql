-- The same for titles.
UPDATE recollect_sessions s SET title_words = array_to_tsvector(string_to_array(found.words, ' '))
FROM unnest(%(sessions)s::text[], %(words)s::text[]) AS found (session_id, words)
WHERE s.user_id = %(user)s AND s.session_id = found.session_id AND s.title_words IS NULL
