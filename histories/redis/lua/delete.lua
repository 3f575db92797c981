-- USES
-- KEYS     session window path lease sessions
-- ARGV     session_id, the time of its last change for it to go, or empty
-- RETURNS  done | absent | busy | moved
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
if redis.call('EXISTS', KEYS[4]) == 1 then return {'busy'} end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'updated') ~= ARGV[2] then return {'moved'} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[5], ARGV[1])
return {'done'}
