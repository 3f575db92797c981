-- USES keys queue holder tree
-- Some of the turns of a session, shown or not, oldest first.
--
-- KEYS     session window path lease queue sessions
-- ARGV     number after which they stand, at most how many numbers are looked at, 1 to settle a dead holder's turn,
--          lease and grace in ms
-- RETURNS  page, number of the turn that runs (0: none), of the last that is shown, up to which number was looked, the
--          highest number, then number, t<n>, e<n>, f<n>, versions, number of the turn before it of each
--          | absent | work | settle token number journaled tokens
if redis.call('EXISTS', SESSION) == 0 then return {'absent'} end
if field('sweep') then return {'work'} end
local after, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local last, running = tonumber(field('last') or 0), 0
local top = tonumber(field('top') or last)

local run, wait_ms = holder(now_ms(), tonumber(ARGV[5]), tonumber(ARGV[4]))
if run and wait_ms == 0 and ARGV[3] == '1' then
  return {'settle', run, last, field('journaled') == run and 1 or 0, field('added') or 0}
elseif run and wait_ms > 0 then
  running = last
end

local upto = math.min(top, after + limit)
local answer = {'page', running, last, upto, top}
for number = after + 1, upto do
  local turn = seen(number)
  if turn[1] ~= '' then
    for _, part in ipairs({number, turn[1], turn[2], turn[3], turn[4], parent_of(number)}) do
      answer[#answer + 1] = part
    end
  end
end
return answer
