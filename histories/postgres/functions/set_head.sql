-- Sums up the shown line of a locked session after a change of it: where it ends, how long it is.
-- TAKES   the session, and how many turns the line has gained
CREATE OR REPLACE FUNCTION recollect_set_head(p_user text, p_session text, p_more bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last recollect_turns;
BEGIN
    SELECT * INTO last FROM recollect_turns
    WHERE user_id = p_user AND session_id = p_session AND hidden = 0 ORDER BY seq DESC LIMIT 1;
    UPDATE recollect_sessions
    SET head = coalesce(last.seq, 0), chain = coalesce(last.chain, ''), turns = turns + p_more,
        tokens = coalesce(last.tokens_before + last.tokens, 0), updated_at = clock_timestamp()
    WHERE user_id = p_user AND session_id = p_session;
END $$;
