-- Connect storm: every connection logs in, closes with a close frame and logs in again, as fast as the server lets it.
-- Read: logins/s, login latency, server CPU per handshake.
--
--   pinion-bench -t2 -c256 -d10s --latency -s bench/scripts/storm.lua --server-pid PID ws://127.0.0.1:10001
--
-- With -R: so many logins per second, whatever the server does. A gateway that limits logins answers some with 503:
-- they are in "handshake". Arguments: `drop` ends each connection without a close frame, as a lost client does.

local ending = "close"

function init(args)
  ending = args[1] or ending
end

function request()
  return pinion.reconnect(ending)
end
