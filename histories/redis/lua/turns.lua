-- USES keys queue holder tree
-- A page of the shown line, newest turn first.
--
-- KEYS     session window path lease queue sessions
-- ARGV     at most how many, number before which they stand, about how many bytes, 1 to settle a dead holder's turn,
--          lease and grace in ms
-- RETURNS  page, number of the turn that runs (0: none), number before which older ones stand (0: none are),
--          then number, t<n>, e<n>, f<n>, versions of each
--          | work | settle token number journaled tokens
local limit, before, size = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local meta = redis.call('HMGET', SESSION, 'last', 'tree')
local last, is_tree, running = tonumber(meta[1] or 0), meta[2], 0

local run, wait_ms = holder(now_ms(), tonumber(ARGV[6]), tonumber(ARGV[5]))
if run and wait_ms == 0 and ARGV[4] == '1' then
  return {'settle', run, last, field('journaled') == run and 1 or 0, field('added') or 0}
elseif run and wait_ms > 0 then
  running = last
end

local number = math.min(last, before - 1)
if is_tree and number < last then
  if not is_ready() then return {'work'} end
  number = tonumber(redis.call('ZREVRANGEBYSCORE', PATH, number, '-inf', 'LIMIT', 0, 1)[1] or 0)
end
local answer = {'page', running, 0}
while number > 0 do
  local turn = redis.call('HMGET', SESSION, 't' .. number, 'e' .. number, 'f' .. number, 'p' .. number)
  local parent = tonumber(turn[4] or number - 1)
  if turn[1] then
    if limit == 0 or size <= 0 then
      answer[3] = number + 1
      break
    end
    limit, size = limit - 1, size - #turn[1] - #(turn[2] or '')
    for _, part in ipairs({number, turn[1], turn[2] or '', turn[3] or '', is_tree and versions_after(parent) or '[]'}) do
      answer[#answer + 1] = part
    end
  end
  number = parent
end
return answer
