// node ws: E... is echoed, B... goes to all others, by the loop that its documentation shows.
'use strict';
const { WebSocketServer, WebSocket } = require('ws');

const server = new WebSocketServer({
  port: Number(process.argv[2]),
  host: '127.0.0.1',
  perMessageDeflate: false,
  backlog: 4096,
});
server.on('connection', (socket) => {
  socket.on('error', () => {}); // a client that went away
  socket.on('message', (data, isBinary) => {
    if (data[0] === 0x45) {
      socket.send(data, { binary: isBinary });
    } else if (data[0] === 0x42) {
      for (const other of server.clients) {
        if (other !== socket && other.readyState === WebSocket.OPEN) other.send(data, { binary: isBinary });
      }
    }
  });
});
