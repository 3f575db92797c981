-- Puts these notes in the place of all of the user's.
INSERT INTO recollect_notes (user_id, notes) VALUES (%(user)s, %(notes)s)
ON CONFLICT (user_id) DO UPDATE SET notes = excluded.notes
