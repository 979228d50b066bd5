-- Let go of one login that PostgreSQL has, or that it will never take.
-- KEYS     stream, answers, members, versions, pending, sessions, dead letters (all under one hash tag)
-- ARGV     the entry's id, attempt, member ("": nobody), most dead letters, the entry as a dead letter ("": it is in
--          PostgreSQL), then the ids of the member's sessions, which are forgotten with its last entry
-- Answers  1, or 0 when somebody else was first
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[2], ARGV[2])
if ARGV[5] ~= '' then
  redis.call('RPUSH', KEYS[7], ARGV[5])
  redis.call('LTRIM', KEYS[7], -tonumber(ARGV[4]), -1)
end
local member = ARGV[3]
if member ~= '' and redis.call('HINCRBY', KEYS[5], member, -1) <= 0 then
  for i = 3, 5 do redis.call('HDEL', KEYS[i], member) end
  for i = 6, #ARGV do redis.call('HDEL', KEYS[6], ARGV[i]) end
end
return 1
