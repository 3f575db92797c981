-- Some turns of a user whose words are not in the index yet.
SELECT session_id, turn_id, input, output FROM recollect_turns
WHERE user_id = %(user)s AND words IS NULL LIMIT %(limit)s
