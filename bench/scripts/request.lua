-- OpenIM requests: each connection asks for its newest sequence numbers (1001) and waits for the answer.
-- Read: messages/s, latency, server CPU per operation. Behind a gateway this measures the services too.
--
--   pinion-bench -t2 -c1k -d10s --latency -s bench/scripts/request.lua --server-pid PID ws://127.0.0.1:10001

local NEWEST_SEQ = 1001

-- sdkws.GetMaxSeqReq { string userID = 1 }, for names below 128 bytes.
local function newest_seq_of(user)
  return "\10" .. string.char(#user) .. user
end

function request(conn)
  conn.asked = conn.asked or pinion.request(NEWEST_SEQ, newest_seq_of(conn.user))
  return conn.asked
end
