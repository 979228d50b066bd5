-- The heartbeat of a session whose verdict cannot change by it, atomically and without reading the others.
-- KEYS[1]  the member's live sessions: hash of session id -> last activity, in ms since the epoch
-- ARGV     session id, now (ms), last activity as the caller knows it (ms, 0: never), open sessions of the member as the
--          caller knows them
-- Answers  {1, before}  last activity moved to now
--          {0, before}  it is younger than the interval
--          {2, 0}       nothing done: others are live that the caller does not count, or their activity is not here
local held = redis.call('HGET', KEYS[1], ARGV[1])
local others = redis.call('HLEN', KEYS[1])
local known = tonumber(ARGV[4])
if held then others = others - 1 end
if others >= known or (others == 0 and known > 1 and not held) then return {2, 0} end
local last, now = tonumber(ARGV[3]), tonumber(ARGV[2])
if held and tonumber(held) > last then last = tonumber(held) end
if now - last < {interval_ms} then return {0, last} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
-- What was written in the same hour began the key's life anew, and a life is many hours.
if not held or math.floor(tonumber(held) / {renewed_ms}) ~= math.floor(now / {renewed_ms}) then
  redis.call('EXPIRE', KEYS[1], {life_s})
end
return {1, last}
