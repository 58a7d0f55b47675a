-- Give back, or take, the difference between the tokens estimated and the tokens used.
--
-- KEYS[1]  limit            HASH   tokens_us
-- ARGV[1]  tokens_per_min
-- ARGV[2]  difference       used less estimated, over all settled requests
-- returns  nothing
local tokens_us = tonumber(redis.call('HGET', KEYS[1], 'tokens_us'))
if tokens_us then
    redis.call('HSET', KEYS[1], 'tokens_us', string.format('%.0f', tokens_us + ARGV[2] * 60000000 / ARGV[1]))
end
