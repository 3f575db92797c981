-- Shows the line on which a turn stands, with what followed it when it was last shown.
-- GIVES   done, unknown (no such turn), or what recollect_lock_session says
CREATE OR REPLACE FUNCTION recollect_choose(
    p_user text, p_session text, p_server text, p_turn text, p_if_last text
)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text := recollect_lock_session(p_user, p_session, p_server, p_if_last);
    at recollect_turns;
    line bigint[] := '{}';      -- what is to be shown, and is not
    branch bigint;              -- the last turn of the shown line that stays so
    number bigint;
    lost bigint;
BEGIN
    SELECT * INTO at FROM recollect_turns WHERE turn_id = p_turn AND session_id = p_session AND user_id = p_user;
    IF state = 'absent' OR NOT FOUND THEN
        RETURN CASE WHEN state = 'absent' THEN state ELSE 'unknown' END;
    ELSIF state <> 'idle' THEN
        RETURN state;
    END IF;
    IF at.hidden = 0 THEN -- what follows it on the shown line does already
        SELECT head INTO branch FROM recollect_sessions WHERE user_id = p_user AND session_id = p_session;
    ELSE
        WITH RECURSIVE unseen AS MATERIALIZED (
            SELECT seq, parent FROM recollect_turns
            WHERE user_id = p_user AND session_id = p_session AND hidden <> 0
        ), above AS (
            SELECT at.seq, at.parent
            UNION ALL
            SELECT unseen.seq, unseen.parent FROM above JOIN unseen ON unseen.seq = above.parent
        )
        SELECT array_agg(seq), (SELECT parent FROM above ORDER BY seq LIMIT 1) INTO line, branch FROM above;
    END IF;
    WITH RECURSIVE below AS (
        SELECT CASE WHEN at.hidden = 0 THEN branch ELSE at.seq END AS seq
        UNION ALL
        SELECT latest.seq FROM below, LATERAL (
            SELECT h.seq FROM recollect_turns h
            WHERE h.user_id = p_user AND h.session_id = p_session AND h.hidden <> 0 AND h.parent = below.seq
            ORDER BY h.hidden DESC LIMIT 1
        ) latest
    )
    SELECT line || array_agg(seq) INTO line FROM below WHERE seq <> branch;
    number := recollect_next_number(p_user, p_session);
    UPDATE recollect_turns SET hidden = number
    WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq > branch;
    GET DIAGNOSTICS lost = ROW_COUNT;
    UPDATE recollect_turns SET hidden = 0
    WHERE user_id = p_user AND session_id = p_session AND hidden NOT IN (0, number) AND seq = ANY (line);
    PERFORM recollect_set_head(p_user, p_session, (SELECT count(DISTINCT seq) FROM unnest(line) seq) - lost);
    RETURN 'done';
END $$;
