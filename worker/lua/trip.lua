-- Open the circuit breaker of an endpoint, or keep it open for longer after a probe that failed.
--
-- KEYS[1]  breaker          HASH   failures (probes that failed, and the trip), retry_us (when the next
--                                  probe may go), probe_until_us (one is under way), reason
-- ARGV[1]  1 after a probe; 0 for whoever tripped it, which changes nothing where it is open
-- ARGV[2]  first_wait_ms    until the first probe; doubles with each failure
-- ARGV[3]  max_wait_ms
-- ARGV[4]  least_wait_ms    what the server asked for
-- ARGV[5]  reason           for people
-- returns  nothing
if ARGV[1] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then
    return
end
local time = redis.call('TIME')
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
local wait_ms = math.min(ARGV[2] * 2 ^ math.min(failures - 1, 20), ARGV[3])
wait_ms = math.max(wait_ms, tonumber(ARGV[4]))
redis.call('HSET', KEYS[1],
    'retry_us', string.format('%.0f', time[1] * 1000000 + time[2] + wait_ms * 1000),
    'probe_until_us', 0, 'reason', ARGV[5])
redis.call('EXPIRE', KEYS[1], math.ceil(wait_ms / 1000) + 3600)
