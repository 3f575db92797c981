-- USES
-- Asks for the attempt that runs to be stopped, and no later one.
--
-- KEYS     session lease
-- RETURNS  absent | idle | asked
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
local holder = redis.call('GET', KEYS[2])
if not holder then return {'idle'} end
local token, channel = string.match(holder, '^(%S+) (%S+)$')
redis.pcall('HSET', KEYS[1], 'stop', token)
redis.pcall('PUBLISH', channel, 'stop ' .. token)
return {'asked'}
