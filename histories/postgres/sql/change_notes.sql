-- Puts notes in the place of those that were seen (NULL: none were there). GIVES a row, or none if there are others.
INSERT INTO recollect_notes (user_id, notes) VALUES (%(user)s, %(notes)s)
ON CONFLICT (user_id) DO UPDATE SET notes = excluded.notes
WHERE recollect_notes.notes IN (%(seen)s, excluded.notes)
RETURNING 1
