-- Give a lease back with the batch unfinished: anybody may claim it at once.
--
-- KEYS[1]  queued           ZSET   batches that nobody has claimed
-- KEYS[2]  due              ZSET   claimed batches by the end of their lease
-- KEYS[3]  batch            HASH   fence, owner, deliveries
-- ARGV[1]  batch
-- ARGV[2]  fence            the one that the claim gave
-- returns  1 when given back, 0 when the lease was no longer ours
if redis.call('HGET', KEYS[3], 'fence') ~= ARGV[2] or redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
    return 0
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
redis.call('HINCRBY', KEYS[3], 'fence', 1)
redis.call('HDEL', KEYS[3], 'owner')
redis.call('HINCRBY', KEYS[3], 'deliveries', -1) -- a worker that stops in good order is no failure of the batch
return 1
