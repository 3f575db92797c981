-- Keeps a text of a session under a name; null forgets it. GIVES a row if there is the session.
UPDATE recollect_sessions
SET documents = CASE
    WHEN %(text)s::text IS NULL THEN documents - %(name)s::text
    ELSE documents || jsonb_build_object(%(name)s::text, %(text)s::text)
END
WHERE user_id = %(user)s AND session_id = %(session)s RETURNING session_id
