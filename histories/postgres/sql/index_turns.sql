-- Puts the words of some turns into the index, unless they have come there meanwhile; those of one stand in one text.
-- It waits for nobody, so that it never is a part of a deadlock. GIVES a row for each turn that it did.
WITH found AS (
    SELECT * FROM unnest(%(sessions)s::text[], %(turns)s::text[], %(words)s::text[])
        AS given (session_id, turn_id, words)
), free AS (
    -- Each by its key: who has just imported thousands has as many without words, which statistics know nothing of.
    SELECT t.session_id, t.turn_id FROM found, LATERAL (
        SELECT t.session_id, t.turn_id FROM recollect_turns t
        WHERE t.user_id = %(user)s AND t.session_id = found.session_id AND t.turn_id = found.turn_id
        AND (t.words IS NULL) IS TRUE FOR UPDATE SKIP LOCKED
    ) t
)
UPDATE recollect_turns t SET words = array_to_tsvector(string_to_array(found.words, ' '))
FROM free JOIN found USING (session_id, turn_id)
WHERE t.user_id = %(user)s AND t.session_id = free.session_id AND t.turn_id = free.turn_id
RETURNING 1
