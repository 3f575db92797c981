-- A user's sessions after a place in their list of which not all words are in the index yet, newest first.
-- GIVES   session_id, updated_at, how many turns it has, and its title if that is not in the index
SELECT session_id, updated_at, turns, CASE WHEN title_words IS NULL THEN title END FROM recollect_sessions
WHERE user_id = %(user)s AND (updated_at, session_id) < (%(at)s, %(session)s) AND (
    title_words IS NULL
    OR session_id IN (SELECT session_id FROM recollect_turns WHERE user_id = %(user)s AND words IS NULL)
)
ORDER BY updated_at DESC, session_id DESC LIMIT %(limit)s
