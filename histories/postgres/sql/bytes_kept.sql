-- GIVES how many bytes the turns of a session take, or of all sessions of the user (NULL), before they are compressed.
SELECT coalesce(sum(octet_length(input) + octet_length(output) + octet_length(details)), 0)::bigint
FROM recollect_turns
WHERE user_id = %(user)s AND (%(session)s::text IS NULL OR session_id = %(session)s)
