-- The same, but those alone in which each of the words stands: `queries` has a tsquery for each.
WITH query AS (
    SELECT q.word, q.nth FROM unnest(%(queries)s::tsquery[]) WITH ORDINALITY AS q (word, nth)
), found AS (
    SELECT t.session_id, query.nth FROM query JOIN recollect_turns t ON t.words @@ query.word
    WHERE t.user_id = %(user)s AND t.hidden = 0
    UNION
    SELECT s.session_id, query.nth FROM query JOIN recollect_sessions s ON s.title_words @@ query.word
    WHERE s.user_id = %(user)s
), fitting AS (
    SELECT session_id FROM found GROUP BY session_id HAVING count(*) = cardinality(%(queries)s::tsquery[])
)
SELECT s.session_id, s.title, s.chain, s.created_at, s.updated_at, s.turns, NULL
FROM recollect_sessions s
WHERE s.user_id = %(user)s AND s.session_id IN (SELECT session_id FROM fitting)
AND (s.updated_at, s.session_id) < (%(at)s, %(session)s)
AND (%(end_at)s::timestamptz IS NULL OR (s.updated_at, s.session_id) > (%(end_at)s::timestamptz, %(end)s::text))
ORDER BY s.updated_at DESC, s.session_id DESC LIMIT %(limit)s
