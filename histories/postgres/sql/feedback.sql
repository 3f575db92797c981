-- Puts feedback on a turn. GIVES whether there is the session, and the turn.
WITH given AS (
    UPDATE recollect_turns SET feedback = %(feedback)s
    WHERE turn_id = %(turn)s AND session_id = %(session)s AND user_id = %(user)s RETURNING turn_id
)
SELECT EXISTS (SELECT FROM recollect_sessions WHERE user_id = %(user)s AND session_id = %(session)s),
    EXISTS (SELECT FROM given)
