-- The newest turns of the shown line before a number: at most `limit`, and of as many bytes, but for the last of them.
-- GIVES in the last column how many there are, of `limit` and one more
SELECT t.seq, t.is_lost, t.turn_id, t.status, t.chain, t.started_at, t.ended_at, t.input, t.output, t.usage, t.kind,
    t.tokens, t.details, t.feedback, t.versions, page.candidates
FROM (
    SELECT newest.seq, row_number() OVER down AS nth, count(*) OVER () AS candidates,
        sum(newest.size) OVER down - newest.size AS bytes_before
    FROM (
        SELECT n.seq, octet_length(n.input)::bigint + octet_length(n.output) AS size FROM recollect_turns n
        WHERE n.user_id = %(user)s AND n.session_id = %(session)s AND n.hidden = 0 AND n.seq < %(before)s
        ORDER BY n.seq DESC LIMIT %(limit)s + 1
    ) newest
    WINDOW down AS (ORDER BY newest.seq DESC)
) page
CROSS JOIN LATERAL (
    -- By its key, one by one, whatever is known of the table: after an import it was taken to hold one turn, and all
    -- turns were told for each of the page, which took minutes.
    SELECT * FROM recollect_told_turns(%(user)s, %(session)s) one WHERE one.hidden = 0 AND one.seq = page.seq OFFSET 0
) t
WHERE page.nth <= %(limit)s AND page.bytes_before < %(bytes)s
ORDER BY t.seq DESC
