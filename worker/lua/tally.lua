-- What checkpoint.lua and count_off.lua begin with: they count the same things, each row once.
--
-- KEYS[1]  batch            HASH   fence, deliveries, packed (rows in outcomes beyond one a value)
-- KEYS[2]  outcomes         HASH   first row's index -> outcomes that are written together
-- KEYS[3]  counts           HASH   progress of the job
-- ARGV[1]  fence            the one that the claim gave
-- ARGV[2]  requests_sent    since the last checkpoint
-- ARGV[3]  requests_answered
-- ARGV[4]  requests_retried
-- ARGV[5]  requests_throttled
-- ARGV[6]  rows_in_doubt
-- ARGV[7]  batch            its number
-- ARGV[8…] per value: index, blob, rows, their verdict, prompt, completion, total, cached, reasoning, cost_pico
-- returns  nothing: what follows calls these functions
local function is_ours()
    return redis.call('HGET', KEYS[1], 'fence') == ARGV[1]
end

local function count_requests()
    local tallied = {'requests_sent', 'requests_answered', 'requests_retried', 'requests_throttled', 'rows_in_doubt'}
    for i, field in ipairs(tallied) do
        if ARGV[i + 1] ~= '0' then
            redis.call('HINCRBY', KEYS[3], field, ARGV[i + 1])
        end
    end
end

-- is_new says of a value, by its place in ARGV, whether its rows are to be counted; returns how many were
local function count_rows(is_new)
    local numbers = {'tokens_prompt', 'tokens_completion', 'tokens_total', 'tokens_cached', 'tokens_reasoning', 'cost_pico'}
    local sums, verdicts, fresh = {0, 0, 0, 0, 0, 0}, {}, 0
    for at = 8, #ARGV, 10 do
        if is_new(at) then
            local verdict = ARGV[at + 3]
            fresh = fresh + ARGV[at + 2]
            verdicts[verdict] = (verdicts[verdict] or 0) + ARGV[at + 2]
            for i = 1, 6 do
                sums[i] = sums[i] + ARGV[at + 3 + i]
            end
        end
    end
    for verdict, count in pairs(verdicts) do
        redis.call('HINCRBY', KEYS[3], 'rows_' .. verdict, count)
    end
    for i, field in ipairs(numbers) do
        if sums[i] > 0 then
            redis.call('HINCRBY', KEYS[3], field, string.format('%.0f', sums[i]))
        end
    end
    return fresh
end
