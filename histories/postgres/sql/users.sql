-- Some of those who have a session, from one on. Not of a request: the primary key has them in this order.
SELECT DISTINCT user_id FROM recollect_sessions WHERE user_id >= %(start)s ORDER BY user_id LIMIT 500
