-- The running turn of that id is listened to on this server, for some time from now.
INSERT INTO recollect_readers (user_id, session_id, token, server_id, heard_until)
SELECT %(user)s, %(session)s, s.token, %(server)s, clock_timestamp() + %(life)s::interval
FROM recollect_sessions s
JOIN recollect_alive a ON a.server_id = s.holder
JOIN recollect_turns t ON t.user_id = %(user)s AND t.session_id = %(session)s AND t.hidden = 0 AND t.seq = s.head
WHERE s.user_id = %(user)s AND s.session_id = %(session)s AND t.turn_id = %(turn)s AND t.status = 'running'
ON CONFLICT (user_id, session_id, token, server_id) DO UPDATE SET heard_until = excluded.heard_until
RETURNING true
