-- USES keys queue holder tree change
-- The shown line ends before a turn of it. What followed is swept in slices, unless it is kept.
--
-- KEYS     session window path lease queue sessions
-- ARGV     turn_id, if_last, session_id, time, lease and grace (see change.lua), 1 to keep what followed
-- RETURNS  done | absent | missing | busy | moved | work | settle ...
local number, refusal = changed_turn(true)
if refusal then return refusal end
local parent = parent_of(number)
if ARGV[7] == '0' then
  local doomed = {}
  for place, child in ipairs(children_of(parent)) do doomed[place] = string.format('%.0f', child[1]) end
  redis.call('HSET', SESSION, 'sweep', table.concat(doomed, ' '))
  list_children(parent, {})
  redis.call('HDEL', SESSION, 'x' .. parent)
end
show(parent)
touch(ARGV[3], ARGV[4])
return {'done'}
