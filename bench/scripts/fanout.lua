-- Fan-out, 1 to N: one push that names N users, again and again. Deliveries are timed one by one.
-- Read: deliveries/s, delivery latency (its maximum: when the last one has it), server CPU per delivery.
--
--   pinion-bench -t2 -c10k -d10s -R 5 --latency -s bench/scripts/fanout.lua --push 127.0.0.1:10140 ws://127.0.0.1:10001
--
-- -R counts pushes: 5 to 10 000 users each are 50 000 deliveries per second. Without -R the next push is sent when the
-- last one was answered, from one connection. Arguments: users per push (all), bytes of the content (100).

local names, bytes = {}, 100
local push

function init(args)
  local count = math.min(tonumber(args[1] or pinion.users), pinion.users)
  bytes = tonumber(args[2] or bytes)
  for n = 0, count - 1 do
    names[n + 1] = pinion.user(n)
  end
  push = pinion.push(names, bytes)
end

function request()
  return push
end

-- Closed loop: only connection 0 pushes; the others would wait longer than any run.
function delay(conn)
  return conn.number == 0 and 0 or 86400000
end
