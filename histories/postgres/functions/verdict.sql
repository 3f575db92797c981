-- What becomes of a turn that wants to begin in a locked session, or in one that is not there yet.
-- GIVES   free, or what recollect_begin gives
CREATE OR REPLACE FUNCTION recollect_verdict(
    p_user text, p_session text, p_holder text, p_head bigint, p_turn text, p_given boolean, p_version_of text,
    p_if_last text, p_is_busy boolean
)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    earlier text;
BEGIN
    IF p_given THEN
        SELECT t.status INTO earlier FROM recollect_turns t
        WHERE t.turn_id = p_turn AND t.session_id = p_session AND t.user_id = p_user;
    END IF;
    IF earlier = 'complete' THEN
        RETURN 'complete';
    ELSIF p_is_busy THEN
        RETURN CASE WHEN earlier = 'running' THEN 'running' ELSE 'wait' END;
    ELSIF p_holder IS NOT NULL THEN
        RETURN 'lost';
    ELSIF p_if_last <> coalesce((
        SELECT t.turn_id FROM recollect_turns t
        WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq = p_head), '') THEN
        RETURN 'moved';
    ELSIF p_version_of IS NOT NULL AND NOT EXISTS (
        SELECT FROM recollect_turns t
        WHERE t.turn_id = p_version_of AND t.session_id = p_session AND t.user_id = p_user AND t.hidden = 0) THEN
        RETURN 'unknown';
    END IF;
    RETURN 'free';
END $$;
