-- The newest turns of each of these sessions in which any of the words stands, three of each at most.
SELECT hit.session_id, hit.turn_id, hit.input, hit.output
FROM unnest(%(sessions)s::text[]) WITH ORDINALITY AS wanted (session_id, nth), LATERAL (
    SELECT t.session_id, t.seq, t.turn_id, t.input, t.output FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = wanted.session_id AND t.hidden = 0 AND t.words @@ %(any)s::tsquery
    ORDER BY t.seq DESC LIMIT 3
) hit
ORDER BY wanted.nth, hit.seq DESC
