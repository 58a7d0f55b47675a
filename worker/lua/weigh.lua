-- Change how many deliveries count against a batch.
--
-- KEYS[1]  batch            HASH   fence, deliveries
-- ARGV[1]  fence            the one that the claim gave
-- ARGV[2]  change           1 or -1
-- returns  1, or 0 when the lease is no longer ours
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then
    return 0
end
redis.call('HINCRBY', KEYS[1], 'deliveries', ARGV[2])
return 1
