-- Some turns and titles of a user whose words are not in the index yet.
SELECT * FROM (
    SELECT session_id, turn_id, input, output FROM recollect_turns
    WHERE user_id = %(user)s AND words IS NULL LIMIT %(limit)s
) turns
UNION ALL
SELECT * FROM (
    SELECT session_id, NULL, title, NULL FROM recollect_sessions
    WHERE user_id = %(user)s AND title_words IS NULL LIMIT %(limit)s
) titles
