-- A prelude: who waits for a session, in order of arrival.
-- The key holds JSON: [[token, channel, when the waiter is taken for dead], ...].
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function read_queue(key, now)
  local alive = {}
  for _, waiter in ipairs(cjson.decode(redis.call('GET', key) or '[]')) do
    if waiter[3] > now then alive[#alive + 1] = waiter end
  end
  return alive
end

local function write_queue(key, queue, lease_ms)
  if #queue == 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, cjson.encode(queue), 'PX', lease_ms)
  end
end

local function position_of(token, queue)
  for position, waiter in ipairs(queue) do
    if waiter[1] == token then return position end
  end
end

local function wake_first(queue)
  if queue[1] then redis.pcall('PUBLISH', queue[1][2], 'go ' .. queue[1][1]) end
end
