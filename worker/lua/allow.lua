-- Let requests spend what a job's cap still allows, before they are sent.
--
-- What is spent stands in the job's counts, which its outcomes make. What a process holds comes on top:
-- its requests in flight, its answers that are not counted yet, and a spare for the next ones. A
-- process that dies gives back what it holds by expiry; but after a silence of all of them (Redis was away)
-- each has the time of a hold to call again.
--
-- KEYS[1]  job              HASH   cap_tokens, cap_pico (USD * 10^12); absent where there is no such cap
-- KEYS[2]  counts           HASH   tokens_total, cost_pico
-- KEYS[3]  held             HASH   process -> "tokens pico until_us"; called_us (by anybody, the last time),
--                                  resumed_us (end of the last silence)
-- ARGV[1]  process
-- ARGV[2]  hold_us          how long what it holds counts, unless it calls again
-- ARGV[3]  tokens           that it holds now, without its spare, which this call takes back
-- ARGV[4]  pico             likewise
-- ARGV[5]  spare_tokens     that it would like to hold beyond what it asks for
-- ARGV[6]  spare_pico
-- ARGV[7…] per request: tokens, pico
-- returns  {requests granted (the first ones), cause, spare_tokens, spare_pico}; cause of a refusal: none,
--          wait (others hold what is left, and may give it back), tokens or cost (the cap is reached)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local names, caps, spent = {'tokens', 'cost'}, redis.call('HMGET', KEYS[1], 'cap_tokens', 'cap_pico'), {}
local held = {tonumber(ARGV[3]), tonumber(ARGV[4])}
for i, count in ipairs(redis.call('HMGET', KEYS[2], 'tokens_total', 'cost_pico')) do
    caps[i] = tonumber(caps[i]) or math.huge
    spent[i] = tonumber(count) or 0
end
local calls = redis.call('HMGET', KEYS[3], 'called_us', 'resumed_us')
local resumed_us = tonumber(calls[2]) or 0
if calls[1] and now_us - calls[1] > ARGV[2] / 2 then
    resumed_us = now_us
end
local others, holders = {0, 0}, 0
local all = redis.call('HGETALL', KEYS[3])
for at = 1, #all, 2 do
    local tokens, pico, until_us = string.match(all[at + 1], '^(%d+) (%d+) (%d+)$')
    if tokens and all[at] ~= ARGV[1] then
        if tonumber(until_us) > now_us or now_us - resumed_us <= tonumber(ARGV[2]) then
            holders = holders + 1
            others[1], others[2] = others[1] + tokens, others[2] + pico
        else
            redis.call('HDEL', KEYS[3], all[at])
        end
    end
end

local granted, cause = 0, 'none'
for at = 7, #ARGV, 2 do
    for i = 1, 2 do
        local asked = tonumber(ARGV[at + i - 1])
        if spent[i] + asked > caps[i] then
            cause = names[i]
        elseif cause == 'none' and spent[i] + others[i] + held[i] + asked > caps[i] then
            cause = 'wait'
        end
    end
    if cause ~= 'none' then
        break
    end
    held[1], held[2] = held[1] + ARGV[at], held[2] + ARGV[at + 1]
    granted = granted + 1
end
-- A spare is small against what is left, so that near the cap nobody sits on what others could use.
local spare = {}
for i = 1, 2 do
    local left = (caps[i] - spent[i] - others[i] - held[i]) / 16
    spare[i] = cause == 'none' and math.max(0, math.floor(math.min(ARGV[4 + i], left))) or 0
end
if held[1] + held[2] + spare[1] + spare[2] > 0 then
    redis.call('HSET', KEYS[3], ARGV[1],
        string.format('%.0f %.0f %.0f', held[1] + spare[1], held[2] + spare[2], now_us + ARGV[2]))
    holders = holders + 1
else
    redis.call('HDEL', KEYS[3], ARGV[1])
end
if holders > 0 then
    redis.call('HSET', KEYS[3], 'called_us', string.format('%.0f', now_us),
        'resumed_us', string.format('%.0f', resumed_us))
    redis.call('EXPIRE', KEYS[3], math.ceil(ARGV[2] / 1000000) + 60)
else
    redis.call('DEL', KEYS[3])
end
return {granted, cause, spare[1], spare[2]}
