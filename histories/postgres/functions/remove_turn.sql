-- Takes one turn out of a locked session: what followed it follows what was before it.
CREATE OR REPLACE FUNCTION recollect_remove_turn(p_user text, p_session text, p_turn text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone recollect_turns;
BEGIN
    DELETE FROM recollect_turns WHERE user_id = p_user AND session_id = p_session AND turn_id = p_turn
    RETURNING * INTO gone;
    IF gone.tokens <> 0 THEN
        UPDATE recollect_turns SET tokens_before = tokens_before - gone.tokens
        WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq > gone.seq AND gone.hidden = 0;
        WITH RECURSIVE below AS (
            SELECT h.seq FROM recollect_turns h
            WHERE h.user_id = p_user AND h.session_id = p_session AND h.hidden <> 0
            AND (h.parent = gone.seq OR gone.hidden = 0 AND h.parent IN (
                SELECT t.seq FROM recollect_turns t
                WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq > gone.seq))
            UNION ALL
            SELECT h.seq FROM below JOIN recollect_turns h
            ON h.user_id = p_user AND h.session_id = p_session AND h.hidden <> 0 AND h.parent = below.seq
        )
        UPDATE recollect_turns SET tokens_before = tokens_before - gone.tokens
        WHERE user_id = p_user AND session_id = p_session AND hidden <> 0 AND seq IN (SELECT seq FROM below);
    END IF;
    UPDATE recollect_turns SET parent = gone.parent
    WHERE user_id = p_user AND session_id = p_session AND hidden <> 0 AND parent = gone.seq;
    UPDATE recollect_turns SET parent = gone.parent
    WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND parent = gone.seq AND seq = (
        SELECT seq FROM recollect_turns
        WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq > gone.seq ORDER BY seq LIMIT 1);
    PERFORM recollect_set_head(p_user, p_session, CASE WHEN gone.hidden = 0 THEN -1 ELSE 0 END);
END $$;
