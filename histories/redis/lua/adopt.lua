-- USES
-- Gives an imported session its name, if that is free.
--
-- KEYS     session window sessions, new session, new window
-- ARGV     the import's token, session_id, time in microseconds
-- RETURNS  done | exists
local session, window = KEYS[1], KEYS[2]
if redis.call('EXISTS', session) == 1 then
  redis.call('UNLINK', KEYS[4], KEYS[5])
  return {redis.call('HGET', session, 'made') == ARGV[1] and 'done' or 'exists'}
end
redis.call('RENAME', KEYS[4], session)
redis.call('PERSIST', session)
redis.call('DEL', window)
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('RENAME', KEYS[5], window)
  redis.call('PERSIST', window)
end
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
return {'done'}
