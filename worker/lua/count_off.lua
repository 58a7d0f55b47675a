-- Strike a finished batch from the ledger: once, and whoever strikes the last one finalizes.
--
-- KEYS[1]  job              HASH   state
-- KEYS[2]  queued           ZSET   batches that nobody has claimed
-- KEYS[3]  due              ZSET   claimed batches by the end of their lease
-- KEYS[4]  batch            HASH   fence; deleted
-- KEYS[5]  rows             STRING deleted
-- KEYS[6]  outcomes         HASH   deleted
-- ARGV[1]  batch
-- ARGV[2]  fence            the one that the claim gave
-- returns  counted, last, or lost when the lease is no longer ours
if redis.call('HGET', KEYS[4], 'fence') ~= ARGV[2] or redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then
    return 'lost'
end
redis.call('DEL', KEYS[4], KEYS[5], KEYS[6])
if redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3]) > 0 then
    return 'counted'
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', 'finalizing')
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000), 'final')
return 'last'
