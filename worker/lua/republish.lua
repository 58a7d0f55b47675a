-- Name the batches whose message seems lost: queued for long, while the broker has too few messages.
--
-- KEYS[1]  queued           ZSET   batches that nobody has claimed, by the time they were published
-- KEYS[2]  job              HASH   state: a paused job's batches wait for its resume
-- ARGV[1]  older_than_ms
-- ARGV[2]  limit
-- returns  the batches, longest waiting first; their time becomes now, so that one reaper alone
--          publishes each
if redis.call('HGET', KEYS[2], 'state') == 'paused' then
    return {}
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local batches = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms - ARGV[1], 'LIMIT', 0, ARGV[2])
for _, batch in ipairs(batches) do
    redis.call('ZADD', KEYS[1], now_ms, batch)
end
return batches
