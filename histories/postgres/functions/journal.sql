-- Appends a batch of events, one a line, to what the attempt's turn has said; p_first is the number of the first.
-- GIVES   false: the turn was lost, and nothing was written
-- This commit need not wait for the disk: a power cut may take the journal, never the record.
CREATE OR REPLACE FUNCTION recollect_journal(p_user text, p_session text, p_token text, p_first bigint, p_data bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM FROM recollect_sessions
    WHERE user_id = p_user AND session_id = p_session AND token = p_token AND holder IS NOT NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO recollect_events VALUES (p_user, p_session, p_token, p_first, p_data)
    ON CONFLICT (user_id, session_id, token, first) DO UPDATE SET data = excluded.data;
    PERFORM recollect_call_readers(p_user, p_session, p_token);
    RETURN true;
END $$;
