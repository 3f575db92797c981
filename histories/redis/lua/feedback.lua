-- USES
-- KEYS     session
-- ARGV     turn_id (JSON), feedback (JSON)
-- RETURNS  done | absent | missing | work
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
if redis.call('HEXISTS', KEYS[1], 'sweep') == 1 then return {'work'} end
local number = redis.call('HGET', KEYS[1], 'i' .. ARGV[1])
if not number then return {'missing'} end
redis.call('HSET', KEYS[1], 'f' .. number, ARGV[2])
return {'done'}
