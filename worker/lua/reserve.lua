-- Settle what was used, hear what the server says of its limits, and reserve turns: both buckets pay
-- for a request, or neither.
--
-- The generic cell rate algorithm, for two resources at once. A bucket is one number: the time at
-- which it would be full again. A turn may lie in the future, up to horizon_us: the caller sleeps
-- until then and need not ask again. What a process reserved and never sent is given back by time
-- alone. While several ask, each gets a share of what is free before the horizon, the same for each
-- job, and within a job for each process.
--
-- The server's own count (used_us: how long until its bucket is full) stays near the burst while
-- nobody else uses the key. Where it rises, the pace falls by a share ("give"), proportional to the
-- excess and to its integral, until the two balance.
--
-- KEYS[1]  limit            HASH   requests_us, tokens_us (when each is full again), pause_us, epoch
--                                  (of pauses), heard_us, and for requests and tokens, learned from
--                                  the server: *_per_min, *_over (smoothed excess, s), *_give
-- KEYS[2]  askers           ZSET   job and process by the last time they asked, in us
-- ARGV[1]  requests_per_min as set by the user; 0: as learned
-- ARGV[2]  tokens_per_min   likewise
-- ARGV[3]  burst_us         how much unused time a bucket holds
-- ARGV[4]  horizon_us       how far ahead a turn may be given
-- ARGV[5]  process
-- ARGV[6]  difference       tokens used less reserved, over all settled requests
-- ARGV[7]  requests_heard   the server's limit per minute; 0: it has none; empty: nothing heard
-- ARGV[8]  requests_used_us the server's count; empty: nothing heard
-- ARGV[9]  tokens_heard     likewise
-- ARGV[10] tokens_used_us
-- ARGV[11] spare            requests to reserve beforehand, while no limit binds, once all rows have
--                           their turns; negative: so many were never used
-- ARGV[12] spare_tokens     of each
-- ARGV[13] unused           tokens of such requests that were never used
-- ARGV[14] epoch            as the process knows it: what it held before a later pause is void, and
--                           does not come back
-- ARGV[15…] per job: its id, n, then n estimates of tokens, at most tokens_per_min each; 0 rows where
--                           all its rows have gone with spare turns
-- returns  {ask_again_us, cause, requests_per_min, tokens_per_min, is_heard, epoch, pause_us (left),
--          processes, spare requests, then per granted request: number of its job in ARGV from 1,
--          turn_us from now};
--          cause of the wait: requests, tokens, pause, share, or none
local TARGET_US, GAIN, GAIN_I, MOST = 200000, 0.8, 0.15, 0.9
local FORGET_US, LARGE_US = 2500000, 800000
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local fields = {'requests_us', 'tokens_us', 'pause_us', 'epoch', 'heard_us', 'requests_per_min',
    'requests_over', 'requests_give', 'tokens_per_min', 'tokens_over', 'tokens_give'}
local s = {}
for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do
    s[fields[i]] = tonumber(value) or 0
end
local burst_us, horizon_us = tonumber(ARGV[3]), tonumber(ARGV[4])

local function hear(name, per_min, used_us, dt_s)
    if per_min ~= '' then
        s[name .. '_per_min'] = tonumber(per_min)
    end
    if used_us ~= '' then
        local over = (tonumber(used_us) - burst_us - TARGET_US) / 1000000
        local before = s[name .. '_over']
        s[name .. '_over'] = before + (over - before) * math.min(1, dt_s / 0.3)
        s[name .. '_give'] = math.max(0, math.min(MOST, s[name .. '_give'] + GAIN_I * over * dt_s))
    end
end
if ARGV[7] .. ARGV[8] .. ARGV[9] .. ARGV[10] ~= '' then
    local dt_s = math.min(now_us - s.heard_us, 1000000) / 1000000
    hear('requests', ARGV[7], ARGV[8], dt_s)
    hear('tokens', ARGV[9], ARGV[10], dt_s)
    s.heard_us = now_us
end

local function pace_us(name, given)
    local per_min = tonumber(given)
    if per_min == 0 then
        per_min = s[name .. '_per_min']
    end
    if per_min == 0 then
        return 0, 0
    end
    local give = math.max(0, math.min(MOST, GAIN * s[name .. '_over'] + s[name .. '_give']))
    return 60000000 / per_min / (1 - give), per_min
end
local request_us, requests_per_min = pace_us('requests', ARGV[1])
local token_us, tokens_per_min = pace_us('tokens', ARGV[2])
s.tokens_us = s.tokens_us + ARGV[6] * token_us
if tonumber(ARGV[14]) == s.epoch then
    s.tokens_us = s.tokens_us - ARGV[13] * token_us
    s.requests_us = s.requests_us + math.min(0, ARGV[11]) * request_us
end

local jobs, at = {}, 15
while at <= #ARGV do
    local count = tonumber(ARGV[at + 1])
    jobs[#jobs + 1] = {id = ARGV[at], next = at + 2, last = at + 1 + count, taken = 0, share = 1}
    redis.call('ZADD', KEYS[2], string.format('%.0f', now_us), ARGV[at] .. '|' .. ARGV[5])
    at = at + 2 + count
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now_us - FORGET_US))
local asking, job_count, processes, process_count = {}, 0, {}, 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local job, process = string.match(member, '^(.*)|(.*)$')
    job_count = job_count + (asking[job] and 0 or 1)
    asking[job] = (asking[job] or 0) + 1
    process_count = process_count + (processes[process] and 0 or 1)
    processes[process] = true
end
local share = 0
for _, job in ipairs(jobs) do
    job.share = 1 / job_count / asking[job.id]
    share = share + job.share
end

-- A request that needs most of a second's allowance finds the server's bucket full, or is refused.
local function free_us(full_us, cost_us)
    return full_us - math.min(burst_us, math.max(LARGE_US - cost_us, -50000))
end
local start_us = math.max(now_us, s.pause_us, s.requests_us - burst_us, s.tokens_us - burst_us)
local window_us = share > 0.999 and math.huge or (now_us + horizon_us - start_us) * share
local reply = {0, 'none', requests_per_min, tokens_per_min, s.heard_us > 0 and 1 or 0, s.epoch,
    math.ceil(math.max(0, s.pause_us - now_us)), process_count, 0}
local taken_us = 0

local function turn(tokens_cost_us)
    local turn_us = math.max(now_us, s.pause_us)
    local cause = turn_us > now_us and 'pause' or 'none'
    if request_us > 0 and free_us(s.requests_us, request_us) > turn_us then
        turn_us, cause = free_us(s.requests_us, request_us), 'requests'
    end
    if token_us > 0 and free_us(s.tokens_us, tokens_cost_us) > turn_us then
        turn_us, cause = free_us(s.tokens_us, tokens_cost_us), 'tokens'
    end
    return turn_us, cause
end
local function debit(turn_us, tokens_cost_us)
    if request_us > 0 then
        s.requests_us = math.max(s.requests_us, turn_us) + request_us
    end
    if token_us > 0 then
        s.tokens_us = math.max(s.tokens_us, turn_us) + tokens_cost_us
    end
    local cost_us = math.max(request_us, tokens_cost_us)
    taken_us = taken_us + cost_us
    return cost_us
end

local is_bound = false
while true do
    local first
    for i, job in ipairs(jobs) do
        if job.next <= job.last and (not first or job.taken / job.share < jobs[first].taken / jobs[first].share) then
            first = i
        end
    end
    if not first then
        break
    end
    local job = jobs[first]
    local tokens_cost_us = token_us * ARGV[job.next]
    local turn_us, cause = turn(tokens_cost_us)
    reply[2] = cause
    is_bound = turn_us > now_us + horizon_us or taken_us > 0 and taken_us >= window_us
    if is_bound then
        reply[1] = math.ceil(math.max(0, turn_us - now_us - horizon_us))
        break
    end
    job.taken = job.taken + math.max(debit(turn_us, tokens_cost_us), 1)
    job.next = job.next + 1
    reply[#reply + 1] = first
    reply[#reply + 1] = math.ceil(turn_us - now_us)
end
local spare_cost_us = token_us * ARGV[12]
while not is_bound and reply[9] < tonumber(ARGV[11]) and taken_us < window_us and turn(spare_cost_us) <= now_us do
    debit(now_us, spare_cost_us)
    reply[9] = reply[9] + 1
end
local stored = {}
for i, name in ipairs(fields) do
    stored[2 * i - 1], stored[2 * i] = name, string.format(i <= 5 and '%.0f' or '%.6f', s[name])
end
redis.call('HSET', KEYS[1], unpack(stored))
redis.call('EXPIRE', KEYS[1], math.max(3600, math.ceil((s.pause_us - now_us) / 1000000) + 60))
redis.call('EXPIRE', KEYS[2], 60)
return reply
