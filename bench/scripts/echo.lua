-- Raw echo: each connection sends a message and waits for the next one, which is its answer. Any echo server.
-- Read: messages/s, latency.
--
--   pinion-bench --raw -t2 -c100 -d10s --latency -s bench/scripts/echo.lua ws://127.0.0.1:9001
--   pinion-bench --raw -t2 -c100 -d10s --latency -R 20k -s bench/scripts/echo.lua ws://127.0.0.1:9001 -- 1000
--
-- The second is an open loop with messages of 1 000 bytes. Arguments: bytes (100).

local body = string.rep("x", 100)

function init(args)
  body = string.rep("x", tonumber(args[1] or 100))
end

function request()
  return body
end
