// A connection that finds its gateway: asks the assign API, connects, and when it is lost waits, asks and connects
// again: to the home, else to an alternative, else to the last one that was good. For browser and Node.
'use strict';
// assign: URLs of assign listeners, asked in turn. ask: {userID, platformID, 'label.region'..}. urlOf: makes a node's
// URL the one to dial (token and so on). connected: gets each open WebSocket. said (optional): gets what happens.
function assigned({ assign, ask, urlOf, connected, said = () => {}, WebSocket = globalThis.WebSocket, dialMs = 10000 }) {
  let backoff = { base_ms: 1000, cap_ms: 60000, factor: 2, jitter: 0.5 };
  let [known, good, retryMs, attempt, ended, socket] = [[], null, 0, 0, false, null];

  async function question() {
    retryMs = 0;
    for (const base of assign) {
      try {
        const stop = AbortSignal.timeout(5000);
        const answer = await fetch(`${base}/v1/assign?${new URLSearchParams(ask)}`, { signal: stop, cache: 'no-store' });
        const body = await answer.json();
        said('answer', { status: answer.status, static: body.static });
        if (answer.ok) {
          backoff = body.backoff;
          return (known = body.nodes.map((node) => node.url)).concat(good ?? []);
        }
        retryMs = Math.max(retryMs, body.retry_after_ms ?? 0);
      } catch (fault) {
        said('unanswered', String(fault));
      }
    }
    return [good, ...known]; // nobody answers: the last one that was good, then what was heard before
  }

  const dial = (url) => new Promise((resolve) => { // to the end of the connection
    socket = new WebSocket(urlOf(url));
    const timer = setTimeout(() => socket.close(), dialMs);
    let since = Infinity;
    socket.onopen = () => { clearTimeout(timer); [good, since] = [url, Date.now()]; said('open', url); connected(socket); };
    socket.onclose = () => {
      if (Date.now() - since > 10 * backoff.base_ms) attempt = 0; // one that is closed at once is no success
      said('closed', url);
      resolve(clearTimeout(timer));
    };
    socket.onerror = () => {}; // a close follows
  });

  (async () => {
    while (!ended) {
      for (const url of new Set((await question()).filter(Boolean))) {
        const before = good;
        good = null;
        if (!ended) await dial(url);
        if (good || ended) break;
        good = before;
      }
      const full = Math.min(backoff.cap_ms, backoff.base_ms * backoff.factor ** attempt++);
      const ms = Math.max(retryMs, full * (1 - backoff.jitter * Math.random()));
      if (!ended) await new Promise((wake) => setTimeout(wake, ms));
    }
  })();
  return { end: () => { ended = true; socket?.close(); } };
}

if (typeof module === 'object') module.exports = assigned;
