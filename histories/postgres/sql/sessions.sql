-- A user's sessions after a place in their list, newest first.
SELECT session_id, title, chain, created_at, updated_at, turns, NULL
FROM recollect_sessions
WHERE user_id = %(user)s AND (updated_at, session_id) < (%(at)s, %(session)s)
ORDER BY updated_at DESC, session_id DESC LIMIT %(limit)s
