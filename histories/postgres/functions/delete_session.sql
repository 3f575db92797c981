-- Forgets a session and all that belongs to it.
-- GIVES   done, absent, or held (a turn of it runs)
CREATE OR REPLACE FUNCTION recollect_delete_session(p_user text, p_session text, p_server text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text := recollect_lock_session(p_user, p_session, p_server, NULL);
BEGIN
    IF state IN ('absent', 'held') THEN
        RETURN state;
    END IF;
    DELETE FROM recollect_sessions WHERE user_id = p_user AND session_id = p_session;
    DELETE FROM recollect_turns WHERE user_id = p_user AND session_id = p_session;
    DELETE FROM recollect_events WHERE user_id = p_user AND session_id = p_session;
    DELETE FROM recollect_readers WHERE user_id = p_user AND session_id = p_session;
    RETURN 'done';
END $$;
