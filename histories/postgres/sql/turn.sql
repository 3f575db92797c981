-- One turn: with shown, only if it is on the shown line. GIVES one row, without a turn if there is none; none if there is no session.
SELECT t.seq, t.is_lost, t.turn_id, t.status, t.chain, t.started_at, t.ended_at, t.input, t.output, t.usage, t.kind,
    t.tokens, t.details, t.feedback, t.versions
FROM recollect_sessions s
LEFT JOIN recollect_told_turns(%(user)s, %(session)s) t ON t.turn_id = %(turn)s AND (t.hidden = 0 OR NOT %(shown)s)
WHERE s.user_id = %(user)s AND s.session_id = %(session)s
