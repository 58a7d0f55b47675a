-- Say that a worker is alive and can reach Redis; to be repeated far more often than a lease lasts.
--
-- After a silence of all workers (Redis was away, or all of them were) living workers get the time of a
-- lease to renew theirs, before anybody may take an overdue batch.
--
-- KEYS[1]  pulse            HASH   at_ms (last one), resumed_ms (end of the last silence)
-- ARGV[1]  lease_ms
-- returns  nothing
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local at_ms = tonumber(redis.call('HGET', KEYS[1], 'at_ms'))
if not at_ms or now_ms - at_ms > ARGV[1] / 2 then
    redis.call('HSET', KEYS[1], 'resumed_ms', at_ms and now_ms or 0)
end
redis.call('HSET', KEYS[1], 'at_ms', now_ms)
redis.call('EXPIRE', KEYS[1], 86400)
