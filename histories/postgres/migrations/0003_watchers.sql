-- Who listens to a turn on another server than the one that runs it, and when a turn has begun; counters of rates.

ALTER TABLE recollect_readers ADD COLUMN heard_until timestamptz NOT NULL DEFAULT '-infinity';

-- It gives more now: functions/begin.sql makes it anew.
DROP FUNCTION IF EXISTS recollect_begin(
    text, text, text, text, text, boolean, boolean, text, text, text, text[], text, text, bigint, bigint);

-- What users have spent of what they may in some time. A crash of PostgreSQL's may empty it, and costs nothing else.
CREATE UNLOGGED TABLE recollect_counters (
    name   text COLLATE "C" PRIMARY KEY,
    value  bigint NOT NULL,
    ends   timestamptz NOT NULL
);
