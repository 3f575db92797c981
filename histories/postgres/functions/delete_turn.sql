-- Forgets one turn.
-- GIVES   done, unknown (no such turn), or what recollect_lock_session says
CREATE OR REPLACE FUNCTION recollect_delete_turn(
    p_user text, p_session text, p_server text, p_turn text, p_if_last text
)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text := recollect_lock_session(p_user, p_session, p_server, p_if_last);
BEGIN
    IF state = 'absent' THEN
        RETURN state;
    ELSIF NOT EXISTS (
        SELECT FROM recollect_turns WHERE turn_id = p_turn AND session_id = p_session AND user_id = p_user) THEN
        RETURN 'unknown';
    ELSIF state = 'idle' THEN
        PERFORM recollect_remove_turn(p_user, p_session, p_turn);
        RETURN 'done';
    END IF;
    RETURN state;
END $$;
