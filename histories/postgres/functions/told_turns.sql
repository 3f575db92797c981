-- Turns as they are given out: is_lost tells that a turn says it runs while its owner is dead; versions are the turn_ids
-- of all that stand at its place, oldest first, its own included.
CREATE OR REPLACE VIEW recollect_told_turns AS
SELECT t.user_id, t.session_id, t.seq, t.hidden, t.turn_id, t.status, t.chain, t.started_at, t.ended_at,
    t.input, t.output, t.usage, t.kind, t.tokens, t.details, t.feedback,
    ARRAY(
        SELECT other.turn_id FROM (
            SELECT h.seq, h.turn_id FROM recollect_turns h
            WHERE h.user_id = t.user_id AND h.session_id = t.session_id AND h.hidden <> 0 AND h.parent = t.parent
            UNION ALL
            SELECT shown.seq, shown.turn_id FROM (
                SELECT o.seq, o.turn_id, o.parent FROM recollect_turns o
                WHERE o.user_id = t.user_id AND o.session_id = t.session_id AND o.hidden = 0 AND o.seq > t.parent
                ORDER BY o.seq LIMIT 1
            ) shown
            WHERE shown.parent = t.parent
        ) other
        ORDER BY other.seq
    ) AS versions,
    t.status = 'running' AND NOT EXISTS (
        SELECT FROM recollect_sessions s JOIN recollect_alive a ON a.server_id = s.holder
        WHERE s.user_id = t.user_id AND s.session_id = t.session_id) AS is_lost
FROM recollect_turns t;
