-- USES keys queue holder tree change
-- Forgets one turn; what followed it follows what was before it.
--
-- KEYS     session window path lease queue sessions
-- ARGV     turn_id, if_last, session_id, time, lease and grace (see change.lua)
-- RETURNS  done | absent | missing | busy | moved | work | settle ...
local number, refusal = changed_turn(false)
if refusal then return refusal end
remove(number)
touch(ARGV[3], ARGV[4])
return {'done'}
