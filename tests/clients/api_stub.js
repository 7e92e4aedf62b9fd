// A stand-in for OpenIM's HTTP API: just enough for its SDKs to finish their sync and to create messages.
// Argument: the folder with the JavaScript SDK and OpenIM's protobuf codec. Prints its URL. Ends when standard input closes.
'use strict';

const http = require('http');
const path = require('path');

const { PbCoder } = require(path.join(process.argv[2], 'node_modules', '@openim', 'protocol'));

const VERSION = { version: 1, versionID: '000000000000000000000001', full: false, sortVersion: 0 };

const person = (userID) => ({
  userID,
  nickname: `nick_${userID}`,
  faceURL: '',
  ex: '',
  createTime: 1700000000000,
  appMangerLevel: 1, // OpenIM's spelling
  globalRecvMsgOpt: 0,
});

// A message of OpenIM's codec: nothing decodes to all defaults.
const message = (type, fields) => Object.assign(PbCoder[type].decode(new Uint8Array()), fields);

const SINGLE_CHAT = 1;

function conversationMsg(owner, conversationID) {
  const peer = peerOf(owner, conversationID);
  const conversation = { ownerUserID: owner, conversationID, conversationType: SINGLE_CHAT, userID: peer };
  return message('ConversationMsg', {
    conversation: message('Conversation', conversation),
    user: message('UserInfo', { userID: peer, nickname: `nick_${peer}` }),
  });
}

// si_<a>_<b>: the one who is not the owner. Ids of the tests have no underscore.
function peerOf(owner, conversationID) {
  return conversationID.split('_').slice(1).find((user) => user !== owner) || owner;
}

// The /jssdk/ calls carry protobuf: bare in the request, as base64 in `data` of the answer. The JavaScript SDK throws
// when a conversation that it asks for is not in the answer.
function jssdkConversations(body) {
  const { ownerUserID, conversationIDs } = PbCoder.GetConversationsReq.decode(new Uint8Array(body));
  const conversations = conversationIDs.map((id) => conversationMsg(ownerUserID, id));
  const answer = message('GetConversationsResp', { conversations });
  return Buffer.from(PbCoder.GetConversationsResp.encode(answer).finish()).toString('base64');
}

function answer(route, body) {
  const json = () => JSON.parse(body.toString() || '{}');
  switch (route) {
    case '/user/get_users_info':
      return { usersInfo: (json().userIDs || []).map(person) };
    case '/friend/get_incremental_friends':
    case '/group/get_incremental_join_groups':
    case '/conversation/get_incremental_conversations':
    case '/friend/get_full_friend_user_ids':
    case '/group/get_full_join_group_ids':
      return VERSION;
    case '/jssdk/get_conversations':
      return jssdkConversations(body);
    default:
      return {};
  }
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const route = request.url.split('?')[0];
    const data = answer(route, Buffer.concat(parts));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ errCode: 0, errMsg: '', errDlt: '', data }));
  });
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
