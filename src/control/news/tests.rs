//! The board of news: what a receiver that refuses gets in the end.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::control::tokens::TokenFault;
use crate::metrics::Block;
use crate::time::{Mono, Now, UnixMs};

/// A board whose receiver has room for so many news.
struct Rig {
    board: Board,
    room: Arc<AtomicUsize>,
    taken: Receiver<News>,
    counts: Counts,
    block: Arc<Block>,
}

fn rig(room: usize) -> Rig {
    let room = Arc::new(AtomicUsize::new(room));
    let (sender, taken) = channel();
    let left = Arc::clone(&room);
    let post: NewsPost = Box::new(move |news| match left.load(Ordering::Relaxed) {
        0 => Err(news),
        some => {
            left.store(some - 1, Ordering::Relaxed);
            sender.send(news).unwrap();
            Ok(())
        }
    });
    let block = Arc::new(Block::default());
    let counts = Counts::new(Arc::clone(&block), || Now { mono: Mono(0), unix: UnixMs(0) });
    Rig { board: Board::new(post, counts.clone()), room, taken, counts, block }
}

impl Rig {
    fn make_room(&self, room: usize) {
        self.room.store(room, Ordering::Relaxed);
    }

    fn taken(&self) -> Vec<News> {
        self.taken.try_iter().collect()
    }

    fn value(&self, metric: Metric) -> u64 {
        self.counts.publish();
        self.block.value(metric)
    }
}

fn endpoints(version: u64) -> Arc<Endpoints> {
    Arc::new(Endpoints { version, addresses: Vec::new() })
}

fn change(payload: &'static str) -> News {
    News::OnlineChange { payload: Bytes::from_static(payload.as_bytes()) }
}

fn answer(question: u64) -> TokenAnswer {
    TokenAnswer { question, states: Err(TokenFault::Failed) }
}

#[test]
fn of_a_level_only_the_newest_is_told() {
    let rig = rig(0);
    for version in 1..=9 {
        rig.board.endpoints(Service::Auth, endpoints(version));
        rig.board.endpoints(Service::Msg, endpoints(version + 10));
        rig.board.registration(RegistrationState::Present);
        rig.board.registration(RegistrationState::Uncertain);
        rig.board.discovery(DiscoveryState::Current);
        rig.board.discovery(DiscoveryState::Stale);
        assert!(!rig.board.offer());
    }
    assert_eq!(rig.value(Metric::NewsDeferred), 9);
    rig.make_room(100);
    assert!(rig.board.offer());
    assert_eq!(
        rig.taken(),
        [
            News::Endpoints { service: Service::Auth, endpoints: endpoints(9) },
            News::Endpoints { service: Service::Msg, endpoints: endpoints(19) },
            News::Discovery(DiscoveryState::Stale),
            News::Registration(RegistrationState::Uncertain),
        ]
    );
    assert!(rig.board.offer());
    assert_eq!(rig.taken(), []);
}

#[test]
fn a_receiver_with_little_room_gets_all_in_order() {
    let rig = rig(0);
    rig.board.resubscribed();
    for payload in ["5:u1", "1:5:u1", "u1"] {
        rig.board.online_change(payload.as_bytes());
    }
    rig.board.answer(answer(7));
    rig.board.answer(answer(8));
    let mut taken = Vec::new();
    while !rig.board.offer() {
        rig.make_room(1);
        taken.extend(rig.taken());
    }
    taken.extend(rig.taken());
    let wanted = [
        News::TokenStates(answer(7)),
        News::TokenStates(answer(8)),
        News::Resubscribed,
        change("5:u1"),
        change("1:5:u1"),
        change("u1"),
    ];
    assert_eq!(taken, wanted);
    assert_eq!(rig.board.answers(), 0);
}

#[test]
fn one_message_too_many_drops_all_that_wait_and_tells_to_ask_anew() {
    let rig = rig(0);
    for _ in 0..ONLINE_CHANGES_MAX {
        rig.board.online_change(b"5:u1");
    }
    assert_eq!(rig.value(Metric::OnlineChangesDropped), 0);
    rig.board.online_change(b"5:last");
    assert_eq!(rig.value(Metric::OnlineChangesDropped), ONLINE_CHANGES_MAX as u64);
    rig.make_room(usize::MAX);
    assert!(rig.board.offer());
    assert_eq!(rig.taken(), [News::Resubscribed, change("5:last")]);
}

#[test]
fn a_message_that_is_too_long_is_dropped_alone() {
    let rig = rig(9);
    rig.board.online_change(&vec![b'a'; ONLINE_CHANGE_BYTES]);
    rig.board.online_change(&vec![b'a'; ONLINE_CHANGE_BYTES + 1]);
    rig.board.offer();
    assert_eq!(rig.taken().len(), 1);
    assert_eq!(rig.value(Metric::OnlineChangesDropped), 1);
}

#[test]
fn a_gap_in_the_subscription_makes_older_messages_void() {
    let rig = rig(0);
    rig.board.resubscribed();
    rig.board.online_change(b"5:before");
    rig.board.subscription_lost();
    rig.make_room(9);
    rig.board.offer();
    assert_eq!(rig.taken(), [News::SubscriptionLost]);
    rig.make_room(0);
    rig.board.online_change(b"5:before");
    rig.board.subscription_lost();
    rig.board.resubscribed();
    rig.board.online_change(b"5:after");
    rig.make_room(9);
    rig.board.offer();
    assert_eq!(rig.taken(), [News::Resubscribed, change("5:after")]);
}

#[test]
fn what_is_refused_is_offered_again_until_it_is_taken() {
    let rig = rig(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    rig.board.registration(RegistrationState::Present);
    let deferred = RefCell::new(0);
    runtime.block_on(async {
        let watch = async {
            while *deferred.borrow() < 3 {
                sleep(Duration::from_millis(1)).await;
                *deferred.borrow_mut() = rig.value(Metric::NewsDeferred);
            }
            rig.make_room(1);
            while rig.room.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = rig.board.offer_always() => {}
        }
    });
    assert_eq!(rig.taken(), [News::Registration(RegistrationState::Present)]);
}

#[test]
fn of_the_membership_the_newest_of_each_kind_waits_and_in_order() {
    use crate::placement::view::{Epoch, Incarnation, View};
    let rig = rig(0);
    let view = |epoch| MembershipNews::View(View::new(Epoch(epoch), Vec::new()));
    let joined =
        MembershipNews::Joined { incarnation: Incarnation(1), first_epoch: Epoch(1), lease_until: Mono(9) };
    for news in [
        joined.clone(),
        view(1),
        MembershipNews::Lease(Mono(10)),
        view(2),
        MembershipNews::Recorded(Epoch(3)),
        MembershipNews::Lease(Mono(20)),
        view(4),
    ] {
        rig.board.membership(news);
        assert!(!rig.board.offer());
    }
    rig.make_room(10);
    assert!(rig.board.offer());
    let wanted = [joined, MembershipNews::Recorded(Epoch(3)), MembershipNews::Lease(Mono(20)), view(4)];
    assert_eq!(rig.taken(), wanted.map(|news| News::Membership(Box::new(news))));
}
