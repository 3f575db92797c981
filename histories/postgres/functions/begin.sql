-- A turn that is first in line in its process wants its session.
-- TAKES   p_token of the attempt; p_given: the client chose the turn_id; p_patient: it will wait; p_version_of and
--         p_if_last: see SessionHistory.begin; p_half of the window, in tokens (0: no past is read)
-- GIVES   word: complete, running: so is the turn of that id (if given);  wait: not yet, perhaps after wait_s seconds
--         lost: a dead owner's turn is to be settled first;  moved, unknown: p_if_last, p_version_of is not so
--         begun: it has begun; then there is a row for each turn of its window, and one without a turn if there is none
CREATE OR REPLACE FUNCTION recollect_begin(
    p_user text, p_session text, p_server text, p_token text, p_turn text, p_given boolean, p_patient boolean,
    p_version_of text, p_if_last text, p_title text, p_title_words text[], p_chain text, p_input text,
    p_tokens bigint, p_half bigint
)
RETURNS TABLE (word text, wait_s double precision, turn_id text, input text, output text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s recollect_sessions;
    earlier record;
    place record;
    busy_until timestamptz;
    new_seq bigint;
    replaced bigint := 0;
BEGIN
    LOOP
        SELECT * INTO s FROM recollect_sessions r WHERE r.user_id = p_user AND r.session_id = p_session FOR UPDATE;
        EXIT WHEN FOUND;
        IF p_if_last <> '' OR p_version_of IS NOT NULL THEN
            RETURN QUERY SELECT CASE WHEN p_if_last <> '' THEN 'moved' ELSE 'unknown' END, 0::float8, NULL, NULL, NULL;
            RETURN;
        END IF;
        busy_until := recollect_busy_until(p_user, p_session, NULL, p_server, p_token);
        EXIT WHEN busy_until IS NOT NULL;
        INSERT INTO recollect_sessions AS r
            (user_id, session_id, title, title_words, chain, created_at, updated_at, turns, tokens, last_seq, token)
        VALUES (p_user, p_session, p_title, array_to_tsvector(p_title_words), '', clock_timestamp(), clock_timestamp(),
            0, 0, 0, '')
        ON CONFLICT DO NOTHING;
    END LOOP;

    IF s.token = p_token AND s.holder IS NOT NULL THEN -- it has begun before, and the answer was lost
        new_seq := s.head;
    ELSE
        SELECT t.seq, t.status INTO earlier FROM recollect_turns t
        WHERE t.turn_id = p_turn AND t.session_id = p_session AND t.user_id = p_user;
        busy_until := recollect_busy_until(p_user, p_session, s.holder, p_server, p_token);
        IF p_given AND earlier.status = 'complete' THEN
            RETURN QUERY SELECT 'complete', 0::float8, NULL, NULL, NULL;
            RETURN;
        ELSIF busy_until IS NOT NULL THEN
            IF p_given AND earlier.status = 'running' THEN
                RETURN QUERY SELECT 'running', 0::float8, NULL, NULL, NULL;
                RETURN;
            END IF;
            IF p_patient THEN
                INSERT INTO recollect_waiters (user_id, session_id, token, server_id, since)
                VALUES (p_user, p_session, p_token, p_server, clock_timestamp())
                ON CONFLICT DO NOTHING;
            END IF;
            RETURN QUERY SELECT 'wait', extract(epoch FROM busy_until - clock_timestamp())::float8, NULL, NULL, NULL;
            RETURN;
        ELSIF s.holder IS NOT NULL THEN
            RETURN QUERY SELECT 'lost', 0::float8, NULL, NULL, NULL;
            RETURN;
        END IF;
        IF p_if_last <> coalesce((
            SELECT t.turn_id FROM recollect_turns t
            WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq = s.head), '') THEN
            RETURN QUERY SELECT 'moved', 0::float8, NULL, NULL, NULL;
            RETURN;
        END IF;

        IF p_version_of IS NOT NULL THEN
            SELECT t.seq, t.parent, t.tokens_before INTO place FROM recollect_turns t
            WHERE t.turn_id = p_version_of AND t.session_id = p_session AND t.user_id = p_user AND t.hidden = 0;
            IF NOT FOUND THEN
                RETURN QUERY SELECT 'unknown', 0::float8, NULL, NULL, NULL;
                RETURN;
            END IF;
        END IF;
        IF earlier.seq IS NOT NULL THEN -- a retry takes the place of what did not complete
            PERFORM recollect_remove_turn(p_user, p_session, p_turn);
            SELECT * INTO s FROM recollect_sessions r WHERE r.user_id = p_user AND r.session_id = p_session;
            IF p_version_of IS NOT NULL AND p_version_of <> p_turn THEN
                SELECT t.seq, t.parent, t.tokens_before INTO place FROM recollect_turns t
                WHERE t.turn_id = p_version_of AND t.session_id = p_session AND t.user_id = p_user;
            END IF;
        END IF;
        new_seq := s.last_seq + 1;
        IF p_version_of IS NOT NULL THEN
            UPDATE recollect_turns t SET hidden = new_seq
            WHERE t.user_id = p_user AND t.session_id = p_session AND t.hidden = 0 AND t.seq >= place.seq;
            GET DIAGNOSTICS replaced = ROW_COUNT;
            s.head := place.parent;
            s.tokens := place.tokens_before;
        END IF;

        UPDATE recollect_sessions r
        SET chain = p_chain, updated_at = clock_timestamp(), turns = r.turns + 1 - replaced, tokens = s.tokens,
            last_seq = new_seq, head = new_seq, holder = p_server, token = p_token
        WHERE r.user_id = p_user AND r.session_id = p_session
        RETURNING r.updated_at INTO s.updated_at;
        INSERT INTO recollect_turns (user_id, session_id, seq, turn_id, token, status, chain, kind, started_at,
            input, output, tokens, tokens_before, parent)
        VALUES (p_user, p_session, new_seq, p_turn, p_token, 'running', p_chain, '', s.updated_at,
            p_input, '[]', 0, s.tokens, s.head);
        DELETE FROM recollect_waiters w
        WHERE w.user_id = p_user AND w.session_id = p_session AND w.token = p_token;
    END IF;

    RETURN QUERY
    SELECT 'begun', 0::float8, past.turn_id, past.input, past.output
    FROM (VALUES (1)) one LEFT JOIN recollect_window(p_user, p_session, new_seq, s.tokens, p_tokens, p_half) past
    ON true
    ORDER BY past.seq;
END $$;
