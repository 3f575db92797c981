-- USES keys queue holder tree change
-- Shows the line on which a turn stands, with what followed it when it was last shown.
--
-- KEYS     session window path lease queue sessions
-- ARGV     turn_id, if_last, session_id, time, lease and grace (see change.lua), number from which to go on (0: none)
-- RETURNS  done | further number: call again from there | absent | missing | busy | moved | work | settle ...
local number, refusal = changed_turn(false)
if refusal then return refusal end
local last = tonumber(ARGV[7])
if last == 0 or turn_id_of(last) == '' then last = number end
for step = 1, SLICE + 1 do
  local child = chosen_child(last)
  if not child then break end
  if step > SLICE then return {'further', last} end
  last = child
end
show(last)
touch(ARGV[3], ARGV[4])
return {'done'}
