-- A day, mixed: clients hold their connections with heartbeats, chat with each other, ask for their newest numbers, get
-- pushes, lose their network and come back. Each does something every ten seconds on the average.
-- Read: all of it; `errors` must be empty, kicks 0.
--
--   pinion-bench -t2 -c10k -d10m --latency -s bench/scripts/day.lua --push 127.0.0.1:10140 --server-pid PID \
--     ws://127.0.0.1:10001
--
-- Arguments: seconds between two doings of a client, on the average (10); `nopush` where no gRPC port can be reached.

local mean_ms, pushes = 10000, true
local NEWEST_SEQ = 1001

function init(args)
  mean_ms = 1000 * tonumber(args[1] or mean_ms / 1000)
  pushes = args[2] ~= "nopush"
  math.randomseed(os.time())
end

-- People do not wait for each other: gaps are exponential.
function delay()
  return -mean_ms * math.log(1 - math.random())
end

local function somebody()
  return pinion.user(math.random(0, pinion.users - 1))
end

function request(conn)
  local dice = math.random()
  if dice < 0.55 then
    return pinion.chat(somebody(), math.random(40, 400))
  elseif dice < 0.75 then
    return pinion.request(NEWEST_SEQ, "\10" .. string.char(#conn.user) .. conn.user)
  elseif dice < 0.95 then
    return pushes and pinion.push(somebody(), math.random(40, 400)) or pinion.idle()
  elseif dice < 0.99 then
    return pinion.reconnect("drop")
  end
  return pinion.reconnect("close")
end

function closed()
  return true
end
