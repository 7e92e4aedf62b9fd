-- Slow readers among fast ones: one connection in ten stops reading; each push names a fast user and a slow one. The
-- fast must not notice: deliveries are timed, and nearly all are theirs.
-- Read: delivery latency (compare with share 0), memory of the server, "closed" and "read": the slow that it gave up.
--
--   pinion-bench -t2 -c1k -d30s -R 5k --latency -s bench/scripts/slow.lua --push 127.0.0.1:10140 --server-pid PID \
--     ws://127.0.0.1:10001
--
-- Arguments: one in so many is slow (10; 0: none), bytes of the content (4000), how long it does not read in ms (whole run).

local one_in, bytes, stall = 10, 4000, 86400000
local turn = 0

function init(args)
  one_in = tonumber(args[1] or one_in)
  bytes = tonumber(args[2] or bytes)
  stall = tonumber(args[3] or stall)
end

local function is_slow(number)
  return one_in > 0 and number % one_in == 0
end

function connected(conn)
  if is_slow(conn.number) then
    return pinion.stall(stall)
  end
end

function request()
  turn = (turn + 7919) % pinion.users
  if one_in == 0 then
    return pinion.push(pinion.user(turn), bytes)
  end
  local slow = turn - turn % one_in
  local fast = turn == slow and (slow + 1) % pinion.users or turn
  return pinion.push({ pinion.user(slow), pinion.user(fast) }, bytes)
end

-- The server has closed it: a slow client logs in again, and is as slow as before.
function closed()
  return true
end
