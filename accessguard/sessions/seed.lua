-- Bring the live sessions of one member up to what PostgreSQL knows; values only go forward, ended ones go.
-- KEYS[1]  the member's live sessions
-- ARGV     life of the key (s), number n of open sessions, then n pairs (session id, last activity in ms), then ended ids
local open = tonumber(ARGV[2])
for i = 0, open - 1 do
  local id, at = ARGV[3 + 2 * i], ARGV[4 + 2 * i]
  local held = tonumber(redis.call('HGET', KEYS[1], id) or '0')
  if tonumber(at) > held then redis.call('HSET', KEYS[1], id, at) end
end
for i = 3 + 2 * open, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
