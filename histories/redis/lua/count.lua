-- USES
-- Adds to a counter, which begins anew when its life is over.
--
-- KEYS     counter
-- ARGV     amount, life in seconds
-- RETURNS  its value, and the time at which it ends, in seconds since the epoch
local value = redis.call('INCRBY', KEYS[1], ARGV[1])
local left_ms = redis.call('PTTL', KEYS[1])
if left_ms < 0 then
  left_ms = ARGV[2] * 1000
  redis.call('PEXPIRE', KEYS[1], left_ms)
end
local time = redis.call('TIME')
return {value, math.ceil(time[1] + left_ms / 1000)}
