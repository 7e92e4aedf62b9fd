-- Churn: does logging in and out freeze the gateway? About a hundred accounts connect, send, receive and disconnect in
-- a tight loop, two devices of each on one platform, so that each login kicks the other: OpenIM's gateway up to 3.8 locks
-- up under this after minutes (one loop drains three queues and fills one of them; then nobody can log in any more).
-- Read: the rate of every second. A gateway that froze shows 0 from some second on, and only "timeout" after that.
--
--   pinion-bench -c200 -d10m --timeout 5s -s bench/scripts/churn.lua --per-user 2 --platforms 1 \
--     --secret SECRET ws://GATEWAY:10001
--
-- Arguments: messages between two logins, on the average (3).

local messages = 3

function init(args)
  messages = tonumber(args[1] or messages)
  math.randomseed(os.time())
end

function request()
  if math.random() < 1 / (messages + 1) then
    return pinion.reconnect(math.random() < 0.5 and "drop" or "close")
  end
  return pinion.chat(pinion.user(math.random(0, pinion.users - 1)), 100)
end

-- Kicked by its twin, or dropped: comes back at once, as a client that is tapped again and again.
function closed()
  return true
end
