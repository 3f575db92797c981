-- USES keys queue holder tree ending
-- Ends the turn of a dead holder, as interrupted, and frees its session.
--
-- KEYS     session window path lease queue sessions journal
-- ARGV     the holder's token, number, e<n>, tokens (empty: a model is not shown it), session_id, time in microseconds,
--          channel of the journal's readers, lease in ms, grace in ms
-- RETURNS  done | busy: it may live
local token, number, record, tokens, session_id, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local run, wait_ms = holder(now_ms(), tonumber(ARGV[9]), tonumber(ARGV[8]))
if run ~= token then return {'done'} end
if wait_ms > 0 then return {'busy'} end
if field('e' .. number) then record, tokens = '', '' end
finish(number, record, tokens, at)
touch(session_id, at)
redis.pcall('PUBLISH', ARGV[7], 'end')
wake_first(read_queue(QUEUE, now_ms()))
return {'done'}
