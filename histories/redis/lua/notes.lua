-- USES
-- Puts notes in the place of those that were seen. What is there already is put there once.
--
-- KEYS     notes
-- ARGV     the notes that were seen, "" for none; the new ones
-- RETURNS  1, or 0 if there are others by now
local there = redis.call('GET', KEYS[1]) or ''
if there ~= ARGV[1] and there ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
