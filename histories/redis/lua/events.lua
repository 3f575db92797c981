-- USES
-- Some events of a turn that runs.
--
-- KEYS     session lease journal
-- ARGV     token, number after which to read, how many, about how many bytes
-- RETURNS  runs or over, then number and event of each
local runs = redis.call('HGET', KEYS[1], 'run') == ARGV[1] and redis.call('EXISTS', KEYS[2]) == 1
local answer, size = {runs and 'runs' or 'over'}, 0
local from = string.format('%.0f-0', ARGV[2] + 2)
for _, entry in ipairs(redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', ARGV[3])) do
  if size > tonumber(ARGV[4]) then break end
  answer[#answer + 1] = string.match(entry[1], '^%d+') - 1
  answer[#answer + 1] = entry[2][2]
  size = size + #entry[2][2]
end
return answer
