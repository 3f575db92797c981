-- Begins a turn in a locked session that is free: at the end of its shown line, or in the place of p_version_of, which
-- then is hidden with all that follows it. An earlier attempt of that turn_id goes.
CREATE OR REPLACE FUNCTION recollect_start_turn(
    p_user text, p_session text, p_server text, p_token text, p_turn text, p_version_of text, p_chain text, p_input text
)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s recollect_sessions;
    place recollect_turns;
    number bigint;
    replaced bigint := 0;
BEGIN
    SELECT * INTO place FROM recollect_turns
    WHERE turn_id = p_version_of AND session_id = p_session AND user_id = p_user;
    IF EXISTS (
        SELECT FROM recollect_turns WHERE turn_id = p_turn AND session_id = p_session AND user_id = p_user) THEN
        PERFORM recollect_remove_turn(p_user, p_session, p_turn);
        IF p_version_of <> p_turn THEN -- what was before it may be another one now
            SELECT * INTO place FROM recollect_turns
            WHERE turn_id = p_version_of AND session_id = p_session AND user_id = p_user;
        END IF;
    END IF;
    SELECT * INTO s FROM recollect_sessions WHERE user_id = p_user AND session_id = p_session;
    number := s.last_seq + 1;
    IF p_version_of IS NOT NULL THEN
        UPDATE recollect_turns SET hidden = number
        WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq >= place.seq;
        GET DIAGNOSTICS replaced = ROW_COUNT;
        s.head := place.parent;
        s.tokens := place.tokens_before;
    END IF;
    s.updated_at := clock_timestamp();
    UPDATE recollect_sessions
    SET chain = p_chain, updated_at = s.updated_at, turns = turns + 1 - replaced, tokens = s.tokens, last_seq = number,
        head = number, holder = p_server, token = p_token
    WHERE user_id = p_user AND session_id = p_session;
    INSERT INTO recollect_turns
        (user_id, session_id, seq, turn_id, token, status, chain, kind, started_at, input, output, tokens,
        tokens_before, parent)
    VALUES (p_user, p_session, number, p_turn, p_token, 'running', p_chain, '', s.updated_at, p_input, '[]', 0,
        s.tokens, s.head);
    DELETE FROM recollect_waiters WHERE user_id = p_user AND session_id = p_session AND token = p_token;
END $$;
