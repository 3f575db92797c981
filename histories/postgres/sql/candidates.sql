-- Complete turns of shown lines in which words of a question stand, those with the rarer and the more of them first.
-- TAKES   queries: a tsquery for each word; session: of that one alone, or NULL; most: how many turns of a word are read
-- GIVES   the turns, and in the last column for each word how rare it is among the user's turns
WITH query AS (
    SELECT q.word, q.nth FROM unnest(%(queries)s::tsquery[]) WITH ORDINALITY AS q (word, nth)
), found AS (
    SELECT query.nth, near.session_id, near.seq
    FROM query, LATERAL (
        SELECT t.session_id, t.seq FROM recollect_turns t
        WHERE t.words @@ query.word AND t.user_id = %(user)s AND t.hidden = 0 AND t.status = 'complete'
        AND (%(session)s::text IS NULL OR t.session_id = %(session)s::text)
        LIMIT %(most)s
    ) near
), number AS (
    SELECT coalesce(sum(turns), 0) AS of_all FROM recollect_sessions
    WHERE user_id = %(user)s AND (%(session)s::text IS NULL OR session_id = %(session)s::text)
), rarity AS (
    SELECT query.nth, ln(1 + (greatest(number.of_all, count(found.seq)) - count(found.seq) + 0.5)
        / (count(found.seq) + 0.5))::float8 AS weight
    FROM number, query LEFT JOIN found USING (nth) GROUP BY query.nth, number.of_all
), but AS (
    SELECT t.session_id, t.seq
    FROM unnest(%(but_sessions)s::text[], %(but_turns)s::text[]) AS named (session_id, turn_id)
    JOIN recollect_turns t
    ON t.turn_id = named.turn_id AND t.session_id = named.session_id AND t.user_id = %(user)s
), best AS (
    SELECT found.session_id, found.seq FROM found JOIN rarity USING (nth)
    WHERE (found.session_id, found.seq) NOT IN (SELECT session_id, seq FROM but)
    GROUP BY found.session_id, found.seq ORDER BY sum(rarity.weight) DESC, found.seq DESC LIMIT %(limit)s
)
SELECT best.session_id, t.seq, t.is_lost, t.turn_id, t.status, t.chain, t.started_at, t.ended_at, t.input, t.output,
    t.usage, t.kind, t.tokens, t.details, t.feedback, t.versions, ARRAY(SELECT weight FROM rarity ORDER BY nth)
FROM best JOIN LATERAL (
    SELECT * FROM recollect_told_turns(%(user)s, best.session_id) told WHERE told.hidden = 0 AND told.seq = best.seq
    OFFSET 0 -- or it is a join with all turns of the session
) t ON true
