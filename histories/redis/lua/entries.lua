-- USES
-- The entries of sessions.
--
-- KEYS     session...
-- RETURNS  for each: title, chain, created, updated, turns
local answer = {}
for place, key in ipairs(KEYS) do
  answer[place] = redis.call('HMGET', key, 'title', 'chain', 'created', 'updated', 'turns')
end
return answer
