-- A prelude (after keys): the turns of a session as a tree, and the line of it that is shown.
--
-- A turn has a number, higher than that of the turn before it. Its fields in the session's hash:
--   t<n>  what it began with: turn_id, chain, time, input, each JSON on a line of its own
--   e<n>  how it ended: status, token of the attempt, details (JSON, `tokens` last), output (JSON)
--   f<n>  feedback (JSON)
--   i<turn_id>  its number
--   p<n>  the number of the turn before it (0: none), where that is not n - 1
--   c<n>  the turns that follow n directly, a line "number turn_id" each, where that is not n + 1 alone
--   x<n>  of these, the one that was shown last
-- The sorted set `path` has the numbers of the shown line, `window` those of it that a model is shown, by the tokens
-- before each. Both can be made again from the hash (see index.lua); `tree` is set when `path` has been made once.
-- What could take long is done in slices: `todo` and `sweep` say what is left, and until it is done, scripts answer
-- "work". A session that never had a version, a rewind or a deletion has none of the fields from p<n> on.
local SLICE = 250  -- some milliseconds of Redis's time

local function line_of(record, number)
  for _ = 2, number do record = string.match(record, '\n(.*)$') or '' end
  return string.match(record, '^[^\n]*')
end

local function member(number) return string.format('%012d', number) end

local function turn_id_of(number) return line_of(field('t' .. number) or '', 1) end

local function is_ready()
  local meta = redis.call('HMGET', SESSION, 'tree', 'todo', 'sweep', 'turns')
  return meta[1] and not meta[2] and not meta[3] and redis.call('ZCARD', PATH) == tonumber(meta[4])
end

local function is_on_path(number) return redis.call('ZSCORE', PATH, number) ~= false end

local function parent_of(number)
  local parent = field('p' .. number)
  return parent and tonumber(parent) or number - 1
end

-- {{number, turn_id}, ...}, oldest first.
local function children_of(number)
  local children, listed = {}, field('c' .. number)
  if listed then
    for child, turn_id in string.gmatch(listed, '(%d+) ([^\n]*)') do
      children[#children + 1] = {tonumber(child), turn_id}
    end
  elseif not field('p' .. number + 1) then
    local turn_id = turn_id_of(number + 1)
    if turn_id ~= '' then children[1] = {number + 1, turn_id} end
  end
  return children
end

local function list_children(number, children)
  table.sort(children, function(one, other) return one[1] < other[1] end)
  local lines = {}
  for place, child in ipairs(children) do lines[place] = string.format('%.0f', child[1]) .. ' ' .. child[2] end
  redis.call('HSET', SESSION, 'c' .. number, table.concat(lines, '\n'))
end

-- Lets a turn follow another one; to be called before its t<n> is written.
local function add_child(parent, number, turn_id)
  local children = children_of(parent)
  local is_plain = #children == 0 and number == parent + 1 and not field('c' .. parent)
  children[#children + 1] = {number, turn_id}
  if not is_plain then
    list_children(parent, children)
    redis.call('HSET', SESSION, 'x' .. parent, number)
  end
  if number ~= parent + 1 then redis.call('HSET', SESSION, 'p' .. number, parent) end
end

-- The child of a turn that was shown last, if there is one.
local function chosen_child(number)
  local chosen = field('x' .. number)
  if chosen then return tonumber(chosen) end
  local children = children_of(number)
  return #children == 1 and children[1][1] or nil
end

local function choose_child(parent, number)
  if field('c' .. parent) then redis.call('HSET', SESSION, 'x' .. parent, number) end
end

-- JSON: the turn_ids of all that follow this turn directly, if there are several.
local function versions_after(number)
  local listed, ids = field('c' .. number), {}
  for turn_id in string.gmatch(listed or '', '%d+ ([^\n]*)') do ids[#ids + 1] = turn_id end
  return #ids > 1 and '[' .. table.concat(ids, ',') .. ']' or '[]'
end

-- A turn as it is read: what it began with, how it ended, feedback, versions.
local function seen(number)
  local turn = redis.call('HMGET', SESSION, 't' .. number, 'e' .. number, 'f' .. number)
  return {turn[1] or '', turn[2] or '', turn[3] or '', versions_after(parent_of(number))}
end

-- The window ends with this turn at the latest.
local function cut_window(number)
  local low, high = 0, redis.call('ZCARD', WINDOW)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('ZRANGE', WINDOW, middle, middle)[1]) <= number then
      low = middle + 1
    else
      high = middle
    end
  end
  local first = redis.call('ZRANGE', WINDOW, low, low, 'WITHSCORES')
  if first[1] then
    redis.call('ZREMRANGEBYRANK', WINDOW, low, -1)
    redis.call('HSET', SESSION, 'tokens', string.format('%.0f', first[2]), 'shown', low)
  end
end

-- Puts what follows a turn on the path into the window; a slice of it, if it is much.
local function extend_window(number)
  local meta = redis.call('HMGET', SESSION, 'tokens', 'shown')
  local tokens, shown = tonumber(meta[1] or 0), tonumber(meta[2] or 0)
  local numbers = redis.call('ZRANGEBYSCORE', PATH, '(' .. number, '+inf', 'LIMIT', 0, SLICE)
  local members = {}
  for _, each in ipairs(numbers) do
    local record = field('e' .. each) or ''
    local status = line_of(record, 1)
    if status == 'complete' or (status == 'interrupted' and line_of(record, 4) ~= '[]') then
      members[#members + 1] = tokens
      members[#members + 1] = member(each)
      tokens = tokens + tonumber(string.match(line_of(record, 3), '"tokens":(%d+)}$') or 0)
      shown = shown + 1
    end
  end
  if #members > 0 then redis.call('ZADD', WINDOW, unpack(members)) end
  redis.call('HSET', SESSION, 'tokens', string.format('%.0f', tokens), 'shown', shown)
  if #numbers == SLICE then
    redis.call('HSET', SESSION, 'todo', 'window ' .. numbers[SLICE])
  else
    redis.call('HDEL', SESSION, 'todo')
  end
end

local function set_last(number)
  local chain = line_of(field('t' .. number) or '', 2)
  redis.call('HSET', SESSION, 'last', number, 'chain', chain == '' and '""' or chain)
end

-- The path and the window end with this turn, which is on the path (0: they are empty).
local function cut(number)
  redis.call('ZREMRANGEBYSCORE', PATH, '(' .. number, '+inf')
  redis.call('HSET', SESSION, 'turns', redis.call('ZCARD', PATH))
  cut_window(number)
end

-- The shown line ends with this turn.
local function show(number)
  local added, at, is_much = {}, number, field('todo')
  set_last(number)
  while at > 0 and not is_on_path(at) do
    is_much = is_much or #added == SLICE
    if is_much then break end
    added[#added + 1] = at
    at = parent_of(at)
  end
  -- To forget two sorted sets takes no time, but to take many members from them does.
  local hidden, total = redis.call('ZCOUNT', PATH, '(' .. at, '+inf'), redis.call('ZCARD', PATH)
  if hidden > 0 then redis.call('HINCRBY', SESSION, 'shape', 1) end
  if is_much or (hidden > 8 * SLICE and hidden > total / 2) then
    redis.call('HSET', SESSION, 'todo', 'path 0 ' .. number)
    redis.call('UNLINK', PATH, WINDOW)
    return
  end
  cut(at)
  local parent = at
  for place = #added, 1, -1 do
    redis.call('ZADD', PATH, added[place], added[place])
    choose_child(parent, added[place])
    parent = added[place]
  end
  redis.call('HSET', SESSION, 'turns', redis.call('ZCARD', PATH))
  extend_window(at)
end

-- Forgets a turn; what followed it follows the one before it.
local function remove(number)
  redis.call('HINCRBY', SESSION, 'shape', 1)
  local parent, chosen, siblings = parent_of(number), chosen_child(number), {}
  local was_chosen = chosen_child(parent) == number
  for _, child in ipairs(children_of(parent)) do
    if child[1] ~= number then siblings[#siblings + 1] = child end
  end
  for _, child in ipairs(children_of(number)) do
    siblings[#siblings + 1] = child
    redis.call('HSET', SESSION, 'p' .. child[1], parent)
  end
  list_children(parent, siblings)
  if was_chosen and chosen then
    redis.call('HSET', SESSION, 'x' .. parent, chosen)
  elseif was_chosen then
    redis.call('HDEL', SESSION, 'x' .. parent)
  end
  local turn_id = turn_id_of(number)
  redis.call('HDEL', SESSION, 't' .. number, 'e' .. number, 'f' .. number, 'i' .. turn_id,
    'p' .. number, 'c' .. number, 'x' .. number)
  if is_on_path(number) then
    redis.call('ZREM', PATH, number)
    redis.call('HSET', SESSION, 'turns', redis.call('ZCARD', PATH))
    if tonumber(field('last')) == number then set_last(parent) end
    cut_window(parent)
    extend_window(parent)
  end
end

-- Whether the caller saw the newest shown turn; `if_last` is the JSON of its turn_id, or empty.
local function has_moved(if_last)
  if if_last == '' then return false end
  local last = tonumber(field('last') or 0)
  while last > 0 and turn_id_of(last) == '' do last = last - 1 end
  return if_last ~= (last > 0 and turn_id_of(last) or '""')
end

local function touch(session_id, at)
  redis.call('HSET', SESSION, 'updated', at)
  redis.call('ZADD', SESSIONS, at, session_id)
end
