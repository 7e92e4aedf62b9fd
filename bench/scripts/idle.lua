-- Idle hold: connections log in and only answer, with a heartbeat of each (--ping; OpenIM's clients: 24 s).
-- Read: user and kernel bytes per connection, server CPU per 1 000 connections.
--
--   pinion-bench -t2 -c10k -d60s --ping 24s -s bench/scripts/idle.lua --server-pid PID ws://127.0.0.1:10001
--
-- Bytes per connection of one run contain what the server allocates once. The slope between two sizes does not: run it
-- with -c2k and -c10k against servers that were just started, and divide the difference of the bytes by 8 000.

function done(summary)
  local cpu = summary.server_cpu_seconds
  if cpu and summary.connections > 0 then
    local per_second = cpu / (summary.duration / 1e6)
    print(string.format("  Idle: %.3f %% of a core for %d connections, %.0f us of CPU per second and 1 000 connections",
      100 * per_second, summary.connections, 1e9 * per_second / summary.connections))
  end
end
