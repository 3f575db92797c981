-- USES
-- KEYS     session
-- ARGV     field, text (empty: the field goes)
-- RETURNS  done | absent
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return {'done'}
