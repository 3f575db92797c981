-- The turns of a session as they are given out.
-- GIVES   is_lost: a turn says that it runs while its owner is dead;  versions: the turn_ids of all that stand at its
--         place, oldest first, its own included;  and columns of recollect_turns
-- PostgreSQL puts the text of such a function into the statement that calls it: only what is asked for is read.
CREATE OR REPLACE FUNCTION recollect_told_turns(p_user text, p_session text)
RETURNS TABLE (
    seq bigint, hidden bigint, turn_id text, status text, chain text, started_at timestamptz, ended_at timestamptz,
    input text, output text, usage text, kind text, tokens bigint, details text, feedback text, versions text[],
    is_lost boolean
)
LANGUAGE sql STABLE AS $$
SELECT t.seq, t.hidden, t.turn_id, t.status, t.chain, t.started_at, t.ended_at,
    t.input, t.output, t.usage, t.kind, t.tokens, t.details, t.feedback,
    ARRAY(
        SELECT other.turn_id FROM (
            SELECT h.seq, h.turn_id FROM recollect_turns h
            WHERE h.user_id = p_user AND h.session_id = p_session AND h.hidden <> 0 AND h.parent = t.parent
            UNION ALL
            SELECT shown.seq, shown.turn_id FROM (
                SELECT o.seq, o.turn_id, o.parent FROM recollect_turns o
                WHERE o.user_id = p_user AND o.session_id = p_session AND o.hidden = 0 AND o.seq > t.parent
                ORDER BY o.seq LIMIT 1
            ) shown
            WHERE shown.parent = t.parent
        ) other
        ORDER BY other.seq
    ) AS versions,
    t.status = 'running' AND NOT EXISTS (
        SELECT FROM recollect_sessions s JOIN recollect_alive a ON a.server_id = s.holder
        WHERE s.user_id = p_user AND s.session_id = p_session) AS is_lost
FROM recollect_turns t WHERE t.user_id = p_user AND t.session_id = p_session
$$;
