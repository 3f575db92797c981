-- Locks a session for a change of its turns.
-- TAKES   the session, who asks, and (or NULL) the turn_id that its shown line is to end with
-- GIVES   absent: there is no such session
--         held: a turn of another server runs;  lost: one runs whose owner is dead, and is to be settled first
--         moved: its shown line ends otherwise;  idle: go on
CREATE OR REPLACE FUNCTION recollect_lock_session(p_user text, p_session text, p_server text, p_if_last text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    s recollect_sessions;
BEGIN
    SELECT * INTO s FROM recollect_sessions WHERE user_id = p_user AND session_id = p_session FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'absent';
    ELSIF s.holder <> p_server AND EXISTS (SELECT FROM recollect_alive WHERE server_id = s.holder) THEN
        RETURN 'held';
    ELSIF s.holder IS NOT NULL THEN
        RETURN 'lost';
    ELSIF p_if_last <> coalesce((
        SELECT turn_id FROM recollect_turns
        WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq = s.head), '') THEN
        RETURN 'moved';
    END IF;
    RETURN 'idle';
END $$;
