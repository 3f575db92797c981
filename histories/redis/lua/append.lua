-- USES
-- Appends events to the journal of a turn that runs; those of them that it has already are not appended again.
--
-- KEYS     session journal
-- ARGV     token, number of the first event, how long the journal lasts in ms, channel of its readers, event...
-- RETURNS  done | lost
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return {'lost'} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local after = newest and tonumber(string.match(newest[1], '^%d+')) - 1 or -1
for place = 5, #ARGV do
  local number = ARGV[2] + place - 5
  if number > after then redis.call('XADD', KEYS[2], string.format('%.0f-0', number + 1), 'e', ARGV[place]) end
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if not newest then redis.call('HSET', KEYS[1], 'journaled', ARGV[1]) end
redis.pcall('PUBLISH', ARGV[4], 'more')
return {'done'}
