-- A prelude (after tree): how a turn ends. With an empty record it only runs no longer.
local function finish(number, record, tokens)
  local meta = redis.call('HMGET', SESSION, 'back', 'todo', 'tokens')
  if record ~= '' then
    redis.call('HSET', SESSION, 'e' .. number, record)
    if tokens ~= '' and not meta[2] then  -- otherwise it is put into the window with the rest
      redis.call('ZADD', WINDOW, meta[3], member(number))
      redis.call('HINCRBY', SESSION, 'tokens', tokens)
      redis.call('HINCRBY', SESSION, 'shown', 1)
    end
  end
  redis.call('HDEL', SESSION, 'run', 'stop', 'doubt', 'journaled', 'back')
  redis.call('DEL', LEASE)
  if meta[1] and tokens == '' then show(tonumber(meta[1])) end
end
