"""The statements of the PostgreSQL store. Each is one round trip, and a transaction of its own.

A statement reads from a snapshot that is taken before it waits for any lock. What it concludes from that holds only
if the session still has the `fence` that was seen, for each change of a session's turns gives it another one. So the
statements that change turns do nothing if it has not, and are then simply tried again.

One session may have 10,000 turns where the average has five, so no plan may rest on that average: where a turn is
found by its `seq`, that comes from a scalar subquery, which leaves the planner nothing but the index.
"""

from __future__ import annotations

from typing import Final

CONFIGURE: Final = """
SELECT set_config('statement_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('timezone', 'UTC', false),
       set_config('jit', 'off', false)
"""

BEAT: Final = """
WITH beat AS (
    INSERT INTO recollect_servers (server_id, beaten_at, lease)
    VALUES (%(server)s, clock_timestamp(), %(lease)s::interval)
    ON CONFLICT (server_id) DO UPDATE SET beaten_at = excluded.beaten_at, lease = excluded.lease
)
DELETE FROM recollect_stops WHERE server_id = %(server)s RETURNING fence
"""

LEAVE_SERVERS: Final = "DELETE FROM recollect_servers WHERE server_id = %(server)s"

TIDY: Final = """
WITH gone AS (
    DELETE FROM recollect_servers WHERE beaten_at < clock_timestamp() - interval '1 minute'
), waiters AS (
    DELETE FROM recollect_waiters w WHERE w.since < clock_timestamp() - interval '1 minute'
    AND NOT EXISTS (SELECT FROM recollect_servers v WHERE v.server_id = w.server_id)
)
DELETE FROM recollect_stops p
WHERE NOT EXISTS (SELECT FROM recollect_servers v WHERE v.server_id = p.server_id)
"""

# What becomes of a turn that wants to begin: `complete` (it is on the record), `running` (it is), `wait`, or `free`.
# When `free`, and `taken` is 1, the turn has begun; the rows then have its past. When `taken` is 0: once more.
# A dead server that comes back is told to stop the turn that it lost.
BEGIN: Final = """
WITH seen AS (
    SELECT s.turns, s.tokens, s.last_seq, s.holder, s.fence, a.until
    FROM recollect_sessions s
    LEFT JOIN recollect_alive a ON a.server_id = s.holder AND s.holder <> %(server)s
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s
), earlier AS (
    SELECT t.seq, t.status, t.tokens_before
    FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.turn_id = %(turn)s
), ahead AS (
    SELECT a.until
    FROM recollect_waiters w JOIN recollect_alive a ON a.server_id = w.server_id
    LEFT JOIN recollect_waiters mine
    ON mine.user_id = w.user_id AND mine.session_id = w.session_id AND mine.fence = %(fence)s
    WHERE w.user_id = %(user)s AND w.session_id = %(session)s AND w.server_id <> %(server)s
    AND (mine.since IS NULL OR (w.since, w.fence) < (mine.since, mine.fence))
    ORDER BY w.since, w.fence LIMIT 1
), verdict AS (
    SELECT clock_timestamp() AS at, CASE
        WHEN %(given)s AND EXISTS (SELECT FROM earlier WHERE status = 'complete') THEN 'complete'
        WHEN NOT EXISTS (SELECT FROM seen WHERE until IS NOT NULL) AND NOT EXISTS (SELECT FROM ahead) THEN 'free'
        WHEN %(given)s AND EXISTS (SELECT FROM earlier WHERE status = 'running') THEN 'running'
        ELSE 'wait' END AS word
), taken AS (
    INSERT INTO recollect_sessions AS s
        (user_id, session_id, title, title_said, chain, created_at, updated_at, turns, tokens, last_seq, holder, fence)
    SELECT %(user)s, %(session)s, %(title)s, %(title_said)s, %(chain)s, verdict.at, verdict.at,
        coalesce(seen.turns, 0) + CASE WHEN earlier.seq IS NULL THEN 1 ELSE 0 END,
        CASE WHEN earlier.seq = seen.last_seq THEN earlier.tokens_before ELSE coalesce(seen.tokens, 0) END,
        coalesce(seen.last_seq, 0) + 1, %(server)s, %(fence)s
    FROM verdict LEFT JOIN seen ON true LEFT JOIN earlier ON true
    WHERE verdict.word = 'free'
    ON CONFLICT (user_id, session_id) DO UPDATE
    SET chain = excluded.chain, updated_at = excluded.updated_at, turns = excluded.turns, tokens = excluded.tokens,
        last_seq = excluded.last_seq, holder = excluded.holder, fence = excluded.fence
    WHERE s.fence = (SELECT fence FROM seen)
    RETURNING s.tokens, s.last_seq, s.updated_at AS at,
        greatest(0, (s.tokens + %(tokens)s) / nullif(%(half)s, 0) - 1) * %(half)s AS floor
), settled AS (
    UPDATE recollect_turns t SET status = 'interrupted', ended_at = (SELECT at FROM taken), fence = NULL
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.seq = (SELECT last_seq FROM seen)
    AND t.status = 'running' AND t.turn_id <> %(turn)s AND EXISTS (SELECT FROM taken)
), lost AS (
    INSERT INTO recollect_stops (server_id, fence)
    SELECT holder, fence FROM seen WHERE holder <> %(server)s AND EXISTS (SELECT FROM taken)
    ON CONFLICT (server_id, fence) DO NOTHING
), begun AS (
    INSERT INTO recollect_turns (user_id, session_id, seq, turn_id, fence, status, chain, kind, started_at, ended_at,
        input, output, usage, tokens, tokens_before, said)
    SELECT %(user)s, %(session)s, taken.last_seq, %(turn)s, %(fence)s, 'running', %(chain)s, '', taken.at, NULL,
        %(input)s, '[]', NULL, 0, taken.tokens, %(said)s
    FROM taken
    ON CONFLICT (user_id, session_id, turn_id) DO UPDATE
    SET seq = excluded.seq, fence = excluded.fence, status = excluded.status, chain = excluded.chain,
        kind = excluded.kind, started_at = excluded.started_at, ended_at = NULL, input = excluded.input,
        output = excluded.output, usage = NULL, tokens = 0, tokens_before = excluded.tokens_before,
        said = excluded.said
), queued AS (
    INSERT INTO recollect_waiters (user_id, session_id, fence, server_id, since)
    SELECT %(user)s, %(session)s, %(fence)s, %(server)s, verdict.at
    FROM verdict WHERE verdict.word = 'wait' AND %(patient)s
    ON CONFLICT (user_id, session_id, fence) DO NOTHING
), dequeued AS (
    DELETE FROM recollect_waiters w
    WHERE w.user_id = %(user)s AND w.session_id = %(session)s AND w.fence = %(fence)s AND EXISTS (SELECT FROM taken)
), past AS (
    SELECT t.seq, t.input, t.output
    FROM recollect_turns t
    WHERE %(half)s > 0 AND EXISTS (SELECT FROM taken)
    AND t.user_id = %(user)s AND t.session_id = %(session)s AND t.turn_id <> %(turn)s
    AND (t.status = 'complete' OR t.status = 'interrupted' AND t.output <> '[]')
    AND t.seq > coalesce((
        SELECT e.seq FROM recollect_turns e
        WHERE e.user_id = %(user)s AND e.session_id = %(session)s AND e.tokens_before < (SELECT floor FROM taken)
        ORDER BY e.seq DESC LIMIT 1), 0)
)
SELECT verdict.word, (SELECT count(*) FROM taken) AS taken,
    extract(epoch FROM coalesce((SELECT until FROM seen), (SELECT until FROM ahead)) - verdict.at)::float AS lease_s,
    past.input, past.output
FROM verdict LEFT JOIN past ON true
ORDER BY past.seq
"""

# True: the end is on the record, and was put there by who began the turn, now or by an attempt whose answer was lost.
END: Final = """
WITH mine AS (
    UPDATE recollect_sessions
    SET holder = NULL, fence = %(next)s, tokens = tokens + %(tokens)s, updated_at = clock_timestamp()
    WHERE user_id = %(user)s AND session_id = %(session)s AND fence = %(fence)s
    RETURNING last_seq, updated_at
), ended AS (
    UPDATE recollect_turns t
    SET status = %(status)s, ended_at = (SELECT updated_at FROM mine), output = %(output)s, usage = %(usage)s,
        kind = %(kind)s, tokens = %(tokens)s, said = t.said || %(said)s
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.seq = (SELECT last_seq FROM mine)
    RETURNING t.seq
), first AS (
    SELECT w.server_id, w.fence
    FROM mine, recollect_waiters w JOIN recollect_alive a ON a.server_id = w.server_id
    WHERE w.user_id = %(user)s AND w.session_id = %(session)s
    ORDER BY w.since, w.fence LIMIT 1
)
SELECT EXISTS (SELECT FROM ended) OR EXISTS (
        SELECT FROM recollect_turns t
        WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.turn_id = %(turn)s
        AND t.fence = %(fence)s AND t.status <> 'running'),
    (SELECT count(pg_notify('recollect_' || first.server_id, 'free:' || first.fence)) FROM first)
"""

LEAVE_LINE: Final = """
DELETE FROM recollect_waiters WHERE user_id = %(user)s AND session_id = %(session)s AND fence = %(fence)s
"""

# A turn that says it runs does not when its server is dead: it was interrupted.
_TURN: Final = """
SELECT t.seq, t.turn_id,
    CASE WHEN t.status = 'running' AND NOT EXISTS (
        SELECT FROM recollect_sessions s JOIN recollect_alive a ON a.server_id = s.holder
        WHERE s.user_id = %(user)s AND s.session_id = %(session)s) THEN 'interrupted' ELSE t.status END,
    t.chain, t.started_at, t.ended_at, t.input, t.output, t.usage, t.kind, t.tokens
FROM recollect_turns t
WHERE t.user_id = %(user)s AND t.session_id = %(session)s
"""

TURN: Final = _TURN + "AND t.turn_id = %(turn)s"

TURNS: Final = _TURN + "AND t.seq < %(before)s ORDER BY t.seq DESC LIMIT %(limit)s"

SESSION: Final = """
SELECT session_id, title, chain, created_at, updated_at, turns
FROM recollect_sessions WHERE user_id = %(user)s AND session_id = %(session)s
"""

SESSIONS: Final = """
SELECT session_id, title, chain, created_at, updated_at, turns
FROM recollect_sessions
WHERE user_id = %(user)s AND (updated_at, session_id) < (%(at)s, %(session)s)
ORDER BY updated_at DESC, session_id DESC LIMIT %(limit)s
"""

SESSIONS_THAT_SAY: Final = """
SELECT session_id, title, chain, created_at, updated_at, turns
FROM recollect_sessions
WHERE user_id = %(user)s AND (updated_at, session_id) < (%(at)s, %(session)s)
AND (title_said LIKE %(like)s OR session_id IN (
    SELECT session_id FROM recollect_turns WHERE user_id = %(user)s AND said LIKE %(like)s))
ORDER BY updated_at DESC, session_id DESC LIMIT %(limit)s
"""

RENAME: Final = """
UPDATE recollect_sessions SET title = %(title)s, title_said = %(title_said)s, updated_at = clock_timestamp()
WHERE user_id = %(user)s AND session_id = %(session)s RETURNING session_id
"""

# `seen` of what is about to change an idle session; `held`: a turn of another server runs.
REWIND: Final = """
WITH seen AS (
    SELECT s.fence, a.server_id IS NOT NULL AS held
    FROM recollect_sessions s
    LEFT JOIN recollect_alive a ON a.server_id = s.holder AND s.holder <> %(server)s
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s
), target AS (
    SELECT t.seq, t.tokens_before FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.turn_id = %(turn)s
), last AS (
    SELECT t.seq, t.chain FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.seq < (SELECT seq FROM target)
    ORDER BY t.seq DESC LIMIT 1
), cut AS (
    UPDATE recollect_sessions s
    SET holder = NULL, fence = %(next)s, tokens = target.tokens_before, updated_at = clock_timestamp(),
        last_seq = coalesce((SELECT seq FROM last), 0), chain = coalesce((SELECT chain FROM last), ''),
        turns = s.turns - (
            SELECT count(*) FROM recollect_turns t
            WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.seq >= (SELECT seq FROM target))
    FROM seen, target
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s AND s.fence = seen.fence AND NOT seen.held
    RETURNING target.seq
), dropped AS (
    DELETE FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.seq >= (SELECT seq FROM cut)
)
SELECT EXISTS (SELECT FROM seen), EXISTS (SELECT FROM target), EXISTS (SELECT FROM seen WHERE held),
    EXISTS (SELECT FROM cut)
"""

DELETE: Final = """
WITH seen AS (
    SELECT s.fence, a.server_id IS NOT NULL AS held
    FROM recollect_sessions s
    LEFT JOIN recollect_alive a ON a.server_id = s.holder AND s.holder <> %(server)s
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s
), gone AS (
    DELETE FROM recollect_sessions s USING seen
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s AND s.fence = seen.fence AND NOT seen.held
    RETURNING s.session_id
), dropped AS (
    DELETE FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND EXISTS (SELECT FROM gone)
)
SELECT EXISTS (SELECT FROM seen), true, EXISTS (SELECT FROM seen WHERE held), EXISTS (SELECT FROM gone)
"""

# Not of a request. The primary key has them in this order: a page is read, not all of the table.
USERS: Final = """
SELECT DISTINCT user_id FROM recollect_sessions WHERE user_id >= %(start)s ORDER BY user_id LIMIT 500
"""

# How many sessions were deleted, how many are held by a turn that runs, and how many there were.
FORGET: Final = """
WITH seen AS (
    SELECT s.session_id, s.fence, a.server_id IS NOT NULL AS held
    FROM recollect_sessions s LEFT JOIN recollect_alive a ON a.server_id = s.holder
    WHERE s.user_id = %(user)s
), gone AS (
    DELETE FROM recollect_sessions s USING seen
    WHERE s.user_id = %(user)s AND s.session_id = seen.session_id AND s.fence = seen.fence AND NOT seen.held
    RETURNING s.session_id
), dropped AS (
    DELETE FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = ANY (ARRAY(SELECT session_id FROM gone))
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM seen WHERE held), (SELECT count(*) FROM seen)
"""

# Whether there are: the session, the turn, an end of that turn; and whether the new session was made.
FORK: Final = """
WITH source AS (
    SELECT s.title, s.title_said, a.server_id IS NOT NULL AS held
    FROM recollect_sessions s LEFT JOIN recollect_alive a ON a.server_id = s.holder
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s
), last AS (
    SELECT t.*, NOT (t.status = 'running' AND (SELECT held FROM source)) AS over
    FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.turn_id = %(turn)s
), made AS (
    INSERT INTO recollect_sessions
        (user_id, session_id, title, title_said, chain, created_at, updated_at, turns, tokens, last_seq, holder, fence)
    SELECT %(user)s, %(new)s, source.title, source.title_said, last.chain, clock_timestamp(),
        coalesce(last.ended_at, clock_timestamp()),
        (SELECT count(*) FROM recollect_turns t
         WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.seq <= (SELECT seq FROM last)),
        last.tokens_before + last.tokens, last.seq, NULL, %(next)s
    FROM source, last WHERE last.over
    ON CONFLICT (user_id, session_id) DO NOTHING
    RETURNING last_seq
), copied AS (
    INSERT INTO recollect_turns (user_id, session_id, seq, turn_id, fence, status, chain, kind, started_at, ended_at,
        input, output, usage, tokens, tokens_before, said)
    SELECT t.user_id, %(new)s, t.seq, t.turn_id, NULL,
        CASE WHEN t.status = 'running' THEN 'interrupted' ELSE t.status END, t.chain, t.kind, t.started_at, t.ended_at,
        t.input, t.output, t.usage, t.tokens, t.tokens_before, t.said
    FROM recollect_turns t
    WHERE t.user_id = %(user)s AND t.session_id = %(session)s AND t.seq <= (SELECT last_seq FROM made)
)
SELECT EXISTS (SELECT FROM source), EXISTS (SELECT FROM last), EXISTS (SELECT FROM last WHERE over),
    EXISTS (SELECT FROM made)
"""

RESTORE_SESSION: Final = """
INSERT INTO recollect_sessions
    (user_id, session_id, title, title_said, chain, created_at, updated_at, turns, tokens, last_seq, holder, fence)
VALUES (%(user)s, %(session)s, %(title)s, %(title_said)s, %(chain)s, %(created_at)s, %(updated_at)s,
    %(turns)s, %(tokens)s, %(turns)s, NULL, %(next)s)
ON CONFLICT (user_id, session_id) DO NOTHING RETURNING session_id
"""

RESTORE_TURNS: Final = """
COPY recollect_turns (user_id, session_id, seq, turn_id, status, chain, kind, started_at, ended_at,
    input, output, usage, tokens, tokens_before, said) FROM STDIN
"""

# Whether there is the session, and whether a turn of it runs, whose server is called.
STOP: Final = """
WITH running AS (
    SELECT s.holder, s.fence
    FROM recollect_sessions s JOIN recollect_alive a ON a.server_id = s.holder
    WHERE s.user_id = %(user)s AND s.session_id = %(session)s
), asked AS (
    INSERT INTO recollect_stops (server_id, fence) SELECT holder, fence FROM running
    ON CONFLICT (server_id, fence) DO NOTHING
)
SELECT EXISTS (SELECT FROM recollect_sessions WHERE user_id = %(user)s AND session_id = %(session)s),
    (SELECT count(pg_notify('recollect_' || holder, 'stop:' || fence)) FROM running) = 1
"""
