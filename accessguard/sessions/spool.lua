-- Keep one login that PostgreSQL cannot take now; all of it or nothing.
-- KEYS     stream, answers, members, versions, pending, sessions (all under one hash tag)
-- ARGV     most entries, attempt, answer kept for a retry, entry, member ("": nobody), the member's version that the
--          decision was made on, the member as it is now, then the ids of its sessions
-- Answers  {"kept", ""}; {"again", answer}: the attempt is here already; {"full", ""}; {"moved", ""}: another login of
--          the member came in between
local known = redis.call('HGET', KEYS[2], ARGV[2])
if known then return {'again', known} end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return {'full', ''} end
local member = ARGV[5]
if member ~= '' then
  if (redis.call('HGET', KEYS[4], member) or '0') ~= ARGV[6] then return {'moved', ''} end
end
redis.call('XADD', KEYS[1], '*', 'login', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
if member ~= '' then
  redis.call('HINCRBY', KEYS[4], member, 1)
  redis.call('HINCRBY', KEYS[5], member, 1)
  redis.call('HSET', KEYS[3], member, ARGV[7])
  for i = 8, #ARGV do redis.call('HSET', KEYS[6], ARGV[i], member) end
end
return {'kept', ''}
