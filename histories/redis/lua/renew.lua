-- USES
-- The heartbeat of a turn's holder.
--
-- KEYS     session lease
-- ARGV     token, channel of the process, lease in ms
-- RETURNS  -1 it holds the session no longer | 1 it is to be stopped | 0
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return -1 end
if redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 0 then
  redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
  redis.call('HDEL', KEYS[1], 'doubt')
end
return redis.call('HGET', KEYS[1], 'stop') == ARGV[1] and 1 or 0
