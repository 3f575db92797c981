-- USES keys queue tree ending
-- Ends a turn, and frees its session; with an empty record it only frees it.
--
-- KEYS     session window path lease queue sessions journal
-- ARGV     token, number, e<n> or empty, tokens of the turn (empty: a model is not shown it), session_id,
--          time in microseconds, channel of the journal's readers
-- RETURNS  done | lost | unfinished: a slice of work is left
local token, number, record, tokens, session_id, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if field('run') ~= token then
  return {line_of(field('e' .. number) or '', 2) == token and 'done' or 'lost'}
end
local has_work = finish(number, record, tokens, at)
if record ~= '' then redis.call('ZADD', SESSIONS, at, session_id) end
redis.pcall('PUBLISH', ARGV[7], 'end')
wake_first(read_queue(QUEUE, now_ms()))
return {has_work and 'unfinished' or 'done'}
