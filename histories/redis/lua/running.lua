-- USES
-- The attempt that runs the turn of that id.
--
-- KEYS     session lease
-- ARGV     turn_id (JSON)
-- RETURNS  runs token | over
local meta = redis.call('HMGET', KEYS[1], 'run', 'last', 'i' .. ARGV[1])
if meta[1] and meta[2] == meta[3] and redis.call('EXISTS', KEYS[2]) == 1 then return {'runs', meta[1]} end
return {'over'}
