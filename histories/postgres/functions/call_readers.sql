-- Calls the servers that read a turn's journal.
CREATE OR REPLACE FUNCTION recollect_call_readers(p_user text, p_session text, p_token text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('recollect_' || server_id, 'events:' || token) FROM recollect_readers
    WHERE user_id = p_user AND session_id = p_session AND token = p_token;
END $$;
