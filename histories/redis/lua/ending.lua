-- A prelude (after tree): how a turn ends. With an empty record it only runs no longer.
-- Answers whether work is left.
local function finish(number, record, tokens, at)
  local meta = redis.call('HMGET', SESSION, 'back', 'todo', 'tokens', 'shown')
  if record ~= '' and tokens ~= '' and not meta[2] then  -- with work left, it is put into the window with the rest
    redis.call('HSET', SESSION, 'e' .. number, record, 'updated', at,
      'tokens', string.format('%.0f', tonumber(meta[3] or 0) + tokens), 'shown', (meta[4] or 0) + 1)
    redis.call('ZADD', WINDOW, meta[3] or 0, member(number))
  elseif record ~= '' then
    redis.call('HSET', SESSION, 'e' .. number, record, 'updated', at)
  end
  redis.call('HDEL', SESSION, 'run', 'stop', 'doubt', 'journaled', 'back')
  redis.call('DEL', LEASE, KEYS[7])
  if meta[1] and tokens == '' then show(tonumber(meta[1])) end
  return meta[2] or (meta[1] and field('todo'))
end
