-- Takes away what dead servers left behind, and counters whose time is over.
WITH gone AS (
    DELETE FROM recollect_servers WHERE beaten_at < clock_timestamp() - interval '1 minute'
), waiters AS (
    DELETE FROM recollect_waiters w WHERE w.since < clock_timestamp() - interval '1 minute'
    AND NOT EXISTS (SELECT FROM recollect_servers v WHERE v.server_id = w.server_id)
), counters AS (
    DELETE FROM recollect_counters WHERE ends < clock_timestamp() - interval '1 minute'
), readers AS (
    DELETE FROM recollect_readers r
    WHERE NOT EXISTS (SELECT FROM recollect_servers v WHERE v.server_id = r.server_id)
    OR NOT EXISTS (SELECT FROM recollect_sessions s
        WHERE s.user_id = r.user_id AND s.session_id = r.session_id AND s.token = r.token AND s.holder IS NOT NULL)
)
DELETE FROM recollect_stops p
WHERE NOT EXISTS (SELECT FROM recollect_servers v WHERE v.server_id = p.server_id)
