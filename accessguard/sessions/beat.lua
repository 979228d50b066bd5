-- One heartbeat of one session, atomically.
-- KEYS[1]  the member's live sessions: hash of session id -> last activity, in ms since the epoch
-- KEYS[2]  where rules look at it: hash of session id -> kind of that activity
-- ARGV     session id, now (ms; 0: only read), last activity as the caller knows it (ms, 0: never), interval (ms),
--          life of the keys (s); with KEYS[2] the kind
-- Answers  {moved (1 or 0), last activity before (ms), cold (1 when the hash was not there), {id, ms, id, ms, ...}},
--          with KEYS[2] and {id, kind, id, kind, ...}
-- Last activity moves only when `interval` has passed since the later of the two known values, and never back.
local cold = 1 - redis.call('EXISTS', KEYS[1])
local live = redis.call('HGETALL', KEYS[1])
local kinds = KEYS[2] and redis.call('HGETALL', KEYS[2]) or {}
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local known = tonumber(ARGV[3])
if known > last then last = known end
local now = tonumber(ARGV[2])
local moved = 0
if now > 0 and now - last >= tonumber(ARGV[4]) then
  moved = 1
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  if KEYS[2] then
    -- sessions that have ended leave their kind behind
    for i = 1, #kinds, 2 do
      if redis.call('HEXISTS', KEYS[1], kinds[i]) == 0 then redis.call('HDEL', KEYS[2], kinds[i]) end
    end
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[6])
    redis.call('EXPIRE', KEYS[2], ARGV[5])
  end
end
if KEYS[2] then return {moved, last, cold, live, kinds} end
return {moved, last, cold, live}
