-- Ends the turn of an attempt whose owner is dead, or is the asker itself, as recollect_end does; tells the owner, if
-- it comes back, to stop. Does nothing if the owner lives.
CREATE OR REPLACE FUNCTION recollect_settle(
    p_user text, p_session text, p_server text, p_token text, p_turn text, p_status text, p_output text, p_usage text,
    p_kind text, p_details text, p_tokens bigint, p_words text[], p_is_shown boolean
)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    owner text;
BEGIN
    IF recollect_lock_session(p_user, p_session, p_server, NULL) <> 'lost' THEN
        RETURN;
    END IF;
    SELECT holder INTO owner FROM recollect_sessions
    WHERE user_id = p_user AND session_id = p_session AND token = p_token;
    IF NOT FOUND OR NOT recollect_end(p_user, p_session, p_token, p_turn, p_status, p_output, p_usage, p_kind,
            p_details, p_tokens, p_words, p_is_shown) THEN
        RETURN;
    END IF;
    UPDATE recollect_turns SET token = NULL -- so that the owner's own end is told that it was lost
    WHERE turn_id = p_turn AND session_id = p_session AND user_id = p_user;
    IF owner <> p_server THEN
        INSERT INTO recollect_stops (server_id, token) VALUES (owner, p_token) ON CONFLICT DO NOTHING;
    END IF;
END $$;
