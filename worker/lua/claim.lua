-- Take the lease of a batch, unless somebody holds it or it is done.
--
-- A batch that still names an owner was not given back: he died, or was cut off. Any of its rows without an
-- outcome may have been sent, and be sent again now: so many more are in doubt.
--
-- KEYS[1]  job              HASH   state, started_ms, server, ending, cap_tokens, cap_pico
-- KEYS[2]  queued           ZSET   batches that nobody has claimed
-- KEYS[3]  due              ZSET   claimed batches by the end of their lease
-- KEYS[4]  batch            HASH   fence, owner, deliveries, packed (see tally.lua)
-- KEYS[5]  pulse            HASH   see pulse.lua
-- KEYS[6]  rows             STRING its bytes 8 to 11 are their number (worker.codec)
-- KEYS[7]  outcomes         HASH   see tally.lua
-- KEYS[8]  counts           HASH   rows_in_doubt
-- ARGV[1]  batch number, or "final"
-- ARGV[2]  owner            who has it, until it is given back
-- ARGV[3]  lease_ms
-- ARGV[4]  server           the run id of this Redis server
-- returns  {status, fence, deliveries, restarted, capped, ending}; status: granted, held, done, gone, or the
--          state that forbids it; restarted: 1 where the server is not the one that the job was submitted to
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
    return {'gone'}
end
if state ~= 'queued' and state ~= 'in_progress' and state ~= 'finalizing' then
    return {state}
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = redis.call('ZSCORE', KEYS[3], ARGV[1])
if until_ms then
    local pulse = redis.call('HMGET', KEYS[5], 'at_ms', 'resumed_ms')
    local is_silent = now_ms - (tonumber(pulse[1]) or 0) > ARGV[3] / 2
    if tonumber(until_ms) > now_ms or is_silent or now_ms - pulse[2] <= tonumber(ARGV[3]) then
        return {'held'}
    end
elseif not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    return {'done'}
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now_ms + ARGV[3], ARGV[1])
if redis.call('HEXISTS', KEYS[4], 'owner') == 1 then
    local a, b, c, d = string.byte(redis.call('GETRANGE', KEYS[6], 8, 11), 1, 4)
    local rows = d and a + 256 * (b + 256 * (c + 256 * d)) or 0 -- "final" has none
    local known = redis.call('HLEN', KEYS[7]) + (redis.call('HGET', KEYS[4], 'packed') or 0)
    local doubted = rows - known
    if doubted > 0 then
        redis.call('HINCRBY', KEYS[8], 'rows_in_doubt', doubted)
    end
end
redis.call('HSET', KEYS[4], 'owner', ARGV[2])
-- From the clock, not from 0: a batch that was struck off and made anew (retry) must not know its old fences.
redis.call('HSETNX', KEYS[4], 'fence', string.format('%.0f', now_ms))
if state == 'queued' then
    redis.call('HSET', KEYS[1], 'state', 'in_progress')
end
redis.call('HSETNX', KEYS[1], 'started_ms', now_ms)
redis.call('HSETNX', KEYS[1], 'server', ARGV[4])
return {
    'granted',
    redis.call('HINCRBY', KEYS[4], 'fence', 1),
    redis.call('HINCRBY', KEYS[4], 'deliveries', 1),
    redis.call('HGET', KEYS[1], 'server') ~= ARGV[4] and 1 or 0,
    redis.call('HEXISTS', KEYS[1], 'cap_tokens') + redis.call('HEXISTS', KEYS[1], 'cap_pico'),
    redis.call('HGET', KEYS[1], 'ending') or ''
}
