//! What presence has to say: requests to the user service, replies and news to the shards, webhooks to the control
//! thread.

use std::cell::RefCell;

use super::{Exchange, Openim, call_of};
use crate::backend::openim::answers::{Answers, Expect};
use crate::backend::openim::calls;
use crate::backend::openim::presence::{Request, RequestFault, WebhookEvent, WebhookKind, Webhooks};
use crate::config::{WebhookConfig, WebhooksConfig};
use crate::control::mailbox::ControlAddress;
use crate::control::webhooks::Webhook;
use crate::shard::clock;
use crate::wire::compat::Compat;
use crate::wire::grpc::CallFault;

impl Openim {
    /// Does what presence wants done now. To be called after whatever it was told, and at each tick.
    pub(in crate::rpc) fn go_on(&self, exchange: &Exchange) {
        let presence = &self.shared.presence;
        let now = clock::now();
        let next = || presence.borrow_mut().next_request(now);
        while let Some(request) = next() {
            let (this, exchange) = (self.clone(), exchange.clone());
            monoio::spawn(async move {
                this.request(request).await;
                this.go_on(&exchange);
            });
        }
        let next = || presence.borrow_mut().next_reply();
        while let Some((shard, reply)) = next() {
            exchange.reply(shard, reply);
        }
        let next = || presence.borrow_mut().next_news();
        while let Some(news) = next() {
            exchange.tell_everybody(&news);
        }
        let next = || presence.borrow_mut().next_webhook();
        while let Some(event) = next() {
            self.shared.hooks.post(&event);
        }
    }

    async fn request(&self, request: Request) {
        let shared = &self.shared;
        let Request { id, method, operation_id, body, deadline } = request;
        let question = calls::own_call(shared.compat, method, operation_id.clone(), body);
        let answer = shared.channels.user.call(call_of(question, deadline)).await;
        let answers = Answers { compat: shared.compat, target: &shared.names.user };
        let answer = answer.map_err(|fault| match fault {
            // Of these nothing more will come.
            CallFault::Status(_) | CallFault::Overloaded | CallFault::Metadata(_) => {
                RequestFault::Refused(answers.error(&Expect::Data, fault))
            }
            CallFault::Unavailable(_) | CallFault::Deadline => RequestFault::Unknown,
        });
        if let Err(fault) = &answer {
            tracing::warn!(%operation_id, ?method, ?fault, "the user service does not take presence");
        }
        shared.presence.borrow_mut().answered(clock::now().mono, id, answer);
    }
}

/// Which webhooks are wanted, and the way to whoever posts them.
pub(super) struct Hooks {
    compat: Compat,
    /// As configured last.
    pub(super) config: RefCell<WebhooksConfig>,
    control: ControlAddress,
}

impl Hooks {
    pub(super) fn new(compat: Compat, config: WebhooksConfig, control: ControlAddress) -> Self {
        Self { compat, config: RefCell::new(config), control }
    }

    pub(super) fn wanted(&self) -> Webhooks {
        let config = self.config.borrow();
        match (config.any(), config.renewals) {
            (false, _) => Webhooks::Off,
            (true, false) => Webhooks::Changes,
            (true, true) => Webhooks::ChangesAndRenewals,
        }
    }

    /// What finds no room is dropped, as upstream does; the control thread counts it.
    fn post(&self, event: &WebhookEvent) {
        let config = self.config.borrow();
        let WebhookConfig { enabled, timeout_ms } = match event.kind {
            WebhookKind::Online => config.online,
            WebhookKind::Offline => config.offline,
            WebhookKind::KickOff => config.kick_off,
        };
        if !enabled {
            return;
        }
        let webhook = Webhook {
            command: event.command(self.compat),
            operation_id: event.operation_id.to_string(),
            body: event.body(self.compat).into(),
            timeout_ms,
        };
        if self.control.webhook(webhook).is_err() {
            tracing::debug!(command = event.command(self.compat), "a webhook is dropped");
        }
    }
}
