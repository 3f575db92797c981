-- Puts the end of a turn on the record and frees its session.
-- TAKES   p_token of its attempt; p_words of all that was said; p_is_shown: whether a model is shown a turn that ended so
-- GIVES   true: the end is on the record, and was put there by who began the turn, now or by an attempt whose answer
--         was lost
CREATE OR REPLACE FUNCTION recollect_end(
    p_user text, p_session text, p_token text, p_turn text, p_status text, p_output text, p_usage text, p_kind text,
    p_details text, p_tokens bigint, p_words text[], p_is_shown boolean
)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    s recollect_sessions;
    others bigint := 0;
    ended_seq bigint;
BEGIN
    SELECT * INTO s FROM recollect_sessions WHERE user_id = p_user AND session_id = p_session FOR UPDATE;
    IF NOT FOUND OR s.token <> p_token OR s.holder IS NULL THEN
        RETURN EXISTS (
            SELECT FROM recollect_turns t
            WHERE t.turn_id = p_turn AND t.session_id = p_session AND t.user_id = p_user
            AND t.token = p_token AND t.status <> 'running');
    END IF;
    ended_seq := s.head;
    s.updated_at := clock_timestamp();
    UPDATE recollect_turns
    SET status = p_status, ended_at = s.updated_at, output = p_output, usage = p_usage, kind = p_kind,
        details = p_details, tokens = p_tokens, words = array_to_tsvector(p_words)
    WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq = ended_seq;
    UPDATE recollect_sessions SET holder = NULL, tokens = tokens + p_tokens, updated_at = s.updated_at
    WHERE user_id = p_user AND session_id = p_session;
    IF NOT p_is_shown THEN -- if it hid others to stand in their place, they are shown again
        UPDATE recollect_turns SET hidden = 0
        WHERE user_id = p_user AND session_id = p_session AND hidden = ended_seq;
        GET DIAGNOSTICS others = ROW_COUNT;
        IF others > 0 THEN
            UPDATE recollect_turns SET hidden = recollect_next_number(p_user, p_session)
            WHERE user_id = p_user AND session_id = p_session AND hidden = 0 AND seq = ended_seq;
            PERFORM recollect_set_head(p_user, p_session, others - 1);
        END IF;
    END IF;
    DELETE FROM recollect_events WHERE user_id = p_user AND session_id = p_session AND token = p_token;
    PERFORM recollect_call_readers(p_user, p_session, p_token);
    DELETE FROM recollect_readers WHERE user_id = p_user AND session_id = p_session AND token = p_token;
    PERFORM pg_notify('recollect_' || w.server_id, 'free:' || w.token)
    FROM (
        SELECT w.server_id, w.token FROM recollect_waiters w JOIN recollect_alive a ON a.server_id = w.server_id
        WHERE w.user_id = p_user AND w.session_id = p_session
        ORDER BY w.since, w.token LIMIT 1
    ) w;
    RETURN true;
END $$;
