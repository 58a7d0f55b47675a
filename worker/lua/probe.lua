-- Ask whether an endpoint is up again, and for the right to try it: one request at a time, fleet-wide.
--
-- KEYS[1]  breaker          HASH   see trip.lua
-- ARGV[1]  probe_ms         how long the probe may take before another may try; 0 only asks
-- returns  {status, wait_ms, reason}; status: closed, open (ask again after wait_ms), probe (it is yours)
local breaker = redis.call('HMGET', KEYS[1], 'retry_us', 'probe_until_us', 'reason')
if not breaker[1] then
    return {'closed', 0, ''}
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local next_us = math.max(tonumber(breaker[1]), tonumber(breaker[2]))
if next_us > now_us or ARGV[1] == '0' then
    return {'open', math.max(0, math.ceil((next_us - now_us) / 1000)), breaker[3]}
end
redis.call('HSET', KEYS[1], 'probe_until_us', string.format('%.0f', now_us + ARGV[1] * 1000))
return {'probe', 0, breaker[3]}
