-- USES queue
-- Gives up waiting.
--
-- KEYS     lease queue
-- ARGV     token, lease in ms
-- RETURNS  1 if it was in the queue
local queue = read_queue(KEYS[2], now_ms())
local position = position_of(ARGV[1], queue)
if not position then return 0 end
table.remove(queue, position)
write_queue(KEYS[2], queue, ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 then wake_first(queue) end
return 1
