-- GIVES the value of a counter, and when it will begin anew (seconds); no row for one that has not begun.
SELECT value, extract(epoch FROM ends)::float8 FROM recollect_counters
WHERE name = %(name)s AND ends > clock_timestamp()
