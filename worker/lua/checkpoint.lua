-- Write outcomes of a batch and count them; the first outcome of a row wins. Begins with tally.lua.
--
-- KEYS[1]  batch            HASH   see tally.lua, also for what follows
-- KEYS[2]  outcomes         HASH
-- KEYS[3]  counts           HASH
-- ARGV[1…] as tally.lua takes them
-- returns  how many were new, or -1 when the lease is lost
count_requests() -- also without the lease: they were sent
if not is_ours() then
    return -1
end
local packed = 0
local fresh = count_rows(function(at)
    local is_first = redis.call('HSETNX', KEYS[2], ARGV[at], ARGV[at + 1]) == 1
    packed = packed + (is_first and ARGV[at + 2] - 1 or 0)
    return is_first
end)
if packed > 0 then
    redis.call('HINCRBY', KEYS[1], 'packed', packed)
end
if fresh > 0 then
    redis.call('HSET', KEYS[1], 'deliveries', 1) -- whoever gets on is not killed by the batch
end
return fresh
