-- Puts the words of some turns into the index, unless they have come there meanwhile; those of one stand in one text.
-- It waits for nobody, so that it never is a part of a deadlock. GIVES a row for each turn that it did.
WITH found AS (
    SELECT * FROM unnest(%(sessions)s::text[], %(turns)s::text[], %(words)s::text[])
        AS given (session_id, turn_id, words)
), free AS (
    SELECT t.session_id, t.turn_id FROM recollect_turns t JOIN found USING (session_id, turn_id)
    WHERE t.user_id = %(user)s AND t.words IS NULL FOR UPDATE OF t SKIP LOCKED
)
UPDATE recollect_turns t SET words = array_to_tsvector(string_to_array(found.words, ' '))
FROM free JOIN found USING (session_id, turn_id)
WHERE t.user_id = %(user)s AND t.session_id = free.session_id AND t.turn_id = free.turn_id
RETURNING 1
