-- USES keys queue holder tree
-- One turn: shown or not, or only if it is on the shown line.
--
-- KEYS     session window path lease queue sessions
-- ARGV     turn_id (JSON), 1 if it has to be shown, 1 to settle a dead holder's turn, lease and grace in ms
-- RETURNS  turn, 1 if it runs, then t<n>, e<n>, f<n>, versions | absent | missing | work | settle ...
if redis.call('EXISTS', SESSION) == 0 then return {'absent'} end
if field('sweep') then return {'work'} end
local number, last = tonumber(field('i' .. ARGV[1]) or nil), tonumber(field('last'))
if not number then return {'missing'} end
if ARGV[2] == '1' and field('tree') then
  if not is_ready() then return {'work'} end
  if not is_on_path(number) then return {'missing'} end
end
local running = 0
if number == last then
  local run, wait_ms = holder(now_ms(), tonumber(ARGV[5]), tonumber(ARGV[4]))
  if run and wait_ms == 0 and ARGV[3] == '1' then
    return {'settle', run, last, field('journaled') == run and 1 or 0, field('added') or 0}
  elseif run and wait_ms > 0 then
    running = 1
  end
end
local turn = seen(number)
return {'turn', running, turn[1], turn[2], turn[3], turn[4]}
