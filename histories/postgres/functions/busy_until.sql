-- Until when a session is not the asker's, unless it gets free before: a turn of another server runs, or somebody of
-- another server is ahead in line. NULL: it is the asker's now. All of it in the eyes of PostgreSQL's clock.
CREATE OR REPLACE FUNCTION recollect_busy_until(
    p_user text, p_session text, p_holder text, p_server text, p_token text
)
RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    held_until timestamptz;
BEGIN
    IF p_holder <> p_server THEN
        SELECT a.until INTO held_until FROM recollect_alive a WHERE a.server_id = p_holder;
        IF held_until IS NOT NULL THEN
            RETURN held_until;
        END IF;
    END IF;
    SELECT a.until INTO held_until
    FROM recollect_waiters w JOIN recollect_alive a ON a.server_id = w.server_id
    LEFT JOIN recollect_waiters mine
    ON mine.user_id = w.user_id AND mine.session_id = w.session_id AND mine.token = p_token
    WHERE w.user_id = p_user AND w.session_id = p_session AND w.server_id <> p_server
    AND (mine.since IS NULL OR (w.since, w.token) < (mine.since, mine.token))
    ORDER BY w.since, w.token LIMIT 1;
    RETURN held_until;
END $$;
