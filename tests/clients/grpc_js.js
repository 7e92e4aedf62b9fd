// The gateway's gRPC services as @grpc/grpc-js sees them: pure JavaScript, so HTTP/2 of another maker than grpcio's, and
// without code generation. Argument: JSON with `modules`, `proto`, `grpc` (host:port), `http` (URL) and `user` (online).
// Prints one line of JSON per check: {name, seconds, error}.
'use strict';

const assert = require('assert');
const http = require('http');
const path = require('path');

const given = JSON.parse(process.argv[2]);
const load = (name) => require(path.join(given.modules, 'node_modules', name));
const grpc = load('@grpc/grpc-js');
const protoLoader = load('@grpc/proto-loader');
const protobuf = load('protobufjs');

const FILES = ['openim/msggateway/msggateway.proto', 'pinion/v1/push.proto'];
const OPTIONS = { keepCase: true, longs: String, enums: String, defaults: true, includeDirs: [given.proto] };
const { openim, pinion } = grpc.loadPackageDefinition(protoLoader.loadSync(FILES, OPTIONS));

// Messages that travel as bytes: in details and in `msg_data`.
const root = new protobuf.Root();
root.resolvePath = (_, name) => path.join(given.proto, name);
root.loadSync(['openim/sdkws/sdkws.proto', 'openim/errinfo/errinfo.proto', 'google/rpc/status.proto'], { keepCase: true });
const type = (name) => root.lookupType(name);

const MANY = 1000;
const OLD_BODY_BYTES = 4 * 1024 * 1024;
const CALL_MS = 60000;
const LINUX = 7;
const GZIP = 2;

const unlimited = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 };
const connect = (Client, options = {}) => new Client(given.grpc, grpc.credentials.createInsecure(), options);
// As OpenIM's older peers: 4 MiB is the default of what they receive.
const gateway = connect(openim.msggateway.msgGateway);
const large = connect(openim.msggateway.msgGateway, unlimited);
const zipped = connect(openim.msggateway.msgGateway, { ...unlimited, 'grpc.default_compression_algorithm': GZIP });
const push = connect(pinion.v1.Push);

const message = (text) => ({
  sendID: 'sender',
  recvID: given.user,
  clientMsgID: `js-${text.slice(0, 20)}`,
  sessionType: 1,
  msgFrom: 100,
  contentType: 101,
  content: Buffer.from(JSON.stringify({ content: text })),
});
const msgData = (text) => {
  const MsgData = type('openim.sdkws.MsgData');
  return MsgData.encode(MsgData.fromObject(message(text))).finish();
};
const batch = (id, text, user, options = {}) => ({
  messages: [{ id, msg_data: msgData(text), users: { user_ids: [user] }, ...options }],
});

function metadata(entries = { operationid: 'js' }) {
  const made = new grpc.Metadata();
  for (const [key, value] of Object.entries(entries)) made.add(key, value);
  return made;
}

// {answer} or {error} of a unary call, which can be cancelled meanwhile: `started` gets the call.
function unary(client, method, request, { ms = CALL_MS, entries, started } = {}) {
  return new Promise((resolve) => {
    const options = { deadline: Date.now() + ms };
    const call = client[method](request, metadata(entries), options, (error, answer) => resolve({ error, answer }));
    if (started) started(call);
  });
}

async function answer(...call) {
  const { error, answer: got } = await unary(...call);
  assert.ifError(error);
  return got;
}

// A stream that stays open: `verdict(id)` waits for the last part of a message, `ended` for the status.
function open() {
  const call = push.Stream(metadata({}), { deadline: Date.now() + CALL_MS });
  const waiting = new Map();
  const lost = new Promise((_, reject) => call.on('error', reject));
  lost.catch(() => {}); // who waits for a verdict or for the end sees it
  call.on('data', ({ verdicts }) => {
    for (const part of verdicts) {
      if (part.last && waiting.has(part.id)) waiting.get(part.id)(part);
    }
  });
  const ended = new Promise((resolve) => call.on('status', resolve));
  return {
    call,
    ended,
    verdict: (id) => Promise.race([lost, new Promise((resolve) => waiting.set(String(id), resolve))]),
  };
}

function metric(family) {
  return new Promise((resolve, reject) => {
    http.get(`${given.http}/metrics`, (response) => {
      let text = '';
      response.on('data', (part) => (text += part));
      response.on('end', () => {
        const lines = text.split('\n').filter((line) => line.startsWith(`${family}{`));
        resolve(lines.reduce((sum, line) => sum + Number(line.split(' ').pop()), 0));
      });
    }).on('error', reject);
  });
}

async function until(family, wanted) {
  const end = Date.now() + 20000;
  for (;;) {
    const got = await metric(family);
    if (got === wanted) return;
    assert(Date.now() < end, `${family} is ${got}, wanted ${wanted}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// So many long names that a message of them has about this size.
const names = (bytes) => Array.from({ length: Math.floor(bytes / 4100) }, (_, n) => String(n).padStart(4096, '0'));

const checks = {
  async 'GetUsersOnlineStatus names the user and its platform'() {
    const entries = { operationid: 'js', opuserid: 'imAdmin' };
    const { successResult } = await answer(gateway, 'GetUsersOnlineStatus', { userIDs: [given.user, 'nobody'] }, { entries });
    assert.deepStrictEqual(successResult.map((r) => [r.userID, r.detailPlatformStatus.map((d) => d.platformID)]), [
      [given.user, [LINUX]],
    ]);
  },
  async 'SuperGroupOnlineBatchPushOneMsg pushes'() {
    const request = { msgData: message('unary'), pushToUserIDs: [given.user, 'nobody'] };
    const { singlePushResult } = await answer(gateway, 'SuperGroupOnlineBatchPushOneMsg', request);
    const got = singlePushResult.map((r) => [r.userID, r.resp.map((d) => [d.ResultCode, d.RecvPlatFormID])]);
    assert.deepStrictEqual(got.sort(), [[given.user, [['0', LINUX]]], ['nobody', []]].sort());
  },
  async 'MultiTerminalLoginCheck is answered'() {
    await answer(gateway, 'MultiTerminalLoginCheck', { userID: 'nobody', platformID: LINUX, token: 't' });
  },
  async 'KickUserOffline is answered'() {
    await answer(gateway, 'KickUserOffline', { platformID: LINUX, kickUserIDList: ['nobody'] });
  },
  async 'the methods that nobody implements are UNIMPLEMENTED'() {
    for (const [method, to] of [['OnlinePushMsg', { pushToUserID: 'a' }], ['OnlineBatchPushOneMsg', { pushToUserIDs: ['a'] }]]) {
      const { error } = await unary(gateway, method, { msgData: message('x'), ...to });
      assert.deepStrictEqual([error.code, error.details], [12, `method ${method} not implemented`]);
    }
  },
  async 'an OpenIM error keeps its code above 16, its text and its details'() {
    const { error } = await unary(gateway, 'KickUserOffline', { platformID: 10, kickUserIDList: ['a'] });
    assert.deepStrictEqual([error.code, error.details], [1001, 'ArgsError']);
    const [bytes] = error.metadata.get('grpc-status-details-bin');
    const status = type('google.rpc.Status').decode(bytes);
    assert.deepStrictEqual([status.code, status.message, status.details.length], [1001, 'ArgsError', 1]);
    assert.strictEqual(status.details[0].type_url, 'type.googleapis.com/openim.protobuf.ErrorInfo');
    const info = type('openim.protobuf.ErrorInfo').decode(status.details[0].value);
    assert.strictEqual(info.cause, 'PlatformID is invalid');
  },
  async 'a call without operationid is INVALID_ARGUMENT'() {
    const { error } = await unary(gateway, 'KickUserOffline', { platformID: 1, kickUserIDList: ['a'] }, { entries: {} });
    assert.deepStrictEqual([error.code, error.details], [3, 'operationID error']);
  },
  async 'a call cancelled in the middle ends at the gateway too'() {
    const before = await metric('pinion_rpc_cancelled_total');
    let call;
    const outcome = unary(push, 'Send', batch(1, 'x', 'nobody', { expire_after_ms: 60000 }), {
      entries: {},
      started: (its) => (call = its),
    });
    await until('pinion_rpc_calls_in_flight', 1);
    call.cancel();
    assert.strictEqual((await outcome).error.code, 1);
    await until('pinion_rpc_calls_in_flight', 0);
    await until('pinion_rpc_cancelled_total', before + 1);
  },
  async 'an answer comes before the deadline, a deadline of 1 ms passes'() {
    const waits = batch(1, 'x', 'nobody', { expire_after_ms: 60000 });
    const { verdicts } = await answer(push, 'Send', waits, { ms: 4000, entries: {} });
    assert.deepStrictEqual(verdicts.map((v) => [v.id, v.last]), [['1', true]]);
    const { error } = await unary(push, 'Send', waits, { ms: 1, entries: {} });
    assert.strictEqual(error.code, 4);
  },
  async '4 MiB requests, plain and compressed'() {
    const entries = { operationid: 'js', opuserid: 'imAdmin' };
    for (const client of [large, zipped]) {
      await answer(client, 'GetUsersOnlineStatus', { userIDs: names(OLD_BODY_BYTES) }, { entries });
    }
  },
  async '4 MiB answers'() {
    const users = names(OLD_BODY_BYTES + 100000);
    const request = { msgData: message('x'), pushToUserIDs: users };
    const { singlePushResult } = await answer(large, 'SuperGroupOnlineBatchPushOneMsg', request);
    assert.deepStrictEqual(singlePushResult.map((r) => r.userID).sort(), users);
    // The same answer is above what this client takes by itself: its own doing, and its connection is none the worse.
    const { error } = await unary(gateway, 'SuperGroupOnlineBatchPushOneMsg', request);
    assert.strictEqual(error.code, 8);
    await answer(gateway, 'MultiTerminalLoginCheck', { userID: 'nobody', platformID: LINUX, token: 't' });
  },
  async 'a body above the limit is RESOURCE_EXHAUSTED'() {
    const { error } = await unary(large, 'GetUsersOnlineStatus', { userIDs: names(2 * OLD_BODY_BYTES + 100000) });
    assert.strictEqual(error.code, 8);
  },
  [`${MANY} calls at once`]: async () => {
    const request = { msgData: message('x'), pushToUserIDs: ['nobody'] };
    const all = Array.from({ length: MANY }, () => answer(gateway, 'SuperGroupOnlineBatchPushOneMsg', request));
    for (const { singlePushResult } of await Promise.all(all)) assert.strictEqual(singlePushResult[0].userID, 'nobody');
  },
  [`${MANY} streams open at once on one connection`]: async () => {
    const streams = Array.from({ length: MANY }, open);
    await Promise.all(streams.map(async (stream, id) => {
      const verdict = stream.verdict(id);
      stream.call.write(batch(id, 'x', 'nobody'));
      assert.strictEqual((await verdict).users[0].outcome, 'OUTCOME_NOT_HERE');
    }));
    // All have answered and none has ended.
    const running = Symbol('running');
    for (const { ended } of streams) assert.strictEqual(await Promise.race([ended, running]), running);
    for (const { call } of streams) call.end();
    for (const status of await Promise.all(streams.map(({ ended }) => ended))) assert.strictEqual(status.code, 0);
  },
  async '300 messages pipelined on a stream'() {
    const stream = open();
    const verdicts = Array.from({ length: 300 }, (_, id) => stream.verdict(id));
    for (let id = 0; id < 300; id++) stream.call.write(batch(id, `stream ${id}`, given.user));
    stream.call.end();
    for (const verdict of await Promise.all(verdicts)) {
      assert.deepStrictEqual(verdict.users.map((u) => u.devices.map((d) => d.outcome)), [['OUTCOME_WRITTEN']]);
    }
    assert.strictEqual((await stream.ended).code, 0);
  },
};

async function main() {
  for (const [name, check] of Object.entries(checks)) {
    const start = Date.now();
    let error = null;
    try {
      await check();
    } catch (fault) {
      error = fault.stack || String(fault);
    }
    console.log(JSON.stringify({ name, seconds: (Date.now() - start) / 1000, error }));
  }
  for (const client of [gateway, large, zipped, push]) client.close();
}

main();
