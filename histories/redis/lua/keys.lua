-- A prelude: the keys of a session, in the order in which all scripts that change its turns are given them.
local SESSION, WINDOW, PATH, LEASE, QUEUE, SESSIONS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local function field(name) return redis.call('HGET', SESSION, name) end
