-- Puts the words of a turn into the index, unless they have come there meanwhile.
UPDATE recollect_turns SET words = array_to_tsvector(%(words)s)
WHERE user_id = %(user)s AND session_id = %(session)s AND turn_id = %(turn)s AND words IS NULL
