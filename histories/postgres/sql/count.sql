-- Adds to a counter, which begins anew when its time is over. GIVES its value, and when that will be (seconds).
INSERT INTO recollect_counters AS c (name, value, ends)
VALUES (%(name)s, %(amount)s, clock_timestamp() + %(life)s::interval)
ON CONFLICT (name) DO UPDATE SET
    value = CASE WHEN c.ends <= clock_timestamp() THEN excluded.value ELSE c.value + excluded.value END,
    ends = CASE WHEN c.ends <= clock_timestamp() THEN excluded.ends ELSE c.ends END
RETURNING value, extract(epoch FROM ends)::float8
