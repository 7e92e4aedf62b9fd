-- What `bench/compare` asks of every server, in that server's own way of speaking. Arguments:
--   1 scenario: hold (only answer), echo (each connection sends and waits), fanout (one sends, all receive)
--   2 dialect: raw (E... is echoed, B... goes to all others), nchan, nats, pinion
--   3 bytes of the payload  4 messages at once (fanout)  5 URL to publish at (nchan)
--
-- A fan-out is a chain without pauses: whoever receives the last message of a round sends the next round. So there is
-- one frame per connection and round, or, with several messages at once, so many that wait together. Needs -t1.

local scenario, dialect, bytes, batch, publish = "hold", "raw", 100, 1, nil
local joined, received, expected, round = 0, 0, 0, {}
local payload

local function padded(first)
  local head = first .. pinion.mark
  return head .. string.rep("x", math.max(bytes - #head, 0))
end

-- How each dialect publishes to all.
local publishers = {
  raw = function() return pinion.message(padded("B"), "binary") end,
  nchan = function() return pinion.post(publish, padded("B")) end,
  nats = function()
    local body = padded("B")
    return pinion.message(string.format("PUB all %d\r\n%s\r\n", #body, body), "binary")
  end,
  pinion = function()
    local names = {}
    for n = 0, pinion.users - 1 do names[n + 1] = pinion.user(n) end
    return pinion.push(names, bytes)
  end,
}

function init(args)
  scenario, dialect = args[1] or scenario, args[2] or dialect
  bytes, batch, publish = tonumber(args[3] or bytes), tonumber(args[4] or batch), args[5]
  payload = padded("E")
  if scenario == "fanout" then
    local to_the_sender = (dialect == "nchan" or dialect == "pinion") and 1 or 0
    expected = (pinion.connections - 1 + to_the_sender) * batch
    local one = publishers[dialect]()
    for n = 1, batch do round[n] = one end
  end
end

-- The last one to come in begins the first round.
function connected(conn)
  joined = joined + 1
  local hello
  if dialect == "nats" then
    local subject = scenario == "echo" and "echo." .. conn.number or "all"
    local echo = scenario == "echo" and "true" or "false"
    hello = pinion.message(string.format(
      'CONNECT {"verbose":false,"pedantic":false,"echo":%s}\r\nSUB %s 1\r\n', echo, subject), "binary")
  end
  if scenario == "fanout" and joined == pinion.connections then
    if hello then return hello, unpack(round) end
    return unpack(round)
  end
  return hello
end

function message(conn, incoming)
  if dialect == "nats" then
    local verb = incoming.data:sub(1, 4)
    if verb == "PING" then return pinion.message("PONG\r\n", "binary") end
    if verb ~= "MSG " then return end
  end
  if scenario ~= "fanout" then return end
  received = received + 1
  if received == expected then
    received = 0
    return unpack(round)
  end
end

function request(conn)
  if scenario ~= "echo" then return pinion.idle() end
  if dialect == "nats" then
    return pinion.message(string.format("PUB echo.%d %d\r\n%s\r\n", conn.number, #payload, payload), "binary")
  end
  return pinion.message(payload, "binary")
end

-- Those who hold are not asked again.
function delay()
  return scenario == "echo" and 0 or 86400000
end
