//! What the control thread tells the others, and the board on which news wait for them.
//!
//! Most news are levels: only the newest state counts, so a state that was not yet taken is replaced. What always
//! holds: no state is lost, whatever the receiver refuses and however long; the board is bounded. Messages of
//! `online_change` are the exception: too many that wait are dropped together and stand as one [`News::Resubscribed`],
//! after which the receiver asks anew, as it must after each gap in the subscription.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::counts::Counts;
use super::lookup::NameAnswer;
use super::membership::MembershipNews;
use super::tokens::TokenAnswer;
use crate::backend::openim::Service;
use crate::cluster::endpoints::Endpoints;
use crate::limits::{NEWS_RETRY_MS, ONLINE_CHANGE_BYTES, ONLINE_CHANGES_MAX};
use crate::metrics::Metric;

/// Takes news, or gives them back if there is no room. Called on the control thread; must not wait.
pub type NewsPost = Box<dyn Fn(News) -> Result<(), News> + Send>;

/// What the control thread tells. Closed: a receiver sees all that can come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The believed instances of a service. A level.
    Endpoints {
        /// Whose.
        service: Service,
        /// All of them.
        endpoints: Arc<Endpoints>,
    },
    /// How fresh the endpoints are. A level.
    Discovery(DiscoveryState),
    /// Whether this node is in the registry. A level.
    Registration(RegistrationState),
    /// The subscription to `online_change` is in place; what was published before it, since the last message, was
    /// missed: ask anew for what is cached.
    Resubscribed,
    /// The subscription is broken: messages are being missed until [`News::Resubscribed`]. A level with it.
    SubscriptionLost,
    /// A message of `online_change` (spec 9.2), as it came.
    OnlineChange {
        /// `<platform>:..:<user>`; not checked here.
        payload: Bytes,
    },
    /// The answer to [`super::tokens::TokenOrder::Read`]. Each order that was taken has one.
    TokenStates(TokenAnswer),
    /// What the source of the cluster's members tells. In order; of each kind that waits only the newest.
    Membership(Box<MembershipNews>),
    /// What came of [`super::mailbox::ControlAddress::look_up`].
    Name(NameAnswer),
}

/// How fresh the endpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryState {
    /// Nothing was read yet: the node cannot serve.
    Loading,
    /// All services were read, and changes come as they happen.
    Current,
    /// The registry does not answer: the last known endpoints stand.
    Stale,
}

/// Whether this node is in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationState {
    /// Not there, and not wanted.
    Absent,
    /// There, under a live lease.
    Present,
    /// Wanted and not there, or the registry does not answer: the key may go with its lease.
    Uncertain,
}

/// News that wait, and where they go.
pub(super) struct Board {
    post: NewsPost,
    waiting: RefCell<Waiting>,
    more: Notify,
    answer_taken: Notify,
    counts: Counts,
}

/// The newest of each level, and what is no level.
#[derive(Default)]
struct Waiting {
    endpoints: BTreeMap<Service, Arc<Endpoints>>,
    discovery: Option<DiscoveryState>,
    registration: Option<RegistrationState>,
    /// `Resubscribed` or `SubscriptionLost`. Before all of `online_changes`.
    subscription: Option<News>,
    /// At most `ONLINE_CHANGES_MAX`.
    online_changes: VecDeque<Bytes>,
    /// At most `TOKEN_ORDERS_IN_FLIGHT_MAX`: no further order is taken while there are more.
    answers: VecDeque<TokenAnswer>,
    /// In order, at most one of a kind.
    membership: VecDeque<MembershipNews>,
    /// At most one for each that its reader has ordered and not heard of.
    names: VecDeque<NameAnswer>,
}

impl Board {
    pub(super) fn new(post: NewsPost, counts: Counts) -> Self {
        Self { post, waiting: RefCell::default(), more: Notify::new(), answer_taken: Notify::new(), counts }
    }

    pub(super) fn endpoints(&self, service: Service, endpoints: Arc<Endpoints>) {
        self.put(|waiting| {
            waiting.endpoints.insert(service, endpoints);
        });
    }

    /// Also shown as `pinion_discovery_current`.
    pub(super) fn discovery(&self, state: DiscoveryState) {
        self.counts.set(Metric::DiscoveryCurrent, u64::from(state == DiscoveryState::Current));
        self.put(|waiting| waiting.discovery = Some(state));
    }

    pub(super) fn registration(&self, state: RegistrationState) {
        self.put(|waiting| waiting.registration = Some(state));
    }

    /// The subscription is in place. Messages that still wait are of before the gap, which the receiver's new
    /// questions cover.
    pub(super) fn resubscribed(&self) {
        self.put(|waiting| {
            waiting.online_changes.clear();
            waiting.subscription = Some(News::Resubscribed);
        });
    }

    /// The subscription is broken. A `Resubscribed` that was not yet taken would tell the receiver nothing any more.
    pub(super) fn subscription_lost(&self) {
        self.put(|waiting| {
            waiting.online_changes.clear();
            waiting.subscription = Some(News::SubscriptionLost);
        });
    }

    pub(super) fn online_change(&self, payload: &[u8]) {
        if payload.len() > ONLINE_CHANGE_BYTES {
            return self.counts.count(Metric::OnlineChangesDropped);
        }
        self.put(|waiting| {
            if waiting.online_changes.len() >= ONLINE_CHANGES_MAX {
                let dropped = waiting.online_changes.len() as u64;
                self.counts.add(Metric::OnlineChangesDropped, dropped);
                waiting.online_changes.clear();
                waiting.subscription = Some(News::Resubscribed);
            }
            waiting.online_changes.push_back(Bytes::copy_from_slice(payload));
        });
    }

    /// A later one says all that an earlier one of its kind did: that one goes if it was not taken yet.
    pub(super) fn membership(&self, news: MembershipNews) {
        self.put(|waiting| {
            let kind = std::mem::discriminant(&news);
            waiting.membership.retain(|other| std::mem::discriminant(other) != kind);
            waiting.membership.push_back(news);
        });
    }

    pub(super) fn name(&self, answer: NameAnswer) {
        self.put(|waiting| waiting.names.push_back(answer));
    }

    pub(super) fn answer(&self, answer: TokenAnswer) {
        self.put(|waiting| waiting.answers.push_back(answer));
    }

    /// Answers that wait.
    pub(super) fn answers(&self) -> usize {
        self.waiting.borrow().answers.len()
    }

    /// Waits until an answer was taken.
    pub(super) async fn answer_taken(&self) {
        self.answer_taken.notified().await;
    }

    /// Offers what waits, again and again.
    pub(super) async fn offer_always(&self) {
        loop {
            self.more.notified().await;
            while !self.offer() {
                sleep(Duration::from_millis(NEWS_RETRY_MS)).await;
            }
        }
    }

    /// Offers what waits; whether nothing is left.
    pub(super) fn offer(&self) -> bool {
        loop {
            let next = self.waiting.borrow_mut().take();
            let Some(news) = next else { return true };
            let is_answer = matches!(news, News::TokenStates(_));
            if let Err(news) = (self.post)(news) {
                self.counts.count(Metric::NewsDeferred);
                self.waiting.borrow_mut().put_back(news);
                return false;
            }
            if is_answer {
                self.answer_taken.notify_one();
            }
        }
    }

    fn put(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.borrow_mut());
        self.more.notify_one();
    }
}

impl Waiting {
    /// The next to be offered: answers first, since somebody's deadline runs.
    fn take(&mut self) -> Option<News> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(News::TokenStates(answer));
        }
        if let Some(news) = self.membership.pop_front() {
            return Some(News::Membership(Box::new(news)));
        }
        if let Some(answer) = self.names.pop_front() {
            return Some(News::Name(answer));
        }
        if let Some((service, endpoints)) = self.endpoints.pop_first() {
            return Some(News::Endpoints { service, endpoints });
        }
        let discovery = self.discovery.take().map(News::Discovery);
        discovery
            .or_else(|| self.registration.take().map(News::Registration))
            .or_else(|| self.subscription.take())
            .or_else(|| self.online_changes.pop_front().map(|payload| News::OnlineChange { payload }))
    }

    /// What was taken last was refused. Nothing was put in between: offering does not wait.
    fn put_back(&mut self, news: News) {
        match news {
            News::TokenStates(answer) => self.answers.push_front(answer),
            News::Membership(news) => self.membership.push_front(*news),
            News::Name(answer) => self.names.push_front(answer),
            News::Endpoints { service, endpoints } => {
                self.endpoints.insert(service, endpoints);
            }
            News::Discovery(state) => self.discovery = Some(state),
            News::Registration(state) => self.registration = Some(state),
            News::Resubscribed | News::SubscriptionLost => self.subscription = Some(news),
            News::OnlineChange { payload } => self.online_changes.push_front(payload),
        }
    }
}

#[cfg(test)]
mod tests;
