-- Let nobody start a request on this limit for some time. Turns that were given for later than now are
-- void (a new epoch says so), and both buckets are as good as used up when the pause ends: what waits
-- goes on at the limit's pace, not in one burst.
--
-- KEYS[1]  limit            HASH   pause_us, epoch, requests_us, tokens_us
-- ARGV[1]  pause_us         from now
-- ARGV[2]  burst_us         how much unused time a bucket holds
-- returns  epoch
local time = redis.call('TIME')
local until_us = time[1] * 1000000 + time[2] + ARGV[1]
if until_us <= (tonumber(redis.call('HGET', KEYS[1], 'pause_us')) or 0) then
    return tonumber(redis.call('HGET', KEYS[1], 'epoch')) or 0
end
local full_us = string.format('%.0f', until_us + ARGV[2])
redis.call('HSET', KEYS[1], 'pause_us', string.format('%.0f', until_us), 'requests_us', full_us,
    'tokens_us', full_us)
redis.call('EXPIRE', KEYS[1], math.max(3600, math.ceil(ARGV[1] / 1000000) + 60))
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
