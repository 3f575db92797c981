-- USES
-- A part of an imported session.
--
-- KEYS     new session, new window
-- ARGV     milliseconds to live, how many fields and values, these, then scores and members of the window
-- RETURNS  1
local fields = 2 + tonumber(ARGV[2])
for place = 3, fields, 2 do redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1]) end
for place = fields + 1, #ARGV, 2 do redis.call('ZADD', KEYS[2], ARGV[place], ARGV[place + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
