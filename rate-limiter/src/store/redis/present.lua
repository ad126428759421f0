-- Says that a replica is there, and counts those that are.
--
-- KEYS[1]   the sorted set of replicas, by when each was last heard of (microseconds of the server's clock).
-- ARGV[1]   which replica.
-- ARGV[2]   for how many microseconds a replica counts after it was last heard of; 0: this one leaves.
-- Returns   how many there are.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local life = tonumber(ARGV[2])
if life == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - life)
  redis.call('PEXPIRE', KEYS[1], math.ceil(life / 1000))
end
return redis.call('ZCARD', KEYS[1])
