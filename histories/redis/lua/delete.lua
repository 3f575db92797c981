-- USES
-- KEYS     session window path lease sessions
-- ARGV     session_id
-- RETURNS  done | absent | busy
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
if redis.call('EXISTS', KEYS[4]) == 1 then return {'busy'} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[5], ARGV[1])
return {'done'}
