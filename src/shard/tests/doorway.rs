//! The door's deadlines, with a clock that the test chooses.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use crate::admission::Admission;
use crate::ids::{Ownership, ShardId};
use crate::limits::{HEAD_DEADLINE_MS, LINGER_MS};
use crate::metrics::{Metric, Tally};
use crate::session::handshake::origin::Proxies;
use crate::session::handshake::{Rules, Strictness};
use crate::shard::clock;
use crate::shard::door::{Door, DoorPlan, Guest, Place};
use crate::shard::head;
use crate::shard::nudge::Nudge;
use crate::shard::pulse::Pulse;
use crate::shard::socket::Socket;
use crate::shard::thread::{block_on, tests::drivers};
use crate::shard::turn::Turns;
use crate::wire::compat::Compat;

fn door(admission: &Arc<Admission>) -> Rc<Door> {
    let plan = DoorPlan {
        me: ShardId(0),
        ownership: Ownership::new([1, 2], 1),
        shards: Vec::new(),
        admission: Arc::clone(admission),
        pulse: Arc::new(Pulse::default()),
        rules: Cell::new(Rules { compat: Compat::Main, strictness: Strictness::Strict }),
        proxies: Proxies::NONE,
        handshakes_max: Cell::new(10),
    };
    Rc::new(Door::new(plan, Nudge::default()))
}

fn guest(admission: &Arc<Admission>) -> (TcpStream, Guest) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, peer) = listener.accept().unwrap();
    let socket = Rc::new(Socket::adopt(far).unwrap());
    (near, Guest { socket, peer, client: peer, place: Place::take(admission) })
}

/// Waits until no handshake is open, or fails after a minute.
async fn all_gone(door: &Door, turns: &Turns) {
    let start = clock::now().mono;
    while door.handshakes() > 0 {
        turns.turn().await;
        assert!(clock::now().mono.since_ms(start) < 60_000, "a handshake does not end");
    }
}

/// A client that sends a byte now and then must not keep its descriptor for ever; nor may one that was refused and
/// never closes.
#[test]
fn a_slow_head_gets_408_and_a_lingering_client_is_closed_at_its_deadline() {
    for driver in drivers() {
        block_on(driver, |turns| async move {
            let admission = Arc::new(Admission::new(10));
            let door = door(&admission);
            let (mut near, guest) = guest(&admission);
            head::greet(&door, guest);
            near.write_all(b"GET / HT").unwrap();
            let start = clock::now().mono;
            door.expire(start.plus_ms(HEAD_DEADLINE_MS / 2));
            turns.turn().await;
            assert_eq!(door.handshakes(), 1, "{driver:?}: not yet");
            door.expire(start.plus_ms(HEAD_DEADLINE_MS + 1));
            let mut answer = [0; 12];
            near.set_nonblocking(true).unwrap();
            while near.read(&mut answer).is_err() {
                turns.turn().await;
                assert!(clock::now().mono.since_ms(start) < 60_000, "{driver:?}: no answer");
            }
            assert_eq!(&answer, b"HTTP/1.1 408", "{driver:?}");
            // It keeps its side open. Reading had ended with the deadline, so it may be gone already.
            door.expire(clock::now().mono.plus_ms(LINGER_MS + 1));
            all_gone(&door, &turns).await;
            assert_eq!((door.handshakes(), admission.open()), (0, 0), "{driver:?}");
            let mut tally = Tally::default();
            door.move_counts(&mut tally);
            assert_eq!(tally.value(Metric::HandshakeTooSlow), 1);
        });
    }
}

#[test]
fn a_refused_client_that_does_not_close_is_closed_after_a_while() {
    for driver in drivers() {
        block_on(driver, |turns| async move {
            let admission = Arc::new(Admission::new(10));
            let door = door(&admission);
            let (near, guest) = guest(&admission);
            head::refuse(&door, guest, head::No::busy());
            turns.turn().await;
            turns.turn().await;
            assert_eq!((door.handshakes(), admission.open()), (1, 1), "{driver:?}: it may still read");
            door.expire(clock::now().mono.plus_ms(LINGER_MS + 1));
            all_gone(&door, &turns).await;
            assert_eq!((door.handshakes(), admission.open()), (0, 0), "{driver:?}");
            drop(near);
        });
    }
}
