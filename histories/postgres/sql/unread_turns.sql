-- Turns of some of a user's sessions whose words are not in the index yet.
SELECT session_id, turn_id, input, output FROM recollect_turns
WHERE user_id = %(user)s AND session_id = ANY(%(sessions)s::text[]) AND words IS NULL LIMIT %(limit)s
