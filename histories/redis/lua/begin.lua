-- USES keys queue holder tree
-- Begins a turn, or takes a place in the queue. Sent again, because its answer was lost, it begins none a second time.
--
-- KEYS     session window path lease queue sessions
-- ARGV     token, channel of the process, lease in ms, "wait" or "now", grace in ms;
--          turn_id (JSON), 1 if the client gave it, tokens of the input, size of the window in tokens;
--          t<n>, e<n> for a turn before it that has none; chain and title (JSON), session_id, time in microseconds;
--          version_of and if_last (JSON, or empty)
-- RETURNS  begun number window floor | wait ms | complete turn | running | busy | missing | moved
--          | work | settle token number journaled tokens
-- The window is JSON, [[turn_id, input, output], ...]; turns stand before it if its floor is above 0.
local token, channel, lease_ms, mode, grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local turn_id, is_given, added, limit = ARGV[6], ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local begun, interrupted, chain, title, session_id, at = ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]
local version_of, if_last = ARGV[16], ARGV[17]

local meta = redis.call('HMGET', SESSION, 'run', 'last', 'tokens', 'tree', 'todo', 'sweep', 'shown', 'top', 'turns',
  'created')
local run, last, tokens, is_tree = meta[1], tonumber(meta[2] or 0), tonumber(meta[3] or 0), meta[4]

local function is_lost()
  local in_window = redis.call('ZCARD', WINDOW)
  if is_tree and redis.call('ZCARD', PATH) ~= tonumber(meta[9]) then return true end
  if meta[7] then return in_window ~= tonumber(meta[7]) end
  return in_window == 0 and tokens > 0  -- a session of an earlier version
end

local function earlier_turn()
  return is_given and tonumber(field('i' .. turn_id) or nil) or nil
end

-- In a session with versions each turn gets a number of its own. nil: there is work to do before.
local function number_in_tree(earlier, version)
  local before, number = version and parent_of(version) or last, tonumber(meta[8] or last) + 1
  if earlier then
    if before == earlier then before = parent_of(earlier) end
    remove(earlier)
    if field('todo') then return nil end
  end
  if version then redis.call('HSET', SESSION, 'back', field('last')) end
  add_child(before, number, turn_id)
  cut(before)
  redis.call('ZADD', PATH, number, number)
  redis.call('HSET', SESSION, 'top', number, 'turns', redis.call('ZCARD', PATH))
  return number
end

-- In one without, a retry takes the place of what it replaces, if that was the last turn.
local function number_in_line(earlier)
  local number = earlier and earlier == last and last or last + 1
  local before = earlier and redis.call('ZSCORE', WINDOW, member(earlier))
  if before then
    if earlier == last then redis.call('HSET', SESSION, 'tokens', before) end
    redis.call('ZREM', WINDOW, member(earlier))
  end
  if before or not meta[7] then redis.call('HSET', SESSION, 'shown', redis.call('ZCARD', WINDOW)) end
  if earlier then
    redis.call('HINCRBY', SESSION, 'shape', 1)
    redis.call('HDEL', SESSION, 'e' .. earlier, 'f' .. earlier)
    if earlier < number then redis.call('HDEL', SESSION, 't' .. earlier) end
  else
    redis.call('HINCRBY', SESSION, 'turns', 1)
  end
  return number
end

local function begin(earlier, version)
  -- First: a server without memory then refuses all that follows, too.
  redis.call('HSET', SESSION, 'added', added, 'updated', at)
  if last > 0 and redis.call('HEXISTS', SESSION, 'e' .. last) == 0 and redis.call('HEXISTS', SESSION, 't' .. last) == 1 then
    redis.call('HSET', SESSION, 'e' .. last, interrupted)
  end
  local number
  if is_tree then
    number = number_in_tree(earlier, version)
    if not number then return nil end
  else
    number = number_in_line(earlier)
  end
  redis.call('HSET', SESSION, 'run', token, 'last', number, 'chain', chain,
    't' .. number, begun, 'i' .. turn_id, number)
  if not meta[10] then redis.call('HSET', SESSION, 'title', title, 'created', at) end
  redis.call('SET', LEASE, token .. ' ' .. channel, 'PX', lease_ms)
  redis.call('ZADD', SESSIONS, at, session_id)
  return number
end

local function id_and_messages_of(record)
  local id, messages = string.match(record or '', '^([^\n]*)\n[^\n]*\n[^\n]*\n([^\n]*)$')
  return id or '?', messages or '?'  -- no JSON: it is damaged
end

local function window()
  local turns, floor = {}, 1
  if limit > 0 then  -- histories.window.window_floor
    local half = math.max(1, math.floor(limit / 2))
    floor = math.max(0, math.floor((tonumber(field('tokens') or 0) + added) / half) - 1) * half
    for place, each in ipairs(redis.call('ZRANGEBYSCORE', WINDOW, floor, '+inf')) do
      local number = tonumber(each)
      local turn = redis.call('HMGET', SESSION, 't' .. number, 'e' .. number)
      local id, input = id_and_messages_of(turn[1])
      local _, output = id_and_messages_of(turn[2])
      turns[place] = '[' .. id .. ',' .. input .. ',' .. output .. ']'
    end
  end
  return '[' .. table.concat(turns, ',') .. ']', floor
end

if run == token then return {'begun', last, window()} end
if meta[5] or meta[6] then return {'work'} end

local is_alive, earlier = redis.call('EXISTS', LEASE) == 1, earlier_turn()
if earlier then
  local ended = field('e' .. earlier)
  if ended and line_of(ended, 1) == 'complete' then return {'complete', seen(earlier)} end
  if not ended and is_alive and earlier == last then return {'running'} end
end

local now = now_ms()
local queue = read_queue(QUEUE, now)
local position, wait_ms, holder_token = position_of(token, queue), 0, run
if not is_alive and queue[1] and position ~= 1 then
  wait_ms = queue[1][3] - now
elseif run then
  holder_token, wait_ms = holder(now, grace_ms, lease_ms)
end
if wait_ms > 0 then
  if mode ~= 'wait' then return {'busy'} end
  if not position then
    queue[#queue + 1] = {token, channel, now + lease_ms}
    write_queue(QUEUE, queue, lease_ms)
  end
  return {'wait', wait_ms}
end
if holder_token then return {'settle', run, last, field('journaled') == run and 1 or 0, field('added') or 0} end

if has_moved(if_last) then return {'moved'} end
if is_lost() then return {'work'} end
local version = nil
if version_of ~= '' then
  version = tonumber(field('i' .. version_of) or nil)
  if not version then return {'missing'} end
  if not is_tree then return {'work'} end
  if not is_on_path(version) then return {'missing'} end
end
local number = begin(earlier, version)
if not number then return {'work'} end
if position then
  table.remove(queue, position)
  write_queue(QUEUE, queue, lease_ms)
end
return {'begun', number, window()}
