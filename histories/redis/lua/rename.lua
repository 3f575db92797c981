-- USES
-- KEYS     session sessions
-- ARGV     title (JSON), session_id, time in microseconds
-- RETURNS  done | absent
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
redis.call('HSET', KEYS[1], 'title', ARGV[1], 'updated', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return {'done'}
