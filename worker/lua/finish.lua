-- End a job: its last unit of work is done, its keys may expire.
--
-- KEYS[1]  job              HASH   state, finished_ms
-- KEYS[2]  due              ZSET   claimed units by the end of their lease
-- KEYS[3]  batch            HASH   fence of the unit "final"; deleted
-- KEYS[4]  counts           HASH
-- KEYS[5]  workers          HASH   deleted
-- KEYS[6]  active           SET    ids of jobs that are not final
-- ARGV[1]  job_id
-- ARGV[2]  fence            the one that the claim gave
-- ARGV[3]  state            completed, failed or cancelled
-- ARGV[4]  ttl_s            how long the finished job is remembered
-- ARGV[5…] field, value     exact totals, in place of the progress counted so far
-- returns  1, or 0 when the lease is no longer ours
if redis.call('HGET', KEYS[3], 'fence') ~= ARGV[2] or redis.call('ZREM', KEYS[2], 'final') == 0 then
    return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'finished_ms', time[1] * 1000 + math.floor(time[2] / 1000))
if #ARGV > 4 then
    redis.call('HSET', KEYS[4], unpack(ARGV, 5))
end
redis.call('DEL', KEYS[3], KEYS[5])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[4], ARGV[4])
redis.call('SREM', KEYS[6], ARGV[1])
return 1
