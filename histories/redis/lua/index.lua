-- USES keys tree
-- Does a slice of the work that is left in a session: sweeps what a rewind forgot, makes the path and the window anew
-- if they have never been made, were lost (a server that evicts), or a change of the shown line was too long for them.
--
-- KEYS     session window path lease queue sessions
-- RETURNS  more | done
local function sweep(left)
  local stack, fields, removed = {}, {}, 0
  for number in string.gmatch(left, '%d+') do stack[#stack + 1] = {tonumber(number), turn_id_of(number)} end
  while #stack > 0 and removed < SLICE do
    local number, turn_id = unpack(table.remove(stack))
    for _, child in ipairs(children_of(number)) do stack[#stack + 1] = child end
    for _, kind in ipairs({'t', 'e', 'f', 'p', 'c', 'x'}) do fields[#fields + 1] = kind .. number end
    fields[#fields + 1] = 'i' .. turn_id
    removed = removed + 1
  end
  redis.call('HDEL', SESSION, unpack(fields))
  if #stack > 0 then
    for place, child in ipairs(stack) do stack[place] = string.format('%.0f', child[1]) end
    redis.call('HSET', SESSION, 'sweep', table.concat(stack, ' '))
  else
    redis.call('HDEL', SESSION, 'sweep')
  end
end

-- Sessions of earlier versions have gaps, where a retry took a turn away: then the number of the turn before is noted.
local function join(parent, child)
  if child == 0 then
    set_last(parent)
  else
    if child ~= parent + 1 and not field('p' .. child) then
      redis.call('HSET', SESSION, 'p' .. child, parent)
      list_children(parent, {{child, turn_id_of(child)}})
    end
    choose_child(parent, child)
  end
end

-- Walks down the shown line: `child` is the last turn that was put on the path, `number` may be the one before it.
local function make_path(child, number)
  local members = {}
  for _ = 1, SLICE do
    if number == 0 then
      if #members > 0 then redis.call('ZADD', PATH, unpack(members)) end
      join(0, child)
      local last = tonumber(field('last') or 0)
      redis.call('UNLINK', WINDOW)
      redis.call('HSETNX', SESSION, 'top', last)
      redis.call('HSET', SESSION, 'tree', 1, 'turns', redis.call('ZCARD', PATH), 'tokens', 0, 'shown', 0)
      return 'window 0'
    end
    if redis.call('HEXISTS', SESSION, 't' .. number) == 1 then
      members[#members + 1] = number
      members[#members + 1] = number
      join(number, child)
      child, number = number, parent_of(number)
    else
      number = number - 1
    end
  end
  if #members > 0 then redis.call('ZADD', PATH, unpack(members)) end
  return 'path ' .. child .. ' ' .. number
end

if redis.call('EXISTS', SESSION) == 0 then return {'done'} end
local meta = redis.call('HMGET', SESSION, 'sweep', 'todo', 'shown', 'last')
local todo = meta[2]
if meta[1] then
  sweep(meta[1])
  return {'more'}
end
if not todo then
  if is_ready() and tonumber(meta[3]) == redis.call('ZCARD', WINDOW) then return {'done'} end
  redis.call('UNLINK', PATH, WINDOW)
  todo = 'path 0 ' .. (meta[4] or 0)
end
local step, one, other = string.match(todo, '^(%a+) (%d+) ?(%d*)$')
if step == 'path' then
  redis.call('HSET', SESSION, 'todo', make_path(tonumber(one), tonumber(other)))
else
  extend_window(one)
end
return {'more'}
