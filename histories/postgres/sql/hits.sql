-- Turns of each of these sessions in which the words stand: all of them, and then any; the newest, three at most.
SELECT hit.session_id, hit.turn_id, hit.input, hit.output
FROM unnest(%(sessions)s::text[]) WITH ORDINALITY AS wanted (session_id, nth), LATERAL (
    SELECT t.session_id, t.seq, t.turn_id, t.input, t.output, t.words @@ %(all)s::tsquery AS has_all
    FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = wanted.session_id AND t.hidden = 0 AND t.words @@ %(any)s::tsquery
    ORDER BY has_all DESC, t.seq DESC LIMIT 3
) hit
ORDER BY wanted.nth, hit.has_all DESC, hit.seq DESC
