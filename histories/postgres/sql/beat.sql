-- A server lives. GIVES the attempts whose turns it is to stop.
WITH beat AS (
    INSERT INTO recollect_servers (server_id, beaten_at, lease)
    VALUES (%(server)s, clock_timestamp(), %(lease)s::interval)
    ON CONFLICT (server_id) DO UPDATE SET beaten_at = excluded.beaten_at, lease = excluded.lease
)
DELETE FROM recollect_stops WHERE server_id = %(server)s RETURNING token
