-- What is kept of a session beside its turns, each under a name: JSON, an object of texts.
ALTER TABLE recollect_sessions ADD COLUMN documents text NOT NULL DEFAULT '{}';
