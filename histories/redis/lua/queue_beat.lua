-- USES queue
-- The heartbeat of who waits.
--
-- KEYS     lease queue
-- ARGV     token, lease in ms
-- RETURNS  in how many milliseconds to try to begin; 0: now
local now, lease_ms = now_ms(), tonumber(ARGV[2])
local queue = read_queue(KEYS[2], now)
local position = position_of(ARGV[1], queue)
if not position then return 0 end
local first_ms = position > 1 and queue[1][3] - now or 0
queue[position][3] = now + lease_ms
write_queue(KEYS[2], queue, lease_ms)
return math.max(redis.call('PTTL', KEYS[1]), first_ms, 0)
