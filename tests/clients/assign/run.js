// Runs client.js in Node and prints what happens, a JSON line each. Arguments: the folder with node_modules, and the
// options as JSON: {assign, ask, token}. A line on standard input breaks the connection, its end ends the client.
'use strict';

const path = require('path');
const assigned = require('./client.js');

const WebSocket = require(path.join(process.argv[2], 'node_modules', 'ws'));
const { assign, ask, token } = JSON.parse(process.argv[3]);

const say = (what, detail) => process.stdout.write(JSON.stringify([what, detail]) + '\n');
let current;
const client = assigned({
  assign,
  ask,
  WebSocket,
  urlOf: (url) => `${url}/?${new URLSearchParams({ token, sendID: ask.userID, platformID: ask.platformID, operationID: 'it' })}`,
  connected: (socket) => { current = socket; },
  said: say,
});
process.stdin.on('data', () => current.terminate());
process.stdin.on('end', () => client.end());
