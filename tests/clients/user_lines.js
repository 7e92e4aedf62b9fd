// JSON lines between a driver and its one user. The SDKs write to standard output as they like, so our lines are marked.
'use strict';

const readline = require('readline');

function say(value) {
  process.stdout.write('@@' + JSON.stringify(value) + '\n');
}

// Data of an event: the SDKs give text that is JSON, or the value itself.
function plain(data) {
  let value = data && data.data !== undefined ? data.data : data;
  if (typeof value === 'string') {
    try {
      value = JSON.parse(value);
    } catch {
      // Not every event carries JSON.
    }
  }
  return value === undefined ? null : value;
}

function event(name, data) {
  say({ event: name, data: plain(data) });
}

function reason(fault) {
  if (fault instanceof Error) return fault.stack;
  return typeof fault === 'string' ? fault : JSON.stringify(fault);
}

// Runs one command per line: {id, do, ..arguments} -> {id, ok} or {id, error}. `verbs` maps names to async functions.
function serve(verbs) {
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const { id, do: verb, ...given } = JSON.parse(line);
    try {
      const ok = await verbs[verb](given);
      say({ id, ok: ok === undefined ? null : ok });
    } catch (fault) {
      say({ id, error: reason(fault) });
    }
  });
  // The driver is gone: so is its user.
  lines.on('close', () => process.exit(0));
}

module.exports = { say, event, reason, serve };
