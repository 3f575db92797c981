-- The shown line ends before a turn of it; what followed is hidden (p_keep), or forgotten with all its versions.
-- GIVES   done, unknown (no such turn on the shown line), or what recollect_lock_session says
CREATE OR REPLACE FUNCTION recollect_rewind(
    p_user text, p_session text, p_server text, p_turn text, p_if_last text, p_keep boolean
)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text := recollect_lock_session(p_user, p_session, p_server, p_if_last);
    target recollect_turns;
    number bigint;
    dropped bigint;
BEGIN
    SELECT * INTO target FROM recollect_turns
    WHERE turn_id = p_turn AND session_id = p_session AND user_id = p_user AND hidden = 0;
    IF state = 'absent' OR NOT FOUND THEN
        RETURN CASE WHEN state = 'absent' THEN state ELSE 'unknown' END;
    ELSIF state <> 'idle' THEN
        RETURN state;
    END IF;
    IF NOT p_keep THEN
        WITH RECURSIVE doomed AS (
            SELECT h.seq FROM recollect_turns h
            WHERE h.user_id = p_user AND h.session_id = p_session AND h.hidden <> 0
            AND (h.parent = target.parent OR h.parent IN (
                SELECT t.seq FROM recollect_turns t
                WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq >= target.seq))
            UNION
            SELECT h.seq FROM doomed JOIN recollect_turns h
            ON h.user_id = p_user AND h.session_id = p_session AND h.hidden <> 0 AND h.parent = doomed.seq
        )
        DELETE FROM recollect_turns
        WHERE user_id = p_user AND session_id = p_session AND hidden <> 0 AND seq IN (SELECT seq FROM doomed);
        DELETE FROM recollect_turns
        WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq >= target.seq;
    ELSE
        number := recollect_next_number(p_user, p_session);
        UPDATE recollect_turns SET hidden = number
        WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq >= target.seq;
    END IF;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    PERFORM recollect_set_head(p_user, p_session, -dropped);
    RETURN 'done';
END $$;
