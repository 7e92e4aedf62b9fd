//! The listener that clients reach: one request after the other on a connection, each bounded in bytes and time.
//!
//! What is answered is the `Site`'s business. What always holds: a connection owns a few KiB at most; a head that
//! does not come, an answer that is not taken and a connection without requests each end at a deadline; whoever sends
//! much has a turn between two requests, like everybody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

use super::head::{self, Head, HeadFault};
use super::reply::{Part, Reply, Then};
use crate::limits::{
    ACCEPT_PAUSE_MS, ASSIGN_ADDRESS_CONNECTIONS_MAX, ASSIGN_CONNECTIONS_MAX, ASSIGN_HEAD_MS, ASSIGN_IDLE_MS,
    ASSIGN_REQUESTS_MAX, ASSIGN_WRITE_MS, LINGER_BYTES, LINGER_MS,
};
use crate::rpc::bounded::{Bounded, Bounds, Excess};
use crate::shard::clock;
use crate::shard::turn::Turns;

/// One read: more than a head of today's browsers has.
const READ_BYTES: usize = 2 * 1024;

/// Who answers.
pub(super) trait Site {
    /// To a request.
    fn answer(&self, head: &Head, peer: IpAddr) -> Reply;
    /// To what is no request. The connection ends.
    fn refuse(&self, fault: HeadFault) -> Reply;
    /// What happens to connections.
    fn note(&self, event: Event);
    /// Whether many clients may come from this address.
    fn is_shared(&self, address: IpAddr) -> bool;
    /// Whether it accepts no more.
    fn has_ended(&self) -> bool;
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// So many are open now.
    Open(usize),
    /// One was closed at accept: there are `ASSIGN_CONNECTIONS_MAX`.
    Full,
    /// One was closed at accept: its address has `ASSIGN_ADDRESS_CONNECTIONS_MAX`.
    AddressFull,
    /// One was cut: it did not take its answer.
    Cut,
}

/// Open connections.
#[derive(Default)]
struct Places {
    open: usize,
    addresses: BTreeMap<IpAddr, usize>,
}

/// Accepts until the listener is shut down.
pub(super) async fn accept(listener: StdTcpListener, site: Rc<dyn Site>, turns: Turns) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the assign listener cannot be used");
            return;
        }
    };
    let places: Rc<RefCell<Places>> = Rc::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match Place::take(&places, &site, peer) {
                Ok(place) => {
                    let (site, turns) = (Rc::clone(&site), turns.clone());
                    monoio::spawn(async move {
                        serve(stream, place.address, &*site, &turns).await;
                        drop(place);
                    });
                }
                Err(why) => site.note(why),
            },
            Err(_) if site.has_ended() => return,
            Err(error) => {
                tracing::warn!(%error, "assign accept");
                monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
        turns.turn().await;
    }
}

/// A counted connection.
struct Place {
    places: Rc<RefCell<Places>>,
    site: Rc<dyn Site>,
    address: IpAddr,
}

impl Place {
    fn take(places: &Rc<RefCell<Places>>, site: &Rc<dyn Site>, peer: SocketAddr) -> Result<Self, Event> {
        let address = peer.ip().to_canonical();
        let mut state = places.borrow_mut();
        if state.open >= ASSIGN_CONNECTIONS_MAX {
            return Err(Event::Full);
        }
        let of_address = state.addresses.get(&address).copied().unwrap_or(0);
        if of_address >= ASSIGN_ADDRESS_CONNECTIONS_MAX && !site.is_shared(address) {
            return Err(Event::AddressFull);
        }
        state.open += 1;
        state.addresses.insert(address, of_address + 1);
        site.note(Event::Open(state.open));
        Ok(Self { places: Rc::clone(places), site: Rc::clone(site), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.borrow_mut();
        state.open = state.open.saturating_sub(1);
        match state.addresses.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(state.addresses.remove(&self.address)),
        }
        self.site.note(Event::Open(state.open));
    }
}

/// Requests of one connection, one after the other.
async fn serve(stream: TcpStream, peer: IpAddr, site: &dyn Site, turns: &Turns) {
    let bounds = Bounds::new(usize::MAX, clock::now().mono.plus_ms(ASSIGN_IDLE_MS));
    let mut stream = Bounded::new(stream, Rc::clone(&bounds));
    let mut received = Vec::new();
    for number in 1..=ASSIGN_REQUESTS_MAX {
        let (reply, part, then) = match next_head(&mut stream, &bounds, &mut received).await {
            Ok(None) => return,
            Ok(Some(head)) => {
                let stays = head.persists && number < ASSIGN_REQUESTS_MAX && !site.has_ended();
                (
                    site.answer(&head, peer),
                    Part::of(head.method),
                    if stays { Then::Stay } else { Then::Close },
                )
            }
            Err(fault) => (site.refuse(fault), Part::Whole, Then::Close),
        };
        bounds.extend(clock::now().mono.plus_ms(ASSIGN_WRITE_MS));
        let (written, _) = stream.write_all(reply.bytes(part, then)).await;
        if let Err(error) = written {
            if bounds.excess() == Some(Excess::TooSlow) {
                site.note(Event::Cut);
            }
            tracing::debug!(%peer, %error, "assign answer");
            return;
        }
        if then == Then::Close {
            return linger(stream, &bounds).await;
        }
        turns.turn().await;
    }
}

/// The next head; `None`: the client has closed, or asks nothing more.
async fn next_head(
    stream: &mut Bounded,
    bounds: &Bounds,
    received: &mut Vec<u8>,
) -> Result<Option<Head>, HeadFault> {
    let mut begun = !received.is_empty();
    bounds.extend(clock::now().mono.plus_ms(if begun { ASSIGN_HEAD_MS } else { ASSIGN_IDLE_MS }));
    loop {
        if let Some((head, length)) = head::parse(received)? {
            received.drain(..length);
            return Ok(Some(head));
        }
        let (read, chunk) = stream.read(Vec::with_capacity(READ_BYTES)).await;
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => received.extend_from_slice(&chunk),
            Err(_) if begun && bounds.excess() == Some(Excess::TooSlow) => return Err(HeadFault::TooSlow),
            Err(_) => return Ok(None),
        }
        if !begun {
            begun = true;
            bounds.extend(clock::now().mono.plus_ms(ASSIGN_HEAD_MS));
        }
    }
}

/// A socket closed with unread bytes sends a reset, which takes the answer away from the client.
async fn linger(mut stream: Bounded, bounds: &Bounds) {
    if stream.shutdown().await.is_err() {
        return;
    }
    bounds.extend(clock::now().mono.plus_ms(LINGER_MS));
    let mut budget = LINGER_BYTES;
    let mut scratch = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, buffer) = stream.read(scratch).await;
        scratch = buffer;
        match read {
            Ok(n) if n > 0 && n <= budget => budget -= n,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Believes one proxy, and keeps what it is told.
    #[derive(Default)]
    struct Noted(RefCell<Vec<Event>>);

    const PROXY: [u8; 4] = [10, 9, 9, 9];

    impl Site for Noted {
        fn answer(&self, _: &Head, _: IpAddr) -> Reply {
            unreachable!("nobody asks")
        }

        fn refuse(&self, _: HeadFault) -> Reply {
            unreachable!("nobody asks")
        }

        fn note(&self, event: Event) {
            self.0.borrow_mut().push(event);
        }

        fn is_shared(&self, address: IpAddr) -> bool {
            address == IpAddr::from(PROXY)
        }

        fn has_ended(&self) -> bool {
            false
        }
    }

    #[test]
    fn an_address_and_all_together_have_so_many_connections() {
        let noted = Rc::new(Noted::default());
        let site: Rc<dyn Site> = Rc::<Noted>::clone(&noted);
        let places: Rc<RefCell<Places>> = Rc::default();
        let take = |ip: IpAddr| Place::take(&places, &site, SocketAddr::new(ip, 1));
        let one = IpAddr::from([10, 0, 0, 1]);
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let mut held: Vec<Place> = (0..ASSIGN_ADDRESS_CONNECTIONS_MAX)
            .map(|_| take(one).unwrap_or_else(|e| panic!("{e:?}")))
            .collect();
        assert_eq!(take(one).err(), Some(Event::AddressFull));
        assert_eq!(take(mapped).err(), Some(Event::AddressFull), "the same address");
        drop(held.pop());
        held.extend(take(one));
        let rest = ASSIGN_CONNECTIONS_MAX - ASSIGN_ADDRESS_CONNECTIONS_MAX;
        held.extend((0..rest).map(|_| take(PROXY.into()).unwrap_or_else(|e| panic!("{e:?}"))));
        assert_eq!(take([10, 0, 0, 2].into()).err(), Some(Event::Full));
        drop(held);
        assert_eq!(noted.0.borrow().last(), Some(&Event::Open(0)));
        assert!(places.borrow().addresses.is_empty(), "nothing is left of them");
    }
}
