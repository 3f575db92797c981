-- The same for titles.
WITH found AS (
    SELECT * FROM unnest(%(sessions)s::text[], %(words)s::text[]) AS given (session_id, words)
), free AS (
    SELECT s.session_id FROM recollect_sessions s JOIN found USING (session_id)
    WHERE s.user_id = %(user)s AND s.title_words IS NULL FOR UPDATE OF s SKIP LOCKED
)
UPDATE recollect_sessions s SET title_words = array_to_tsvector(string_to_array(found.words, ' '))
FROM free JOIN found USING (session_id)
WHERE s.user_id = %(user)s AND s.session_id = free.session_id
RETURNING 1
