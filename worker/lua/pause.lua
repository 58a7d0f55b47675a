-- Let nobody start a request on this limit for some time.
--
-- KEYS[1]  limit            HASH   pause_us
-- ARGV[1]  pause_us         from now
-- returns  nothing
local time = redis.call('TIME')
local until_us = time[1] * 1000000 + time[2] + ARGV[1]
if until_us > (tonumber(redis.call('HGET', KEYS[1], 'pause_us')) or 0) then
    redis.call('HSET', KEYS[1], 'pause_us', string.format('%.0f', until_us))
    redis.call('EXPIRE', KEYS[1], math.max(3600, math.ceil(ARGV[1] / 1000000) + 60))
end
