-- Push one-to-one: messages enter over gRPC as OpenIM's push service sends them, each for one user, in turn; the send
-- time is inside, so that "delivery" is the time from when the push was due until the client has read it.
-- Read: deliveries/s, delivery latency, server CPU per operation.
--
--   pinion-bench -t2 -c10k -d30s -R 5k --latency -s bench/scripts/push.lua --push 127.0.0.1:10140 ws://127.0.0.1:10001
--
-- Without -R each connection has one push in flight. Arguments: bytes of the message's content (100).

local bytes = 100
local turn

function init(args)
  bytes = tonumber(args[1] or bytes)
end

function request(conn)
  -- A stride that shares no factor with most numbers of users, so that threads and shards take turns.
  turn = ((turn or conn.number) + 7919) % pinion.users
  return pinion.push(pinion.user(turn), bytes)
end
