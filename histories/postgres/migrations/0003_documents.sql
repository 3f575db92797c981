-- What is kept of a session beside its turns: texts, each under its name.
ALTER TABLE recollect_sessions ADD COLUMN documents jsonb NOT NULL DEFAULT '{}';
