-- Puts the words of some turns into the index, unless they have come there meanwhile; those of one stand in one text.
UPDATE recollect_turns t SET words = array_to_tsvector(string_to_array(found.words, ' '))
FROM unnest(%(sessions)s::text[], %(turns)s::text[], %(words)s::text[]) AS found (session_id, turn_id, words)
WHERE t.user_id = %(user)s AND t.session_id = found.session_id AND t.turn_id = found.turn_id AND t.words IS NULL
