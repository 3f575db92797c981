-- A text that is kept of a session under a name. GIVES it, or null; no row if there is no such session.
SELECT documents ->> %(name)s FROM recollect_sessions WHERE user_id = %(user)s AND session_id = %(session)s
