-- A server closes: what it held is free at once.
DELETE FROM recollect_servers WHERE server_id = %(server)s
