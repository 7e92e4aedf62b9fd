//! Orders of operators that wait for the main thread (`shard::orders`). What always holds: an order that nobody waits
//! for any more leaves nothing behind; there are at most as many as admin connections.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::shard::NodeEvent;
use crate::shard::news::NodeNews;
use crate::shard::orders::Order;

/// What came of an order: a text for whoever ordered it.
pub(super) type Answer = Result<String, String>;

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub(super) struct Orders {
    events: NodeNews,
    waiting: Rc<RefCell<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    tickets: u64,
    places: BTreeMap<u64, Place>,
}

enum Place {
    Awaited(Option<Waker>),
    Here(Answer),
}

impl Orders {
    /// Orders go to `events`.
    pub(super) fn new(events: NodeNews) -> Self {
        Self { events, waiting: Rc::default() }
    }

    /// Hands an order to the main thread. `None`: it takes none.
    pub(super) fn place(&self, order: Order) -> Option<Placed> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.tickets += 1;
        let ticket = waiting.tickets;
        self.events.try_send(NodeEvent::Order { ticket, order }).ok()?;
        waiting.places.insert(ticket, Place::Awaited(None));
        Some(Placed { orders: self.clone(), ticket })
    }

    /// Takes an answer; one that nobody waits for is dropped.
    pub(super) fn answered(&self, ticket: u64, answer: Answer) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(place) = waiting.places.get_mut(&ticket) else { return };
        let waker = match std::mem::replace(place, Place::Here(answer)) {
            Place::Awaited(waker) => waker,
            Place::Here(_) => None,
        };
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// An order that was placed.
pub(super) struct Placed {
    orders: Orders,
    ticket: u64,
}

impl Future for Placed {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut waiting = self.orders.waiting.borrow_mut();
        match waiting.places.remove(&self.ticket) {
            Some(Place::Here(answer)) => Poll::Ready(answer),
            Some(Place::Awaited(_)) | None => {
                waiting.places.insert(self.ticket, Place::Awaited(Some(cx.waker().clone())));
                Poll::Pending
            }
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.orders.waiting.borrow_mut().places.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::news::node_news;

    fn poll(placed: &mut Placed) -> Poll<Answer> {
        Pin::new(placed).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_order_gets_its_answer_and_one_that_was_left_leaves_nothing() {
        let (events, main) = node_news(2).unwrap();
        let orders = Orders::new(events);
        let (mut first, second) =
            (orders.place(Order::Reload).unwrap(), orders.place(Order::Reload).unwrap());
        assert!(orders.place(Order::Reload).is_none(), "main does not hear");
        let tickets: Vec<u64> = std::iter::from_fn(|| main.try_recv().ok())
            .filter_map(|event| match event {
                NodeEvent::Order { ticket, .. } => Some(ticket),
                _ => None,
            })
            .collect();
        assert!(poll(&mut first).is_pending());
        drop(second);
        orders.answered(tickets[1], Ok("late".into()));
        orders.answered(tickets[0], Err("no".into()));
        assert_eq!(poll(&mut first), Poll::Ready(Err("no".into())));
        drop(first);
        assert!(orders.waiting.borrow().places.is_empty());
    }
}
