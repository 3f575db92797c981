-- Sessions and their turns. Every key leads with user_id, so that these tables can be partitioned or distributed by it.
-- Ids compare byte by byte (COLLATE "C"): no locale makes two of them one, and no upgrade of it spoils an index.

CREATE TABLE recollect_sessions (
    user_id     text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    title       text NOT NULL,
    title_said  text NOT NULL,              -- for search: case-folded
    chain       text NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    turns       integer NOT NULL,
    tokens      bigint NOT NULL,            -- of all turns that a model may be shown
    last_seq    bigint NOT NULL,
    holder      text,                       -- the server whose turn runs
    fence       text NOT NULL               -- another one after each change of the turns
);

-- Of two indexes that look equally good, as they do in a small table, the planner takes the younger one: hence the
-- order of what follows, here and below.
CREATE INDEX recollect_sessions_newest ON recollect_sessions (user_id, updated_at DESC, session_id DESC);
ALTER TABLE recollect_sessions ADD PRIMARY KEY (user_id, session_id);

CREATE TABLE recollect_turns (
    user_id       text COLLATE "C" NOT NULL,
    session_id    text COLLATE "C" NOT NULL,
    seq           bigint NOT NULL,
    turn_id       text COLLATE "C" NOT NULL,
    fence         text,                     -- what its owner began it with, unless somebody else ended it
    status        text NOT NULL,
    chain         text NOT NULL,
    kind          text NOT NULL,
    started_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    input         text NOT NULL,            -- JSON in ASCII: jsonb has no NUL and no lone surrogate
    output        text NOT NULL,
    usage         text,
    tokens        bigint NOT NULL,          -- what it adds to a window
    tokens_before bigint NOT NULL,          -- recollect_sessions.tokens when it began
    said          text NOT NULL             -- for search: case-folded
);

-- The second one leads with turn_id, so that it can't be taken for reading the turns of a session in their order.
ALTER TABLE recollect_turns ADD PRIMARY KEY (user_id, session_id, seq);
ALTER TABLE recollect_turns ADD UNIQUE (turn_id, session_id, user_id);

-- First in line for a session: one for each server that waits for it.
CREATE TABLE recollect_waiters (
    user_id     text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    fence       text NOT NULL,              -- what the turn is going to be begun with
    server_id   text NOT NULL,
    since       timestamptz NOT NULL,
    PRIMARY KEY (user_id, session_id, fence)
);

-- Processes of Recollect, some rows in all (on Citus: a reference table, as the next).
CREATE TABLE recollect_servers (
    server_id  text PRIMARY KEY,
    beaten_at  timestamptz NOT NULL,
    lease      interval NOT NULL
);

-- Who is to stop a turn, until its server has seen it.
CREATE TABLE recollect_stops (
    server_id  text NOT NULL,
    fence      text NOT NULL,
    PRIMARY KEY (server_id, fence)
);

-- A server lives while its heart beats. When PostgreSQL was down, no heart could: all get one more lease.
CREATE VIEW recollect_alive AS
    SELECT server_id, greatest(beaten_at, pg_postmaster_start_time()) + lease AS until
    FROM recollect_servers
    WHERE greatest(beaten_at, pg_postmaster_start_time()) + lease > clock_timestamp();
