-- The turns that a model is shown before the turn p_seq: see histories/window.py, whose sum this is.
-- It reads the line backwards, as far as it is shown and one turn more, however long the history is.
CREATE OR REPLACE FUNCTION recollect_window(
    p_user text, p_session text, p_seq bigint, p_so_far bigint, p_tokens bigint, p_half bigint
)
RETURNS TABLE (seq bigint, turn_id text, input text, output text) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    floor bigint := greatest(0, (p_so_far + p_tokens) / nullif(p_half, 0) - 1) * p_half;
    first bigint;
BEGIN
    IF p_half = 0 THEN
        RETURN;
    END IF;
    SELECT t.seq INTO first FROM recollect_turns t
    WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0
    AND t.seq < p_seq AND t.tokens_before < floor
    ORDER BY t.seq DESC LIMIT 1;
    RETURN QUERY
    SELECT t.seq, t.turn_id, t.input, t.output FROM recollect_turns t
    WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0
    AND t.seq > coalesce(first, 0) AND t.seq < p_seq
    AND (t.status = 'complete' OR t.status = 'interrupted' AND t.output <> '[]');
END $$;
