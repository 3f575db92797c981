-- Versions of turns, what is kept beside messages, journals of running turns, notes, and search for words.
-- The functions of the database are made after each migration: see functions/.

ALTER TABLE recollect_sessions RENAME COLUMN fence TO token;    -- of the attempt whose turn runs, or ran last
ALTER TABLE recollect_sessions
    ADD COLUMN head bigint NOT NULL DEFAULT 0,      -- the last turn that is shown; last_seq is the last number given
    ADD COLUMN title_words tsvector;                -- as the words of a turn
UPDATE recollect_sessions SET head = last_seq;
ALTER TABLE recollect_sessions DROP COLUMN title_said;

ALTER TABLE recollect_turns RENAME COLUMN fence TO token;
ALTER TABLE recollect_turns
    ADD COLUMN parent bigint NOT NULL DEFAULT 0,    -- the turn before it, or 0
    ADD COLUMN hidden bigint NOT NULL DEFAULT 0,    -- 0, or the number of the change that took it out of the shown line
    ADD COLUMN details text NOT NULL DEFAULT '{}',
    ADD COLUMN feedback text,
    ADD COLUMN words tsvector;                      -- each with its user's mark before it; NULL until somebody searches
UPDATE recollect_turns t SET parent = before.parent
FROM (
    SELECT user_id, session_id, turn_id, lag(seq, 1, 0::bigint) OVER (PARTITION BY user_id, session_id ORDER BY seq)
        AS parent
    FROM recollect_turns
) before
WHERE t.user_id = before.user_id AND t.session_id = before.session_id AND t.turn_id = before.turn_id
AND before.parent > 0;
ALTER TABLE recollect_turns DROP COLUMN said;

-- What is not shown must not be in the way of who reads the shown line. The other constraint is made anew because the
-- planner takes the younger of two indexes (see 0001), and a turn is to be found by its turn_id. A partitioned table's
-- constraints have names of their own.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT conname FROM pg_constraint WHERE conrelid = 'recollect_turns'::regclass AND contype IN ('p', 'u')
    LOOP
        EXECUTE format('ALTER TABLE recollect_turns DROP CONSTRAINT %I', name);
    END LOOP;
END $$;
CREATE INDEX recollect_turns_hidden ON recollect_turns (user_id, session_id, parent) WHERE hidden <> 0;
CREATE INDEX recollect_turns_unread ON recollect_turns (user_id) WHERE words IS NULL;
CREATE INDEX recollect_turns_words ON recollect_turns USING gin (words);
ALTER TABLE recollect_turns ADD PRIMARY KEY (user_id, session_id, hidden, seq);
ALTER TABLE recollect_turns ADD UNIQUE (turn_id, session_id, user_id);

ALTER TABLE recollect_waiters RENAME COLUMN fence TO token;
ALTER TABLE recollect_stops RENAME COLUMN fence TO token;

-- What running turns say: a row for each batch of events, one a line.
CREATE TABLE recollect_events (
    user_id     text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    token       text NOT NULL,
    first       bigint NOT NULL,            -- the number of the first event of the batch
    data        bytea NOT NULL,
    PRIMARY KEY (user_id, session_id, token, first)
);

-- Servers that read along, and are to be called when there is more.
CREATE TABLE recollect_readers (
    user_id     text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    token       text NOT NULL,
    server_id   text NOT NULL,
    PRIMARY KEY (user_id, session_id, token, server_id)
);

CREATE TABLE recollect_notes (
    user_id  text COLLATE "C" PRIMARY KEY,
    notes    text NOT NULL                  -- JSON in ASCII
);
