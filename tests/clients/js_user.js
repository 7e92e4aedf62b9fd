// One user of OpenIM's JavaScript SDK (npm @openim/client-sdk, JSON frames) in plain Node.
// Argument: the folder with node_modules.
'use strict';

const path = require('path');
const { event, reason, serve } = require('./user_lines.js');

const modules = path.join(process.argv[2], 'node_modules');
const WebSocket = require(path.join(modules, 'ws'));

// The SDK expects a browser's WebSocket that gives ArrayBuffers.
global.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.binaryType = 'arraybuffer';
  }
};
for (const level of ['log', 'info', 'debug', 'warn', 'error', 'group', 'groupEnd', 'groupCollapsed']) console[level] = () => {};
// Bugs of the SDK itself (a pushed message of an unlisted conversation, a sync after a reconnect): reported, survived.
process.on('unhandledRejection', (fault) => event('sdk-unhandled', reason(fault)));
process.on('uncaughtException', (fault) => event('sdk-uncaught', reason(fault)));

const { getSDK, CbEvents } = require(path.join(modules, '@openim', 'client-sdk'));
const sdk = getSDK();
for (const name of new Set(Object.values(CbEvents))) sdk.on(name, (data) => event(name, data));

let started;
serve({
  async init({ platformID, wsAddr, apiAddr }) {
    started = { platformID, wsAddr, apiAddr, logLevel: 1 };
  },
  async login({ userID, token }) {
    await sdk.login({ userID, token, ...started });
  },
  async send({ recvID, text }) {
    const { data: message } = await sdk.createTextMessage(text);
    const { data: sent } = await sdk.sendMessage({ recvID, groupID: '', message });
    return sent;
  },
  async subscribe({ users }) {
    return (await sdk.subscribeUsersStatus(users)).data;
  },
  async logout() {
    await sdk.logout();
  },
});
