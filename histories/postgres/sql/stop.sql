-- Calls the server whose turn runs in a session. GIVES whether there is the session, and whether a turn runs.
WITH running AS (
    SELECT s.holder, s.token
    FROM recollect_sessions s JOIN recollect_alive a ON a.server_id = s.holder
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s
), asked AS (
    INSERT INTO recollect_stops (server_id, token) SELECT holder, token FROM running
    ON CONFLICT (server_id, token) DO NOTHING
)
SELECT EXISTS (SELECT FROM recollect_sessions WHERE user_id = %(user)s AND session_id = %(session)s),
    (SELECT count(pg_notify('recollect_' || holder, 'stop:' || token)) FROM running) = 1
