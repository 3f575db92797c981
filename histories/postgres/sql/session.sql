-- One session, and the turn_id of its turn that runs.
SELECT s.session_id, s.title, s.chain, s.created_at, s.updated_at, s.turns, (
    SELECT t.turn_id FROM recollect_turns t JOIN recollect_alive a ON a.server_id = s.holder
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.hidden = 0 AND t.seq = s.head
    AND t.status = 'running')
FROM recollect_sessions s WHERE s.user_id = %(user)s AND s.session_id = %(session)s
