//! What clients read, and what they think of it.

use pinion::session::handshake::SUCCESS_JSON;
use pinion::wire::envelope::OwnedResponse;

use crate::checker::Property;
use crate::client::Stage;
use crate::frames::{masked_frame, next_frame};
use crate::link::LinkId;
use crate::world::{Event, World};

impl World {
    /// The client of a link will read soon.
    pub fn schedule_read(&mut self, link: LinkId) {
        let state = &mut self.links[link];
        if state.gone || state.read_due || self.clients[state.client].stalled {
            return;
        }
        state.read_due = true;
        let delay = self.rng.u64(0..30);
        self.after(delay, Event::Read(link));
    }

    /// Reads some of what has arrived.
    pub fn client_reads(&mut self, link: LinkId) {
        self.links[link].read_due = false;
        let client = self.links[link].client;
        if self.links[link].gone || self.clients[client].stalled {
            return;
        }
        let waiting = self.links[link].down.len();
        let n = if waiting > 1 && self.rng.u8(0..3) == 0 { self.rng.usize(1..waiting) } else { waiting };
        let bytes: Vec<u8> = self.links[link].down.drain(..n).collect();
        self.clients[client].buffer.extend(bytes);
        self.understand(client, link);
        if self.links[link].gone {
            return;
        }
        if self.links[link].blocked {
            let shard = self.links[link].shard;
            self.shards[shard].ready.push_back(link);
            self.wake(shard);
        }
        if n < waiting {
            self.schedule_read(link);
        } else if self.links[link].fin {
            self.end_of_stream(client, link);
        }
    }

    fn end_of_stream(&mut self, client: usize, link: LinkId) {
        let left = self.clients[client].buffer.len();
        // A close without flush may cut a frame; a stream that ended in order may not.
        let orderly = matches!(self.clients[client].stage, Stage::Over);
        if left > 0 && orderly {
            self.checker.fail(Property::AfterClose, format!("{left} bytes after the end, link {link}"));
        }
        self.let_go(link);
    }

    fn understand(&mut self, client: usize, link: LinkId) {
        if self.clients[client].stage == Stage::Connecting && !self.understand_head(client, link) {
            return;
        }
        loop {
            let buffer = std::mem::take(&mut self.clients[client].buffer);
            let Some(frame) = next_frame(&buffer) else {
                self.clients[client].buffer = buffer;
                return;
            };
            let (opcode, payload, len) = (frame.opcode, frame.payload.to_vec(), frame.len);
            if !frame.plain {
                let text = format!("a frame that no gateway sends: {:02x?}", &buffer[..2]);
                return self.checker.fail(Property::Protocol, text);
            }
            self.clients[client].buffer = buffer[len..].to_vec();
            self.observed.fold(&[opcode]);
            self.observed.fold(&payload);
            self.understand_frame((client, link), opcode, &payload);
            if self.checker.violation.is_some() || self.links[link].gone {
                return;
            }
        }
    }

    /// The answer to the handshake. True: frames follow.
    fn understand_head(&mut self, client: usize, link: LinkId) -> bool {
        let text = String::from_utf8_lossy(&self.clients[client].buffer).into_owned();
        let Some(end) = text.find("\r\n\r\n") else {
            return false;
        };
        self.observed.fold(&text.as_bytes()[..end]);
        let state = &mut self.clients[client];
        if text.starts_with("HTTP/1.1 101 ") {
            let bad = !text.contains(&format!("Sec-WebSocket-Accept: {}\r\n", state.accept));
            state.buffer.drain(..end + 4);
            state.stage = if state.wants_response { Stage::Greeting } else { Stage::Open };
            if state.stage == Stage::Open {
                self.logged_in(client, link);
            }
            if bad {
                self.checker.fail(Property::Protocol, "a 101 for another key".into());
            }
            return true;
        }
        let refusal = ["HTTP/1.1 200 ", "HTTP/1.1 400 ", "HTTP/1.1 503 "];
        if !refusal.iter().any(|line| text.starts_with(line)) {
            self.checker.fail(Property::Protocol, format!("no answer to a handshake: {text}"));
        }
        state.buffer.clear();
        self.links[link].excuse("refused");
        self.clients[client].stage = Stage::Connecting;
        false
    }

    fn logged_in(&mut self, client: usize, link: LinkId) {
        self.links[link].logged_in = Some(self.step);
        self.clients[client].last_sent_ms = self.now.mono.0;
        self.saw("logins");
        if self.clients[client].bad_login {
            self.checker.fail(Property::Protocol, "a bad token logged in".into());
        }
    }

    fn understand_frame(&mut self, (client, link): (usize, LinkId), opcode: u8, payload: &[u8]) {
        let stage = self.clients[client].stage;
        if stage == Stage::Over {
            let text = format!("a frame of opcode {opcode} after the end");
            return self.checker.fail(Property::AfterClose, text);
        }
        if stage == Stage::Greeting {
            return self.understand_greeting((client, link), opcode, payload);
        }
        match opcode {
            1 => self.understand_pong_text(client, payload),
            2 => self.understand_binary((client, link), payload),
            8 => self.clients[client].stage = Stage::Over,
            9 => {
                let pong = masked_frame(0x8a, payload, [9, 8, 7, 6]);
                self.send(client, link, pong);
            }
            10 => {
                if self.clients[client].pings.pop_front().as_deref() != Some(payload) {
                    self.checker
                        .fail(Property::Stranger, format!("a pong that was not asked for: {payload:?}"));
                }
            }
            _ => self.checker.fail(Property::Protocol, format!("opcode {opcode}")),
        }
    }

    /// The first text frame of a login with `isMsgResp` (spec 1.4).
    fn understand_greeting(&mut self, (client, link): (usize, LinkId), opcode: u8, payload: &[u8]) {
        if opcode != 1 {
            let text = format!("opcode {opcode} before the first text frame");
            return self.checker.fail(Property::Protocol, text);
        }
        if payload == SUCCESS_JSON.as_bytes() {
            self.clients[client].stage = Stage::Open;
            return self.logged_in(client, link);
        }
        self.clients[client].stage = Stage::Over;
    }

    fn understand_pong_text(&mut self, client: usize, payload: &[u8]) {
        let expected = self.clients[client].text_pings.pop_front();
        let expected = expected.map(|body| format!(r#"{{"type":"pong","body":"{body}"}}"#));
        if expected.as_deref().map(str::as_bytes) != Some(payload) {
            let text = format!("{} instead of {expected:?}", String::from_utf8_lossy(payload));
            self.checker.fail(Property::Stranger, text);
        }
    }

    fn understand_binary(&mut self, (client, link): (usize, LinkId), payload: &[u8]) {
        let variant = self.clients[client].variant;
        let response = match self.codec.decode_response(variant, payload) {
            Ok(response) => response,
            Err(fault) => {
                return self.checker.fail(Property::Protocol, format!("{fault:?} in a binary frame"));
            }
        };
        match response.id {
            2001 => match response.operation_id.strip_prefix("push-").and_then(|n| n.parse().ok()) {
                Some(push) => self.checker.push_received(push, &mut self.links[link]),
                None => self.checker.fail(Property::Stranger, format!("{response:?}")),
            },
            2002 => {
                self.saw("kicks");
                self.clients[client].kicked = true;
                self.clients[client].stage = Stage::Over;
            }
            2005 if response.msg_incr.is_empty() => {
                if !self.clients[client].subscribed {
                    self.checker.fail(Property::Stranger, "presence of nobody it watches".into());
                }
            }
            _ => self.understand_reply(client, &response),
        }
    }

    fn understand_reply(&mut self, client: usize, response: &OwnedResponse) {
        let state = &mut self.clients[client];
        let Some(pending) = state.pending.remove(&response.msg_incr) else {
            return self.checker.fail(Property::Stranger, format!("a reply to nothing asked: {response:?}"));
        };
        let request = pending.request;
        let echoed = (response.id, response.operation_id.as_str()) == (request.id, &*request.operation_id);
        let data_fits = match (response.err_code, request.id) {
            (0, 2004) => response.data.as_deref().unwrap_or_default().is_empty(),
            (0, 2003 | 2005) => true,
            (0, _) => response.data.as_deref() == Some(&request.data[..]),
            _ => response.data.as_deref().unwrap_or_default().is_empty(),
        };
        if !echoed || !data_fits {
            self.checker.fail(Property::OneReply, format!("{response:?} is no reply to {request:?}"));
        }
        self.saw("replies");
        let state = &mut self.clients[client];
        if request.id == 1003 && state.sends.pop_front().as_deref() != Some(&response.msg_incr) {
            self.checker.fail(Property::OneReply, format!("SendMsg {} overtook another", response.msg_incr));
        }
    }
}
