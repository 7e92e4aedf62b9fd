//! How the other threads reach the control thread. Nothing here waits: what finds its lane full comes back.
//!
//! The lanes: *webhooks* (full: dropped by the caller, as upstream drops them), *token orders* (full: the caller
//! answers its own question), *membership orders* (full: the caller orders again), *names* to be looked up (full: the
//! caller dials later), and what is *wanted*, which is a level and has always room. An order about tokens that was
//! taken and asks for an answer has one, unless the thread ends first; so has a name.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::counts::Counts;
use super::membership::MembershipOrder;
use super::plan::{ControlFault, WebhookPlan};
use super::tokens::TokenOrder;
use super::webhooks::{Sender as WebhookSender, Webhook};
use crate::limits;
use crate::metrics::Metric;

/// How any thread reaches the control thread. Cheap to clone. Never waits.
#[derive(Clone)]
pub struct ControlAddress {
    post: Arc<Post>,
}

/// What senders and the thread share.
pub(super) struct Post {
    webhooks: mpsc::Sender<Webhook>,
    tokens: mpsc::Sender<TokenOrder>,
    membership: mpsc::Sender<MembershipOrder>,
    names: mpsc::Sender<String>,
    webhooks_dropped: AtomicU64,
    tokens_refused: AtomicU64,
    membership_refused: AtomicU64,
    names_refused: AtomicU64,
}

/// The thread's own ends.
pub(super) struct Inbox {
    pub(super) webhooks: mpsc::Receiver<Webhook>,
    pub(super) tokens: mpsc::Receiver<TokenOrder>,
    pub(super) membership: mpsc::Receiver<MembershipOrder>,
    pub(super) names: mpsc::Receiver<String>,
    pub(super) wanted: Wanted,
    pub(super) post: Arc<Post>,
}

/// The running thread, for its owner.
pub struct ControlThread {
    wanted: watch::Sender<Want>,
    webhooks: watch::Sender<Hooks>,
    thread: JoinHandle<()>,
}

/// An order came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// Its lane is full. It is counted.
    Full(T),
    /// The thread has ended, or its plan has nothing for such orders.
    Closed(T),
}

/// What happens to the registration when the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases {
    /// Revoked: the keys go at once.
    Revoke,
    /// Left: the keys go with their leases, if nobody takes them over.
    Leave,
}

/// Where webhooks go; `None`: nowhere, they are dropped.
pub(super) type Hooks = Option<Arc<WebhookSender>>;

/// What the owner wants of the thread now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    registered: bool,
    end: Option<(Leases, Instant)>,
}

/// The thread's view of it.
#[derive(Clone)]
pub(super) struct Wanted(watch::Receiver<Want>);

pub(super) fn mailbox() -> (ControlAddress, watch::Sender<Want>, Inbox) {
    let (webhook_sender, webhooks) = mpsc::channel(limits::WEBHOOKS_MAX);
    let (token_sender, tokens) = mpsc::channel(limits::TOKEN_ORDERS_MAX);
    let (membership_sender, membership) = mpsc::channel(limits::MEMBERSHIP_ORDERS_MAX);
    let (name_sender, names) = mpsc::channel(limits::NAME_ORDERS_MAX);
    let (want, wanted) = watch::channel(Want::default());
    let post = Arc::new(Post {
        webhooks: webhook_sender,
        tokens: token_sender,
        membership: membership_sender,
        names: name_sender,
        webhooks_dropped: AtomicU64::new(0),
        tokens_refused: AtomicU64::new(0),
        membership_refused: AtomicU64::new(0),
        names_refused: AtomicU64::new(0),
    });
    let address = ControlAddress { post: Arc::clone(&post) };
    (address, want, Inbox { webhooks, tokens, membership, names, wanted: Wanted(wanted), post })
}

impl ControlAddress {
    /// Hands a webhook over.
    ///
    /// # Errors
    /// It comes back, to be dropped.
    pub fn webhook(&self, webhook: Webhook) -> Result<(), Refused<Webhook>> {
        send(&self.post.webhooks, webhook, &self.post.webhooks_dropped)
    }

    /// Hands an order about tokens over.
    ///
    /// # Errors
    /// It comes back, and has no answer in the news.
    pub fn tokens(&self, order: TokenOrder) -> Result<(), Refused<TokenOrder>> {
        send(&self.post.tokens, order, &self.post.tokens_refused)
    }

    /// Hands an order about the cluster's records over. It is tried until it is done or pointless.
    ///
    /// # Errors
    /// It comes back: order it again when there may be room, or the thread has no source of members.
    pub fn membership(&self, order: MembershipOrder) -> Result<(), Refused<MembershipOrder>> {
        send(&self.post.membership, order, &self.post.membership_refused)
    }

    /// Has `HOST:PORT` looked up; the answer is [`super::news::News::Name`].
    ///
    /// # Errors
    /// It comes back, and has no answer in the news.
    pub fn look_up(&self, name: String) -> Result<(), Refused<String>> {
        send(&self.post.names, name, &self.post.names_refused)
    }
}

fn send<T>(lane: &mpsc::Sender<T>, order: T, refused: &AtomicU64) -> Result<(), Refused<T>> {
    match lane.try_send(order) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(order)) => {
            refused.fetch_add(1, Ordering::Relaxed);
            Err(Refused::Full(order))
        }
        Err(TrySendError::Closed(order)) => Err(Refused::Closed(order)),
    }
}

impl ControlThread {
    pub(super) fn new(
        wanted: watch::Sender<Want>,
        webhooks: watch::Sender<Hooks>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self { wanted, webhooks, thread }
    }

    /// From now on webhooks go elsewhere; those under way are not disturbed.
    ///
    /// # Errors
    /// The plan cannot be carried out; all is as before.
    pub fn set_webhooks(&self, plan: Option<WebhookPlan>) -> Result<(), ControlFault> {
        let sender = plan.as_ref().map(WebhookSender::new).transpose()?;
        self.webhooks.send_replace(sender.map(Arc::new));
        Ok(())
    }

    /// From now on the node is to be in the registry. Idempotent.
    pub fn register(&self) {
        self.wanted.send_modify(|want| want.registered = true);
    }

    /// From now on the node is not to be in the registry: its keys are deleted. Idempotent; may be taken back.
    pub fn withdraw(&self) {
        self.wanted.send_modify(|want| want.registered = false);
    }

    /// Whether the thread is gone.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread and waits for it: webhooks and token orders that were taken are worked off, leases are revoked
    /// or left, all within `within`. Then what is left is dropped.
    pub fn end(self, leases: Leases, within: Duration) {
        let deadline = Instant::now() + within;
        self.wanted.send_modify(|want| want.end = Some((leases, deadline)));
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

impl Post {
    /// Writes what was refused into the thread's counts.
    pub(super) fn publish(&self, counts: &Counts) {
        counts.set(Metric::WebhooksDropped, self.webhooks_dropped.load(Ordering::Relaxed));
        counts.set(Metric::TokenOrdersRefused, self.tokens_refused.load(Ordering::Relaxed));
        counts.set(Metric::MembershipOrdersRefused, self.membership_refused.load(Ordering::Relaxed));
        counts.set(Metric::NameOrdersRefused, self.names_refused.load(Ordering::Relaxed));
    }
}

impl Wanted {
    /// Waits until the node is wanted in the registry or the thread is to end; whether it is the former.
    pub(super) async fn registered_or_end(&mut self) -> bool {
        let want = self.0.wait_for(|want| want.registered || want.end.is_some()).await;
        want.is_ok_and(|want| want.end.is_none())
    }

    /// Waits until the node is not wanted in the registry or the thread is to end; whether its leases are to be
    /// revoked.
    pub(super) async fn withdrawn_or_end(&mut self) -> Leases {
        let want = self.0.wait_for(|want| !want.registered || want.end.is_some()).await;
        match want.map(|want| want.end) {
            Ok(Some((leases, _))) => leases,
            Ok(None) => Leases::Revoke,
            Err(_) => Leases::Leave,
        }
    }

    /// Waits until the node is wanted in the registry again. Not woken by the end.
    pub(super) async fn registered(&mut self) {
        if self.0.wait_for(|want| want.registered && want.end.is_none()).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the thread is to end; until when. An owner that is gone wants its end now.
    pub(super) async fn end(&mut self) -> Instant {
        let want = self.0.wait_for(|want| want.end.is_some()).await.map(|want| want.end);
        want.ok().flatten().map_or_else(Instant::now, |(_, deadline)| deadline)
    }
}

impl fmt::Debug for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlAddress(..)")
    }
}

impl fmt::Debug for ControlThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlThread(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MEMBERSHIP_ORDERS_MAX, NAME_ORDERS_MAX};
    use crate::placement::view::MemberState;

    #[test]
    fn a_full_lane_gives_orders_back_and_counts_them_and_an_ended_thread_says_so() {
        let (address, _want, mut inbox) = mailbox();
        let order = || MembershipOrder::Record(MemberState::Active);
        for _ in 0..MEMBERSHIP_ORDERS_MAX {
            address.membership(order()).unwrap();
        }
        assert_eq!(address.membership(order()), Err(Refused::Full(order())));
        assert!(inbox.membership.try_recv().is_ok());
        assert_eq!(address.membership(order()), Ok(()));
        for _ in 0..NAME_ORDERS_MAX {
            address.look_up("a:1".to_owned()).unwrap();
        }
        assert_eq!(address.look_up("b:1".to_owned()), Err(Refused::Full("b:1".to_owned())));
        let refused = [&inbox.post.membership_refused, &inbox.post.names_refused];
        assert_eq!(refused.map(|count| count.load(Ordering::Relaxed)), [1, 1]);
        drop((inbox.membership, inbox.names));
        assert_eq!(address.membership(order()), Err(Refused::Closed(order())));
        assert_eq!(address.look_up("b:1".to_owned()), Err(Refused::Closed("b:1".to_owned())));
    }
}
