//! Webhooks of presence: what is posted to whom it may concern (spec 11.6). Posting is done by `control`.
//!
//! Upstream sends "online" again with every record of a user; here a change is told once, when it is known, unless
//! the configuration asks for upstream's way (spec trap 31). `callbackAfterUserKickOffCommand`, which upstream defines
//! and never sends, is sent here once per connection that is kicked, if `control` has it enabled.

use std::collections::VecDeque;

use serde::Serialize;

use crate::ids::Platform;
use crate::limits::WEBHOOKS_WAITING_MAX;
use crate::time::UnixMs;
use crate::wire::compat::Compat;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookKind {
    /// The user came.
    Online,
    /// The user left.
    Offline,
    /// A connection of the user was kicked.
    KickOff,
}

/// One webhook to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    /// What has happened.
    pub kind: WebhookKind,
    /// Also the header `operationID`.
    pub operation_id: Box<str>,
    /// To whom.
    pub user: Box<str>,
    /// Where.
    pub platform: i32,
    /// When.
    pub at: UnixMs,
    /// The newest connection of the platform; empty if it is not known (renewals), as always upstream since 3.8.
    pub connection_id: Box<str>,
    /// Whether the app is in the background. `Online` only.
    pub background: bool,
}

/// The body; the order of the fields is upstream's.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "callbackCommand")]
    command: &'a str,
    #[serde(rename = "operationID")]
    operation_id: &'a str,
    #[serde(rename = "platformID")]
    platform_id: i32,
    platform: &'a str,
    #[serde(rename = "userID")]
    user_id: &'a str,
    seq: i64,
    #[serde(rename = "isAppBackground", skip_serializing_if = "Option::is_none")]
    background: Option<bool>,
    #[serde(rename = "connID", skip_serializing_if = "Option::is_none")]
    connection_id: Option<&'a str>,
}

impl WebhookEvent {
    /// The name at the end of the URL, which is also in the body.
    pub fn command(&self, compat: Compat) -> &'static str {
        match (self.kind, compat) {
            (WebhookKind::Online, Compat::V35) => "callbackUserOnlineCommand",
            (WebhookKind::Offline, Compat::V35) => "callbackUserOfflineCommand",
            (WebhookKind::KickOff, Compat::V35) => "callbackUserKickOffCommand",
            (WebhookKind::Online, Compat::Patch16 | Compat::Main) => "callbackAfterUserOnlineCommand",
            (WebhookKind::Offline, Compat::Patch16 | Compat::Main) => "callbackAfterUserOfflineCommand",
            (WebhookKind::KickOff, Compat::Patch16 | Compat::Main) => "callbackAfterUserKickOffCommand",
        }
    }

    /// The JSON to post.
    pub fn body(&self, compat: Compat) -> String {
        let body = Body {
            command: self.command(compat),
            operation_id: &self.operation_id,
            platform_id: self.platform,
            platform: Platform::new(i64::from(self.platform)).map_or("", Platform::name),
            user_id: &self.user,
            seq: self.at.0,
            background: (self.kind == WebhookKind::Online).then_some(self.background),
            connection_id: (self.kind != WebhookKind::KickOff).then_some(&*self.connection_id),
        };
        // Strings, numbers and a bool always have a JSON form.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

/// Webhooks that wait to be posted, oldest first. More than [`WEBHOOKS_WAITING_MAX`]: dropped and counted.
#[derive(Debug, Default)]
pub(super) struct WebhookQueue {
    events: VecDeque<WebhookEvent>,
    pub(super) dropped: u64,
}

impl WebhookQueue {
    pub(super) fn push(&mut self, event: WebhookEvent) {
        if self.events.len() < WEBHOOKS_WAITING_MAX {
            self.events.push_back(event);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<WebhookEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: WebhookKind) -> WebhookEvent {
        WebhookEvent {
            kind,
            operation_id: "p_1_42".into(),
            user: "u1".into(),
            platform: 5,
            at: UnixMs(1_767_225_600_000),
            connection_id: "".into(),
            background: false,
        }
    }

    #[test]
    fn bodies_have_the_keys_of_the_specification_in_its_order() {
        // The first is the example of spec 11.6.
        let table = [
            (WebhookKind::Online, "Online", r#","isAppBackground":false,"connID":"""#),
            (WebhookKind::Offline, "Offline", r#","connID":"""#),
            (WebhookKind::KickOff, "KickOff", ""),
        ];
        for (kind, name, end) in table {
            let middle =
                r#""operationID":"p_1_42","platformID":5,"platform":"Web","userID":"u1","seq":1767225600000"#;
            let body = format!(r#"{{"callbackCommand":"callbackAfterUser{name}Command",{middle}{end}}}"#);
            assert_eq!(event(kind).body(Compat::Patch16), body);
            let legacy = body.replace("callbackAfterUser", "callbackUser");
            assert_eq!(event(kind).body(Compat::V35), legacy);
        }
    }

    #[test]
    fn a_full_queue_drops_the_new_one_and_counts_it() {
        let mut queue = WebhookQueue::default();
        (0..=WEBHOOKS_WAITING_MAX).for_each(|n| {
            let mut event = event(WebhookKind::Online);
            event.user = n.to_string().into();
            queue.push(event);
        });
        assert_eq!((queue.events.len(), queue.dropped), (WEBHOOKS_WAITING_MAX, 1));
        assert_eq!(queue.pop().map(|e| e.user).as_deref(), Some("0"));
    }
}
