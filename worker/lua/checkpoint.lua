-- Write outcomes of a batch and count them; the first outcome of a row wins.
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
-- ARGV[7…] per value: index, blob, rows, their verdict, prompt, completion, total, cached, reasoning, cost_pico
-- returns  how many were new, or -1 when the lease is lost
local tallied = {'requests_sent', 'requests_answered', 'requests_retried', 'requests_throttled', 'rows_in_doubt'}
for i, field in ipairs(tallied) do
    if ARGV[i + 1] ~= '0' then -- counted even without the lease: they were sent
        redis.call('HINCRBY', KEYS[3], field, ARGV[i + 1])
    end
end
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then
    return -1
end
local numbers = {'tokens_prompt', 'tokens_completion', 'tokens_total', 'tokens_cached', 'tokens_reasoning', 'cost_pico'}
local sums, verdicts, fresh, packed = {0, 0, 0, 0, 0, 0}, {}, 0, 0
for at = 7, #ARGV, 10 do
    if redis.call('HSETNX', KEYS[2], ARGV[at], ARGV[at + 1]) == 1 then
        fresh = fresh + ARGV[at + 2]
        packed = packed + ARGV[at + 2] - 1
        local verdict = ARGV[at + 3]
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
if packed > 0 then
    redis.call('HINCRBY', KEYS[1], 'packed', packed)
end
if fresh > 0 then
    redis.call('HSET', KEYS[1], 'deliveries', 1) -- whoever gets on is not killed by the batch
end
return fresh
