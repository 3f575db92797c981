-- The turn of a dead owner, or of this very server, which says that it still runs; and its journal.
SELECT s.token, t.turn_id, t.input, s.holder = %(server)s,
    ARRAY(SELECT e.data FROM recollect_events e
        WHERE e.user_id = %(user)s AND e.session_id = %(session)s AND e.token = s.token ORDER BY e.first)
FROM recollect_sessions s
JOIN recollect_turns t ON t.user_id = %(user)s AND t.session_id = %(session)s AND t.hidden = 0 AND t.seq = s.head
WHERE s.user_id = %(user)s AND s.session_id = %(session)s AND s.holder IS NOT NULL
AND (s.holder = %(server)s OR NOT EXISTS (SELECT FROM recollect_alive a WHERE a.server_id = s.holder))
