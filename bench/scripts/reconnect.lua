-- Reconnect storm: all connections are lost at one moment, as after a restart or a network's failure, and all log in
-- again at once. Latency is from the loss to the login.
-- Read: login latency's maximum (when the last one is back), the connections of each second, "handshake".
--
--   pinion-bench -t2 -c10k -d30s --timeout 30s --latency -s bench/scripts/reconnect.lua ws://127.0.0.1:10001
--
-- Arguments: seconds between two waves (10). The first comes one second after all are connected.

local wave_ms = 10000

function init(args)
  wave_ms = 1000 * tonumber(args[1] or wave_ms / 1000)
end

function request(conn)
  conn.waves = (conn.waves or 0) + 1
  return pinion.reconnect("drop")
end

function delay(conn)
  return conn.waves and wave_ms or 1000
end

function closed()
  return true
end
