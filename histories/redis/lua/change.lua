-- A prelude (after keys, queue, holder, tree): what every change of the tree asks first.
--
-- ARGV     turn_id (JSON), if_last (JSON, or empty), session_id, time in microseconds, lease and grace in ms, ...
-- The number of the turn; nil and an answer if the change is not to be made.
local function changed_turn(is_of_path)
  if redis.call('EXISTS', SESSION) == 0 then return nil, {'absent'} end
  if not is_ready() then return nil, {'work'} end
  local number = tonumber(field('i' .. ARGV[1]) or nil)
  if not number or (is_of_path and not is_on_path(number)) then return nil, {'missing'} end
  local run, wait_ms = holder(now_ms(), tonumber(ARGV[6]), tonumber(ARGV[5]))
  if run and wait_ms > 0 then return nil, {'busy'} end
  if run then return nil, {'settle', run, field('last'), field('journaled') == run and 1 or 0, field('added') or 0} end
  if has_moved(ARGV[2]) then return nil, {'moved'} end
  return number
end
