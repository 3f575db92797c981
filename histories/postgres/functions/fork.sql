-- Makes a new session of the shown line up to and with a turn of it.
-- GIVES   done, absent, unknown, exists (the name is taken), held (that turn still runs), or lost
CREATE OR REPLACE FUNCTION recollect_fork(p_user text, p_session text, p_server text, p_turn text, p_new text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text := recollect_lock_session(p_user, p_session, p_server, NULL);
    source recollect_sessions;
    last recollect_turns;
BEGIN
    IF state = 'absent' THEN
        RETURN state;
    END IF;
    SELECT * INTO last FROM recollect_turns
    WHERE turn_id = p_turn AND session_id = p_session AND user_id = p_user AND hidden = 0;
    IF NOT FOUND THEN
        RETURN 'unknown';
    ELSIF last.status = 'running' THEN
        RETURN state;
    END IF;
    SELECT * INTO source FROM recollect_sessions WHERE user_id = p_user AND session_id = p_session;
    INSERT INTO recollect_sessions
        (user_id, session_id, title, title_words, chain, created_at, updated_at, turns, tokens, last_seq, head, token)
    SELECT p_user, p_new, source.title, source.title_words, last.chain, clock_timestamp(),
        greatest(clock_timestamp(), last.ended_at), count(*), last.tokens_before + last.tokens, last.seq, last.seq, ''
    FROM recollect_turns t
    WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq <= last.seq
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'exists';
    END IF;
    INSERT INTO recollect_turns (user_id, session_id, seq, turn_id, status, chain, kind, started_at, ended_at,
        input, output, usage, tokens, tokens_before, parent, details, feedback, words)
    SELECT t.user_id, p_new, t.seq, t.turn_id, t.status, t.chain, t.kind, t.started_at, t.ended_at,
        t.input, t.output, t.usage, t.tokens, t.tokens_before, t.parent, t.details, t.feedback, t.words
    FROM recollect_turns t
    WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq <= last.seq;
    RETURN 'done';
END $$;
