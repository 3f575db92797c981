-- Another number of a locked session, above those of all its turns and changes.
CREATE OR REPLACE FUNCTION recollect_next_number(p_user text, p_session text)
RETURNS bigint LANGUAGE sql AS $$
    UPDATE recollect_sessions SET last_seq = last_seq + 1
    WHERE user_id = p_user AND session_id = p_session RETURNING last_seq
$$;
