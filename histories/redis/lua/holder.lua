-- A prelude (after keys and queue): whether the holder of a turn whose lease has run out is dead.
--
-- A lease also runs out when Redis itself stood still, or was not there. So who finds it gone first makes a note, and
-- the holder has more than a heartbeat's time from then on; a restart of Redis gives it a whole lease.
local CONFIRM_MS = 1250

-- For how long the holder must still be waited for, in milliseconds; 0: it is dead.
local function doubt_ms(run, now, grace_ms, lease_ms)
  local doubted, since = string.match(field('doubt') or '', '^(%S+) (%d+)$')
  if doubted ~= run then
    redis.pcall('HSET', SESSION, 'doubt', run .. ' ' .. string.format('%.0f', now))
    since = now
  end
  local info = redis.pcall('INFO', 'server')
  local uptime_s = type(info) == 'string' and string.match(info, 'uptime_in_seconds:(%d+)')
  return math.max(grace_ms, uptime_s and lease_ms - uptime_s * 1000 or 0, tonumber(since) + CONFIRM_MS - now, 0)
end

-- nil: nobody's turn runs. Otherwise who holds the session, and for how long it is to be waited for.
local function holder(now, grace_ms, lease_ms)
  local run = field('run')
  if not run then return nil end
  if redis.call('EXISTS', LEASE) == 1 then return run, math.max(1, redis.call('PTTL', LEASE)) end
  return run, doubt_ms(run, now, grace_ms, lease_ms)
end
