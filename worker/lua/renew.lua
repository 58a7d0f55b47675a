-- Extend a lease, and hear what became of the job meanwhile.
--
-- KEYS[1]  job              HASH   state, ending
-- KEYS[2]  due              ZSET   claimed batches by the end of their lease
-- KEYS[3]  batch            HASH   fence
-- ARGV[1]  batch
-- ARGV[2]  fence            the one that the claim gave
-- ARGV[3]  lease_ms
-- returns  {held, state, ending}; held is 0 when the lease is lost
local state = redis.call('HGET', KEYS[1], 'state') or 'gone'
local ending = redis.call('HGET', KEYS[1], 'ending') or ''
-- ZREM first: a Redis that is full lets a script write which has made room, and this batch may make more.
if redis.call('HGET', KEYS[3], 'fence') ~= ARGV[2] or redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
    return {0, state, ending}
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now_ms + ARGV[3], ARGV[1])
return {1, state, ending}
