// One user of OpenIM's native SDK (the Go core inside npm @openim/electron-client-sdk) in plain Node.
// Argument: the folder with node_modules.
'use strict';

const Module = require('module');
const fs = require('fs');
const path = require('path');
const { event, serve } = require('./user_lines.js');

const modules = path.join(process.argv[2], 'node_modules');
const load = Module._load;
// The package wants two things of Electron; neither matters here.
Module._load = function (name, ...rest) {
  if (name === 'electron') return { powerMonitor: { on() {} }, ipcMain: { handle() {} } };
  return load.call(this, name, ...rest);
};

const folder = path.join(modules, '@openim', 'electron-client-sdk');
const loaded = require(folder);
const Main = loaded.default || loaded;
const machine = process.arch === 'arm64' ? 'linux_arm64' : 'linux_x64';
const library = path.join(folder, 'assets', machine, 'libopenimsdk.so');
if (!fs.existsSync(library)) throw new Error(`no native library at ${library}`);

// What the SDK would send to a browser window.
const webContents = {
  isDestroyed: () => false,
  once() {},
  send: (_channel, name, data) => event(name, data),
};
const { sdk } = new Main(library, webContents);
// The callbacks of the library do not keep Node alive.
setInterval(() => {}, 1000);

const data = (answer) => (answer && answer.data !== undefined ? answer.data : answer);

serve({
  async init({ platformID, wsAddr, apiAddr, dataDir }) {
    const log = path.join(dataDir, 'log');
    fs.mkdirSync(log, { recursive: true });
    await sdk.initSDK({
      platformID,
      wsAddr,
      apiAddr,
      dataDir,
      logFilePath: log,
      logLevel: Number(process.env.SDK_LOG_LEVEL || 3),
      isLogStandardOutput: Boolean(process.env.SDK_LOG_LEVEL),
    });
  },
  async login({ userID, token }) {
    await sdk.login({ userID, token });
  },
  async send({ recvID, text }) {
    const message = data(await sdk.createTextMessage(text));
    return data(await sdk.sendMessage({ recvID, groupID: '', message }));
  },
  async background({ isBackground }) {
    await sdk.setAppBackgroundStatus(isBackground);
  },
  async subscribe({ users }) {
    return data(await sdk.subscribeUsersStatus(users));
  },
  async logout() {
    await sdk.logout();
  },
});
