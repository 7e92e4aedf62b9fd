// A stand-in for OpenIM's HTTP API: just enough for its SDKs to finish their sync and to create messages.
// Prints its URL. Ends when standard input closes.
'use strict';

const http = require('http');

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

const conversationOf = (owner, conversationID) => ({
  ownerUserID: owner,
  conversationID,
  conversationType: 1,
  userID: peerOf(owner, conversationID),
  groupID: '',
  recvMsgOpt: 0,
  isPinned: false,
  isPrivateChat: false,
  burnDuration: 0,
  groupAtType: 0,
  attachedInfo: '',
  ex: '',
  maxSeq: 0,
  minSeq: 0,
});

// si_<a>_<b>: the one who is not the owner. Ids of the tests have no underscore.
function peerOf(owner, conversationID) {
  return conversationID.split('_').slice(1).find((user) => user !== owner) || owner;
}

// Protobuf {1: owner, 2: repeated conversation id}: strings only.
function stringsOf(body) {
  const found = {};
  for (let at = 0; at + 2 <= body.length; ) {
    const field = body[at] >> 3;
    if ((body[at] & 7) !== 2) break;
    const length = body[at + 1];
    (found[field] ||= []).push(body.subarray(at + 2, at + 2 + length).toString());
    at += 2 + length;
  }
  return found;
}

function jssdkConversations(body) {
  const { 1: owners = [''], 2: ids = [] } = stringsOf(body);
  return ids.map((id) => ({
    conversation: conversationOf(owners[0], id),
    lastMsg: null,
    user: person(peerOf(owners[0], id)),
    maxSeq: 0,
    readSeq: 0,
  }));
}

function answer(path, body) {
  const json = () => JSON.parse(body.toString() || '{}');
  switch (path) {
    case '/user/get_users_info':
      return { usersInfo: (json().userIDs || []).map(person) };
    case '/friend/get_incremental_friends':
    case '/group/get_incremental_join_groups':
    case '/conversation/get_incremental_conversations':
    case '/friend/get_full_friend_user_ids':
    case '/group/get_full_join_group_ids':
      return VERSION;
    case '/jssdk/get_conversations':
      return { conversations: jssdkConversations(body) };
    default:
      return {};
  }
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const path = request.url.split('?')[0];
    const data = answer(path, Buffer.concat(parts));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ errCode: 0, errMsg: '', errDlt: '', data }));
  });
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
