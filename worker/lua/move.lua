-- Change a job's state, if it is in one that allows it.
--
-- KEYS[1]  job              HASH   state, reason, ending
-- ARGV[1]  state            to move to; empty keeps it
-- ARGV[2]  reason           for people; empty removes it
-- ARGV[3]  ending           what the job shall end as; empty keeps it
-- ARGV[4…] states from which the move is allowed
-- returns  {moved, state before}
local state = redis.call('HGET', KEYS[1], 'state') or 'gone'
local is_allowed = false
if ARGV[1] == 'paused' and redis.call('HGET', KEYS[1], 'ending') then
    return {0, state} -- the user has cancelled: what a request in flight says is no news
end
for i = 4, #ARGV do
    is_allowed = is_allowed or state == ARGV[i]
end
if not is_allowed then
    return {0, state}
end
if ARGV[1] ~= '' then
    redis.call('HSET', KEYS[1], 'state', ARGV[1])
end
if ARGV[2] ~= '' then
    redis.call('HSET', KEYS[1], 'reason', ARGV[2])
else
    redis.call('HDEL', KEYS[1], 'reason')
end
if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'ending', ARGV[3])
end
return {1, state}
