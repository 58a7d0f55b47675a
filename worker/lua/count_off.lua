-- Strike a finished batch from the ledger: once, and whoever strikes the last one finalizes. Begins with
-- tally.lua: outcomes that went into the part before a checkpoint was due are counted here, and kept nowhere.
--
-- KEYS[1]  batch            HASH   see tally.lua; deleted
-- KEYS[2]  outcomes         HASH   deleted
-- KEYS[3]  counts           HASH
-- KEYS[4]  job              HASH   state
-- KEYS[5]  queued           ZSET   batches that nobody has claimed
-- KEYS[6]  due              ZSET   claimed batches by the end of their lease
-- KEYS[7]  rows             STRING deleted
-- ARGV[1…] as tally.lua takes them; the blobs are empty
-- returns  counted, last, or lost when the lease is no longer ours
-- ZREM first, as in renew.lua
local is_struck = is_ours() and redis.call('ZREM', KEYS[6], ARGV[7]) == 1
count_requests() -- also without the lease: they were sent
if not is_struck then
    return 'lost'
end
count_rows(function(at)
    return redis.call('HEXISTS', KEYS[2], ARGV[at]) == 0
end)
redis.call('DEL', KEYS[1], KEYS[2], KEYS[7])
if redis.call('ZCARD', KEYS[5]) + redis.call('ZCARD', KEYS[6]) > 0 then
    return 'counted'
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[4], 'state', 'finalizing')
redis.call('ZADD', KEYS[5], time[1] * 1000 + math.floor(time[2] / 1000), 'final')
return 'last'
