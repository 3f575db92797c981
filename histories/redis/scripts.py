"""The steps of the Redis store: Lua scripts, each of them whole or not at all.

Each may be sent again when its answer was lost; the second REWIND or DELETE then finds nothing left to do, and says so.

All keys of one user carry that user's hash tag, so that one script may touch them all in a Redis Cluster, too:

    recollect:{user}:sessions           sorted set: session_id by the time of its last change, in microseconds
    recollect:{user}:session:<id>       hash: the session's entry, and its turns (below)
    recollect:{user}:window:<id>        sorted set: the turns that a model is shown, by the tokens before each of them
    recollect:{user}:lease:<id>         "token channel" of who runs a turn; expires when its holder dies
    recollect:{user}:line:<id>          JSON [[token, channel, expiry], …]: who waits, in order of arrival
    recollect:{user}:new-…:<token>      a session that is being imported; expires unless it is finished

The session's hash holds title, chain, created, updated, turns, tokens (JSON and numbers), `last` (the number of the
newest turn), `run` (the token of the turn that runs, or ran when its holder died), `stop` (the token of the turn that
is to be stopped), and for the turn of number n: `t<n>` what it began with, `e<n>` how it ended, `i<turn_id>` = n.
A `t` is four lines of JSON: turn_id, chain, time, input. An `e` is: status, token, details, output (JSON but for the
first two). No line holds a newline, so a script finds its way in them without parsing JSON that a stranger wrote.

A token is a random name of one attempt to run a turn. It is the fence: only the token in `run` ends a turn, however
late its holder wakes up; and it tells an attempt that is sent again, because its answer was lost, from a new one.

Where a script writes more than it frees, that comes first: a server without memory then refuses the whole script.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final


class Script:
    """A Lua script, and the name by which a Redis server that has seen it calls it."""

    def __init__(self, *parts: str) -> None:
        self.text = "\n".join(parts)
        self.sha = sha1(self.text.encode("ascii"), usedforsecurity=False).hexdigest()


_LINE: Final = """
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function waiting(key, now)
  local alive = {}
  for _, w in ipairs(cjson.decode(redis.call('GET', key) or '[]')) do
    if w[3] > now then alive[#alive + 1] = w end
  end
  return alive
end
local function keep(key, line, ms)
  if #line == 0 then redis.call('DEL', key)
  else redis.call('SET', key, cjson.encode(line), 'PX', ms) end
end
local function place_in(line, token)
  for place, w in ipairs(line) do if w[1] == token then return place end end
end
local function wake(line)
  if line[1] then redis.pcall('PUBLISH', line[1][2], 'go ' .. line[1][1]) end
end
"""

#: Begins a turn, or takes a place in the line. Keys: session, window, lease, line, sessions.
#: Answers: begun n messages | complete t e | running | busy | wait ms | unknown. The messages are those that a model is
#: shown, as one JSON value: a list of what came in and a list of what went out, for each turn.
BEGIN: Final = Script(
    _LINE,
    """
local function messages_of(record)
  return string.match(record or '', '^[^\\n]*\\n[^\\n]*\\n[^\\n]*\\n([^\\n]*)$') or '?'  -- no JSON: it is damaged
end
local H, W, L, Q, X = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, channel, lease, mode, grace = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local id, given, added, limit = ARGV[6], ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local begun, settled, chain, title, session, at = ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]
local meta = redis.call('HMGET', H, 'run', 'last', 'tokens')
local run, last, tokens = meta[1], tonumber(meta[2] or 0), tonumber(meta[3] or 0)

if run ~= token then
  local alive = redis.call('EXISTS', L) == 1
  local earlier = given and tonumber(redis.call('HGET', H, 'i' .. id) or nil)
  if earlier then
    local ended = redis.call('HGET', H, 'e' .. earlier)
    if not ended and alive and earlier == last then return {'running'} end
    if ended and string.sub(ended, 1, 9) == 'complete\\n' then
      return {'complete', redis.call('HGET', H, 't' .. earlier), ended}
    end
  end
  if mode == 'look' then return {'unknown'} end

  -- Whose turn it is. After a restart of the server, a holder is given the time to come back.
  local now = clock()
  local line, ms = waiting(Q, now), 0
  local place = place_in(line, token)
  if alive then
    ms = redis.call('PTTL', L)
  elseif line[1] and place ~= 1 then
    ms = line[1][3] - now
  elseif run then
    local info = redis.pcall('INFO', 'server')
    local up = type(info) == 'string' and string.match(info, 'uptime_in_seconds:(%d+)')
    ms = math.max(grace, up and lease - up * 1000 or 0)
  end
  if ms > 0 then
    if mode ~= 'wait' then return {'busy'} end
    if not place then
      line[#line + 1] = {token, channel, now + lease}
      keep(Q, line, lease)
    end
    return {'wait', ms}
  end

  local unsettled = redis.call('HEXISTS', H, 't' .. last) == 1 and redis.call('HEXISTS', H, 'e' .. last) == 0
  local number = earlier and earlier == last and last or last + 1
  local before = earlier and redis.call('ZSCORE', W, string.format('%012d', earlier))
  if before and earlier == last then tokens = tonumber(before) end
  redis.call('HSET', H, 'run', token, 'last', number, 'tokens', string.format('%.0f', tokens), 'chain', chain,
    'updated', at, 't' .. number, begun, 'i' .. id, number)
  if unsettled and number > last then redis.call('HSET', H, 'e' .. last, settled) end
  redis.call('HSETNX', H, 'title', title)
  redis.call('HSETNX', H, 'created', at)
  if earlier then
    redis.call('ZREM', W, string.format('%012d', earlier))
    redis.call('HDEL', H, 'e' .. earlier)
    if earlier < number then redis.call('HDEL', H, 't' .. earlier) end
  else
    redis.call('HINCRBY', H, 'turns', 1)
  end
  redis.call('SET', L, token .. ' ' .. channel, 'PX', lease)
  redis.call('ZADD', X, at, session)
  if place then
    table.remove(line, place)
    keep(Q, line, lease)
  end
  last = number
end

local said = {}
if limit > 0 then  -- histories.window.window_floor
  local half = math.max(1, math.floor(limit / 2))
  local floor = math.max(0, math.floor((tokens + added) / half) - 1) * half
  for _, n in ipairs(redis.call('ZRANGEBYSCORE', W, floor, '+inf')) do
    n = tonumber(n)
    local turn = redis.call('HMGET', H, 't' .. n, 'e' .. n)
    said[#said + 1] = messages_of(turn[1])
    said[#said + 1] = messages_of(turn[2])
  end
end
return {'begun', last, '[' .. table.concat(said, ',') .. ']'}
""",
)

#: Ends a turn and frees its session; with an empty record, only frees it. Keys: session, window, lease, line, sessions.
#: Answers whether the turn was still the holder's.
END: Final = Script(
    _LINE,
    """
local H, W, L, Q, X = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, number, record, tokens, session, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if redis.call('HGET', H, 'run') ~= token then
  local ended = redis.call('HGET', H, 'e' .. number)
  return ended and string.match(ended, '^[^\\n]*\\n([^\\n]*)') == token and 1 or 0
end
if record ~= '' then
  redis.call('HSET', H, 'e' .. number, record, 'updated', at)
  if tokens ~= '' then
    redis.call('ZADD', W, redis.call('HGET', H, 'tokens'), string.format('%012d', number))
    redis.call('HINCRBY', H, 'tokens', tokens)
  end
  redis.call('ZADD', X, at, session)
end
redis.call('HDEL', H, 'run', 'stop')
redis.call('DEL', L)
wake(waiting(Q, clock()))
return 1
""",
)

#: A holder's heartbeat. Keys: session, lease. Answers: -1 lost, 1 to be stopped, 0 otherwise.
RENEW: Final = Script("""
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return -1 end
if redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 0 then
  redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
end
return redis.call('HGET', KEYS[1], 'stop') == ARGV[1] and 1 or 0
""")

#: A waiter's heartbeat. Keys: lease, line. Answers in how many milliseconds to try to begin; 0 for now.
QUEUE: Final = Script(
    _LINE,
    """
local now, lease = clock(), tonumber(ARGV[2])
local line = waiting(KEYS[2], now)
local place = place_in(line, ARGV[1])
if not place then return 0 end
local ahead = place > 1 and line[1][3] - now or 0
line[place][3] = now + lease
keep(KEYS[2], line, lease)
return math.max(redis.call('PTTL', KEYS[1]), ahead, 0)
""",
)

#: Gives up waiting. Keys: lease, line.
LEAVE: Final = Script(
    _LINE,
    """
local line = waiting(KEYS[2], clock())
local place = place_in(line, ARGV[1])
if not place then return 0 end
table.remove(line, place)
keep(KEYS[2], line, ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 then wake(line) end
return 1
""",
)

#: Asks for the running turn to be stopped. Keys: session, lease. Answers: -1 no such session, 0 none runs, 1 asked.
STOP: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local holder = redis.call('GET', KEYS[2])
if not holder then return 0 end
local token, channel = string.match(holder, '^(%S+) (%S+)$')
redis.pcall('HSET', KEYS[1], 'stop', token)
redis.pcall('PUBLISH', channel, 'stop ' .. token)
return 1
""")

#: A page of turns, newest first. Keys: session, lease. Answers: number of the turn that runs (0: none), number before
#: which older ones are (0: there are none), then n t e for each.
TURNS: Final = Script("""
local limit, before = tonumber(ARGV[1]), tonumber(ARGV[2])
local meta = redis.call('HMGET', KEYS[1], 'last', 'run')
local last = tonumber(meta[1] or 0)
local answer = {meta[2] and redis.call('EXISTS', KEYS[2]) == 1 and last or 0, 0}
for n = math.min(last, before - 1), 1, -1 do
  local turn = redis.call('HMGET', KEYS[1], 't' .. n, 'e' .. n)
  if turn[1] then
    if limit == 0 then
      answer[2] = n + 1
      break
    end
    limit = limit - 1
    answer[#answer + 1] = n
    answer[#answer + 1] = turn[1]
    answer[#answer + 1] = turn[2] or ''
  end
end
return answer
""")

#: The entries of sessions. Keys: sessions of one user.
ENTRIES: Final = Script("""
local answer = {}
for place, key in ipairs(KEYS) do
  answer[place] = redis.call('HMGET', key, 'title', 'chain', 'created', 'updated', 'turns')
end
return answer
""")

#: Keys: session, sessions. Answers whether there is such a session.
RENAME: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'title', ARGV[1], 'updated', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return 1
""")

#: Keys: session, window, lease, sessions. Answers: absent | missing | busy | done.
REWIND: Final = Script("""
local H, W, L, X = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', H) == 0 then return 'absent' end
local from = tonumber(redis.call('HGET', H, 'i' .. ARGV[1]) or nil)
if not from then return 'missing' end
if redis.call('EXISTS', L) == 1 then return 'busy' end
local meta = redis.call('HMGET', H, 'last', 'tokens')
local tokens, dropped, chain = nil, 0, '""'
for n = from, tonumber(meta[1]) do
  local turn = redis.call('HGET', H, 't' .. n)
  if turn then
    tokens = tokens or redis.call('ZSCORE', W, string.format('%012d', n))
    redis.call('ZREM', W, string.format('%012d', n))
    redis.call('HDEL', H, 't' .. n, 'e' .. n, 'i' .. string.match(turn, '^[^\\n]*'))
    dropped = dropped + 1
  end
end
for n = from - 1, 1, -1 do
  local turn = redis.call('HGET', H, 't' .. n)
  if turn then
    chain = string.match(turn, '^[^\\n]*\\n([^\\n]*)')
    break
  end
end
redis.call('HSET', H, 'last', from - 1, 'tokens', tokens or meta[2], 'chain', chain, 'updated', ARGV[3])
redis.call('HINCRBY', H, 'turns', -dropped)
redis.call('HDEL', H, 'run', 'stop')
redis.call('ZADD', X, ARGV[3], ARGV[2])
return 'done'
""")

#: Keys: session, window, lease, sessions. Answers: absent | busy | done.
DELETE: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 'absent' end
if redis.call('EXISTS', KEYS[3]) == 1 then return 'busy' end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[4], ARGV[1])
return 'done'
""")

#: A part of an imported session. Keys: new session, new window. Arguments: milliseconds to live, how many fields and
#: values, these, then scores and members.
STAGE: Final = Script("""
local fields = 2 + tonumber(ARGV[2])
for i = 3, fields, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = fields + 1, #ARGV, 2 do redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
""")

#: Gives an imported session its name. Keys: session, window, sessions, new session, new window.
#: Answers whether the name was free.
ADOPT: Final = Script("""
local H, W, X = KEYS[1], KEYS[2], KEYS[3]
if redis.call('EXISTS', H) == 1 then
  redis.call('UNLINK', KEYS[4], KEYS[5])
  return redis.call('HGET', H, 'made') == ARGV[1] and 1 or 0
end
redis.call('RENAME', KEYS[4], H)
redis.call('PERSIST', H)
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('RENAME', KEYS[5], W)
  redis.call('PERSIST', W)
end
redis.call('ZADD', X, ARGV[3], ARGV[2])
return 1
""")
