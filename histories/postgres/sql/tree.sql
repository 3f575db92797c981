-- Turns of a session after a number, shown or not, oldest first. GIVES in the last columns of each the number of the turn
-- before it, and whether it is shown.
SELECT t.seq, t.is_lost, t.turn_id, t.status, t.chain, t.started_at, t.ended_at, t.input, t.output, t.usage, t.kind,
    t.tokens, t.details, t.feedback, t.versions, place.parent, place.hidden = 0
FROM recollect_turns place
JOIN recollect_told_turns(%(user)s, %(session)s) t ON t.hidden = place.hidden AND t.seq = place.seq
WHERE place.user_id = %(user)s AND place.session_id = %(session)s AND place.seq > %(after)s
ORDER BY place.seq LIMIT %(limit)s
