-- Reserve a turn for each of several requests, in order: both buckets pay, or neither.
--
-- The generic cell rate algorithm, for two resources at once. A bucket is one number: the time at
-- which it would be full again. A turn may lie in the future, up to horizon_us: the caller sleeps
-- until then and need not ask again.
--
-- KEYS[1]  limit            HASH   requests_us, tokens_us (when each is full again), pause_us
-- ARGV[1]  requests_per_min 0 is no limit
-- ARGV[2]  tokens_per_min   0 is no limit
-- ARGV[3]  burst_us         how much unused time a bucket holds
-- ARGV[4]  horizon_us       how far ahead a turn may be given
-- ARGV[5…] tokens           one estimate per request, at most tokens_per_min
-- returns  {ask_again_us, cause, turn_us…}  turns relative to now, one per granted request;
--          cause of the wait: requests, tokens, pause, or none
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local stored = redis.call('HMGET', KEYS[1], 'requests_us', 'tokens_us', 'pause_us')
local requests_us = tonumber(stored[1]) or 0
local tokens_us = tonumber(stored[2]) or 0
local pause_us = tonumber(stored[3]) or 0
local burst_us, horizon_us = tonumber(ARGV[3]), tonumber(ARGV[4])
local request_us = ARGV[1] ~= '0' and 60000000 / ARGV[1] or 0
local token_us = ARGV[2] ~= '0' and 60000000 / ARGV[2] or 0
local reply = {0, 'none'}
for i = 5, #ARGV do
    local turn_us = math.max(now_us, pause_us)
    local cause = turn_us > now_us and 'pause' or 'none'
    if request_us > 0 and requests_us - burst_us > turn_us then
        turn_us, cause = requests_us - burst_us, 'requests'
    end
    if token_us > 0 and tokens_us - burst_us > turn_us then
        turn_us, cause = tokens_us - burst_us, 'tokens'
    end
    reply[2] = cause
    if turn_us > now_us + horizon_us then
        reply[1] = math.ceil(turn_us - now_us - horizon_us)
        break
    end
    requests_us = math.max(requests_us, turn_us) + request_us
    tokens_us = math.max(tokens_us, turn_us) + token_us * ARGV[i]
    reply[#reply + 1] = math.ceil(turn_us - now_us)
end
redis.call('HSET', KEYS[1], 'requests_us', string.format('%.0f', requests_us),
    'tokens_us', string.format('%.0f', tokens_us))
redis.call('EXPIRE', KEYS[1], 3600)
return reply
