-- Search by an index, where the server has these two extensions; without them it reads the user's own turns.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gin;
CREATE INDEX IF NOT EXISTS recollect_turns_said ON recollect_turns USING gin (user_id, said gin_trgm_ops);
