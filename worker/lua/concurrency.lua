-- Share out how many requests may be in flight at once, and find out how many the endpoint bears.
--
-- A process may have as many as its quota. What one gives up is another's only when it has said so, so the
-- sum never exceeds the limit. Shares are even, up to what each has use for, and where there are fewer
-- permits than processes, they go round. A process that does not call any more is dead, and its share the
-- others'; but after a silence of all of them (Redis was away) each has the time of a share to call again.
--
-- The limit adapts by additive increase and multiplicative decrease. Signs of too many: refusals for want
-- of capacity, and a latency that grows in proportion to the number in flight: more of them bring nothing.
--
-- KEYS[1]  concurrency      HASH   limit, threshold (it doubles below, and grows by steps above), window_us
--                                  (its start), and since then answers, latency_us (sum), overloads,
--                                  is_full; hold_us (no increase before),
--                                  called_us (by anybody, the last time), resumed_us (end of the last
--                                  silence);
--                                  latency_B, at_B, seen_B (mean latency at about 2^B in flight, at how
--                                  many exactly, and when)
-- KEYS[2]  shares           HASH   process -> "in_flight demand quota until_us"
-- ARGV[1]  process
-- ARGV[2]  share_us         how long its share counts, unless it calls again
-- ARGV[3]  in_flight        of this process
-- ARGV[4]  demand           in flight and waiting
-- ARGV[5]  most             as set by the user; 0: no bound
-- ARGV[6]  is_adaptive      1 where no limit per minute paces the endpoint
-- ARGV[7]  answers          since its last call
-- ARGV[8]  latency_us       their sum
-- ARGV[9]  overloads        since its last call
-- ARGV[10] first            what to begin with
-- returns  {quota, limit}
local WINDOW_US, HOLD_US, KNOWN_US, TURN_US = 100000, 10000000, 120000000, 5000000
local CUT, CUT_SLOW, IN_PROPORTION, FEWEST, STEP, FAILING = 0.7, 0.75, 0.9, 1.4, 0.05, 0.05
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local share_us, in_flight, demand, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local calls = redis.call('HMGET', KEYS[1], 'called_us', 'resumed_us')
local resumed_us = tonumber(calls[2]) or 0
if calls[1] and now_us - calls[1] > share_us / 2 then
    resumed_us = now_us
end
redis.call('HSET', KEYS[1], 'called_us', string.format('%.0f', now_us), 'resumed_us', string.format('%.0f', resumed_us))
redis.call('EXPIRE', KEYS[1], 3600)

local shares, claimed, flying = {{name = ARGV[1], demand = demand}}, 0, in_flight
local all = redis.call('HGETALL', KEYS[2])
for at = 1, #all, 2 do
    local theirs, wanted, quota, until_us = string.match(all[at + 1], '^(%d+) (%d+) (%d+) (%d+)$')
    if all[at] ~= ARGV[1] then
        if tonumber(until_us) > now_us or now_us - resumed_us <= share_us then
            shares[#shares + 1] = {name = all[at], demand = tonumber(wanted)}
            claimed = claimed + math.max(theirs, quota)
            flying = flying + theirs
        else
            redis.call('HDEL', KEYS[2], all[at])
        end
    end
end

local limit = most > 0 and most or 1000000
if ARGV[6] == '1' then
    local names = {'limit', 'threshold', 'window_us', 'answers', 'latency_us', 'overloads', 'is_full', 'hold_us'}
    local s = {}
    for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
        s[names[i]] = tonumber(value) or 0
    end
    if s.limit == 0 then
        s.limit, s.threshold, s.window_us = tonumber(ARGV[10]), 1000000, now_us
    end
    s.answers, s.latency_us, s.overloads = s.answers + ARGV[7], s.latency_us + ARGV[8], s.overloads + ARGV[9]
    if flying >= 0.9 * math.floor(math.min(s.limit, limit)) then
        s.is_full = 1
    end
    local mean_us = s.answers > 0 and s.latency_us / s.answers or 0
    local age_us = now_us - s.window_us
    local latencies = s.limit < s.threshold and 1.2 or 2 -- until answers tell of the present limit
    local is_told = age_us >= 0 and s.answers + s.overloads >= 8
    if is_told and s.overloads > math.max(2, FAILING * s.answers) then
        -- At once, and below what is in flight: what was refused is not, and is sent again otherwise.
        s.threshold = math.max(1, s.limit * CUT)
        s.limit = math.max(1, math.min(s.limit, flying) * CUT)
        -- What is in flight still was sent under the former limit: its refusals are no news.
        s.window_us = now_us + math.max(WINDOW_US, math.min(mean_us, 5000000))
        s.answers, s.latency_us, s.overloads, s.is_full = 0, 0, 0, 0
    elseif is_told and age_us >= math.max(WINDOW_US, latencies * mean_us) or age_us > 60000000 then
        local level = math.floor(math.log(s.limit) / math.log(2) + 0.5)
        local known = redis.call('HMGET', KEYS[1], 'latency_' .. level, 'latency_' .. level - 1,
            'at_' .. level - 1, 'seen_' .. level - 1)
        if s.answers > 0 and s.is_full == 1 then
            local before = tonumber(known[1]) or mean_us
            redis.call('HSET', KEYS[1], 'latency_' .. level, string.format('%.0f', before + 0.5 * (mean_us - before)),
                'at_' .. level, string.format('%.3f', s.limit), 'seen_' .. level, string.format('%.0f', now_us))
        end
        local is_known = known[2] and now_us - known[4] < KNOWN_US and s.limit / known[3] >= FEWEST
        if s.is_full == 1 and is_known and mean_us / known[2] > IN_PROPORTION * s.limit / known[3] then
            s.limit = math.max(1, s.limit * CUT_SLOW)
            s.threshold, s.hold_us = s.limit, now_us + HOLD_US
        elseif s.is_full == 1 and now_us > s.hold_us then
            s.limit = s.limit < s.threshold and math.min(2 * s.limit, s.threshold)
                or s.limit + math.max(1, STEP * s.limit)
        end
        s.window_us = now_us
        s.answers, s.latency_us, s.overloads, s.is_full = 0, 0, 0, 0
    elseif age_us < 0 then
        s.answers, s.latency_us, s.overloads, s.is_full = 0, 0, 0, 0
    end
    local stored = {}
    for i, name in ipairs(names) do
        stored[2 * i - 1], stored[2 * i] = name, string.format(name == 'limit' and '%.3f' or '%.0f', s[name])
    end
    redis.call('HSET', KEYS[1], unpack(stored))
    limit = math.min(limit, math.floor(s.limit))
end

local turn = math.floor(now_us / TURN_US)
table.sort(shares, function(a, b) return a.name < b.name end)
for i, share in ipairs(shares) do
    share.rank = (i + turn) % #shares
end
local is_scarce = limit < #shares -- by demand, whoever has the least use for permits would never have one
table.sort(shares, function(a, b)
    if is_scarce or a.demand == b.demand then
        return a.rank < b.rank
    end
    return a.demand < b.demand
end)
local left, quota = limit, 0
for i, share in ipairs(shares) do
    local part = math.min(share.demand, math.floor(left / (#shares - i + 1)))
    left = left - part
    if share.name == ARGV[1] then
        quota = part
    end
end
quota = math.max(0, math.min(quota, limit - claimed))
if demand > 0 then
    redis.call('HSET', KEYS[2], ARGV[1],
        string.format('%.0f %.0f %.0f %.0f', in_flight, demand, quota, now_us + share_us))
    redis.call('EXPIRE', KEYS[2], math.ceil(share_us / 1000000) + 60)
else
    redis.call('HDEL', KEYS[2], ARGV[1])
end
return {quota, limit}
