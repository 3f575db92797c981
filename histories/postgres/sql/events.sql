-- What the running turn of that id has said from an event on, some batches of it (the first may begin earlier); with
-- `register`, this server is called when there is more. GIVES the attempt in each row; no row when it does not run.
WITH running AS (
    SELECT s.token
    FROM recollect_sessions s
    JOIN recollect_alive a ON a.server_id = s.holder
    JOIN recollect_turns t ON t.user_id = %(user)s AND t.session_id = %(session)s AND t.hidden = 0 AND t.seq = s.head
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s AND t.turn_id = %(turn)s AND t.status = 'running'
), registered AS (
    INSERT INTO recollect_readers (user_id, session_id, token, server_id)
    SELECT %(user)s, %(session)s, token, %(server)s FROM running WHERE %(register)s
    ON CONFLICT DO NOTHING
)
SELECT running.token, batch.first, batch.data
FROM running LEFT JOIN LATERAL (
    SELECT e.first, e.data FROM recollect_events e
    WHERE e.user_id = %(user)s AND e.session_id = %(session)s AND e.token = running.token
    AND e.first >= coalesce((
        SELECT max(b.first) FROM recollect_events b
        WHERE b.user_id = %(user)s AND b.session_id = %(session)s AND b.token = running.token
        AND b.first <= %(position)s), 0)
    ORDER BY e.first LIMIT 64
) batch ON true
ORDER BY batch.first
