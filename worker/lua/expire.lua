-- Take a batch from an owner whose lease has ended, so that another can claim it.
--
-- KEYS[1]  queued           ZSET   batches that nobody has claimed
-- KEYS[2]  due              ZSET   claimed batches by the end of their lease
-- KEYS[3]  batch            HASH   fence
-- KEYS[4]  pulse            HASH   see pulse.lua
-- ARGV[1]  batch
-- ARGV[2]  lease_ms
-- returns  1 when taken, 0 when the lease was renewed, may still be renewed, or the batch is done
local until_ms = redis.call('ZSCORE', KEYS[2], ARGV[1])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local pulse = redis.call('HMGET', KEYS[4], 'at_ms', 'resumed_ms')
local is_silent = now_ms - (tonumber(pulse[1]) or 0) > ARGV[2] / 2
if not until_ms or tonumber(until_ms) > now_ms or is_silent or now_ms - pulse[2] <= tonumber(ARGV[2]) then
    return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
redis.call('HINCRBY', KEYS[3], 'fence', 1) -- from here on the former owner's writes are refused
return 1
