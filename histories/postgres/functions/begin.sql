-- A turn that is first in line in its process wants its session.
-- TAKES   p_token of the attempt; p_given: the client chose the turn_id; p_patient: it will wait; p_version_of and
--         p_if_last: see SessionHistory.begin; p_half of the window, in tokens (0: no past is read)
-- GIVES   word: complete, running: so is the turn of that id (if given);  wait: not yet, perhaps after wait_s seconds
--         lost: a dead owner's turn is to be settled first;  moved, unknown: p_if_last, p_version_of is not so
--         begun: it has begun, at started_at; then there is a row for each turn of its window, and one without a turn
--         if there is none; wait_s is above 0 if turns stand before the window
CREATE OR REPLACE FUNCTION recollect_begin(
    p_user text, p_session text, p_server text, p_token text, p_turn text, p_given boolean, p_patient boolean,
    p_version_of text, p_if_last text, p_title text, p_title_words text[], p_chain text, p_input text,
    p_tokens bigint, p_half bigint
)
RETURNS TABLE (word text, wait_s double precision, started_at timestamptz, turn_id text, input text, output text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s recollect_sessions;
    busy_until timestamptz;
    verdict text;
BEGIN
    LOOP
        SELECT * INTO s FROM recollect_sessions r WHERE r.user_id = p_user AND r.session_id = p_session FOR UPDATE;
        busy_until := recollect_busy_until(p_user, p_session, s.holder, p_server, p_token);
        EXIT WHEN s.user_id IS NOT NULL OR busy_until IS NOT NULL;
        IF p_if_last <> '' OR p_version_of IS NOT NULL THEN
            RETURN QUERY SELECT CASE WHEN p_if_last <> '' THEN 'moved' ELSE 'unknown' END, 0::float8, NULL::timestamptz,
                NULL, NULL, NULL;
            RETURN;
        END IF;
        INSERT INTO recollect_sessions
            (user_id, session_id, title, title_words, chain, created_at, updated_at, turns, tokens, last_seq, token)
        VALUES (p_user, p_session, p_title, array_to_tsvector(p_title_words), '', clock_timestamp(), clock_timestamp(),
            0, 0, 0, '')
        ON CONFLICT DO NOTHING; -- whoever was quicker: it is found now
    END LOOP;
    IF s.token = p_token AND s.holder IS NOT NULL THEN
        verdict := 'begun'; -- before, and the answer was lost
    ELSE
        verdict := recollect_verdict(
            p_user, p_session, s.holder, s.head, p_turn, p_given, p_version_of, p_if_last, busy_until IS NOT NULL);
    END IF;
    IF verdict = 'wait' AND p_patient THEN
        INSERT INTO recollect_waiters (user_id, session_id, token, server_id, since)
        VALUES (p_user, p_session, p_token, p_server, clock_timestamp())
        ON CONFLICT DO NOTHING;
    ELSIF verdict = 'free' THEN
        PERFORM recollect_start_turn(
            p_user, p_session, p_server, p_token, p_turn, p_version_of, p_chain, p_input);
        verdict := 'begun';
    END IF;
    IF verdict <> 'begun' THEN
        RETURN QUERY
        SELECT verdict, coalesce(extract(epoch FROM busy_until - clock_timestamp()), 0)::float8, NULL::timestamptz,
            NULL, NULL, NULL;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT 'begun', (r.tokens + p_tokens >= 2 * p_half)::int::float8, (
        SELECT t.started_at FROM recollect_turns t
        WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq = r.head
    ), past.turn_id, past.input, past.output
    FROM recollect_sessions r LEFT JOIN recollect_window(p_user, p_session, r.head, r.tokens, p_tokens, p_half) past
    ON true
    WHERE r.user_id = p_user AND r.session_id = p_session
    ORDER BY past.seq;
END $$;
