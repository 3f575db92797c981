-- USES
-- The entry of one session, and which turn of it runs.
--
-- KEYS     session lease
-- RETURNS  t<n> of the turn that runs, or empty; then title, chain, created, updated, turns
local answer = redis.call('HMGET', KEYS[1], 'title', 'chain', 'created', 'updated', 'turns', 'run', 'last')
local running = ''
if answer[6] and redis.call('EXISTS', KEYS[2]) == 1 then
  running = redis.call('HGET', KEYS[1], 't' .. answer[7]) or ''
end
return {string.match(running, '^[^\n]*'), answer[1], answer[2], answer[3], answer[4], answer[5]}
