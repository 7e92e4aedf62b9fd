//! Requests of one connection: at most one SendMsg waits for upstream, others overlap, the rest waits here, bounded
//! in bytes (architecture.md section 7). Exists only while something is in flight.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::wire::envelope::Request;

/// What a waiting request costs beside its data.
const REQUEST_OVERHEAD_BYTES: usize = 256;

/// See the module's documentation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Requests {
    in_flight: u8,
    send_in_flight: bool,
    waiting: VecDeque<Request>,
    waiting_bytes: usize,
}

/// Whether a request keeps the order of SendMsg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// SendMsg, and the logout behind them: one at a time, in order.
    Serial,
    /// Anything else.
    Free,
}

impl Requests {
    /// Takes a place in flight, or says that the request must wait.
    pub fn start(&mut self, order: Order) -> bool {
        if !self.may_start(order) {
            return false;
        }
        self.in_flight += 1;
        self.send_in_flight |= order == Order::Serial;
        true
    }

    /// Puts a request behind those that wait. `false`: above the limit; the connection ends.
    #[must_use]
    pub fn wait(&mut self, request: Request) -> bool {
        self.waiting_bytes += cost(&request);
        self.waiting.push_back(request);
        self.waiting_bytes <= limits::REQUESTS_WAITING_BYTES_MAX
    }

    /// A reply came, or its deadline passed.
    pub fn finish(&mut self, order: Order) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if order == Order::Serial {
            self.send_in_flight = false;
        }
    }

    /// The first waiting request that may start now; a SendMsg is never overtaken by a later SendMsg.
    pub fn next_ready(&mut self, order_of: impl Fn(&Request) -> Order) -> Option<Request> {
        let position = self.waiting.iter().position(|request| self.may_start(order_of(request)))?;
        let request = self.waiting.remove(position)?;
        self.waiting_bytes -= cost(&request);
        Some(request)
    }

    /// Nothing in flight, nothing waiting.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiting.is_empty()
    }

    fn may_start(&self, order: Order) -> bool {
        self.in_flight < limits::REQUESTS_IN_FLIGHT_MAX && (order == Order::Free || !self.send_in_flight)
    }
}

fn cost(request: &Request) -> usize {
    request.data.len() + request.msg_incr.len() + request.operation_id.len() + REQUEST_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: i32, msg_incr: &str) -> Request {
        Request { id, msg_incr: msg_incr.into(), ..Request::default() }
    }

    fn order_of(request: &Request) -> Order {
        if request.id == 1003 { Order::Serial } else { Order::Free }
    }

    #[test]
    fn sends_keep_their_order_and_others_pass_them() {
        let mut requests = Requests::default();
        assert!(requests.start(Order::Serial));
        assert!(!requests.start(Order::Serial));
        assert!(requests.wait(request(1003, "second")));
        assert!(requests.wait(request(1003, "third")));
        assert!(requests.wait(request(1001, "read")));
        let next = requests.next_ready(order_of).map(|r| r.msg_incr);
        assert_eq!(next.as_deref(), Some("read"));
        requests.finish(Order::Serial);
        assert_eq!(requests.next_ready(order_of).map(|r| r.msg_incr).as_deref(), Some("second"));
    }

    #[test]
    fn at_most_eight_are_in_flight() {
        let mut requests = Requests::default();
        let started = (0..20).filter(|_| requests.start(Order::Free)).count();
        assert_eq!(started, usize::from(limits::REQUESTS_IN_FLIGHT_MAX));
    }

    #[test]
    fn waiting_bytes_are_bounded_at_the_edge() {
        let mut requests = Requests::default();
        let fits = limits::REQUESTS_WAITING_BYTES_MAX / REQUEST_OVERHEAD_BYTES;
        assert!((0..fits).all(|_| requests.wait(request(1003, ""))));
        assert!(!requests.wait(request(1003, "")));
    }
}
