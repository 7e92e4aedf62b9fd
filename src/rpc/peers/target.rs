//! A peer that this node wants a link with, and where it is: an address, or a name that is looked up at each attempt.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::Inner;
use super::dial::Missed;
use crate::config::Endpoint;
use crate::control::lookup::NameAnswer;
use crate::placement::view::NodeId;
use crate::shard::nudge::Nudge;

/// What to do about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Keep a link.
    Keep,
    /// Make one link: the peer asked for it, and this node's members do not have it.
    Once,
}

/// See the module's documentation.
pub(super) struct Target {
    pub(super) peer: NodeId,
    /// `HOST:PORT`.
    pub(super) address: String,
    duty: Cell<Duty>,
    stopped: Cell<bool>,
    stop: Nudge,
    /// Addresses of a name were asked for, and the answer has not come.
    asked: Cell<bool>,
    found: RefCell<Option<Result<Vec<SocketAddr>, String>>>,
    come: Nudge,
    /// Of several addresses each attempt takes the next one.
    turn: Cell<usize>,
    /// Why the last attempt gave no link.
    missed: RefCell<Option<String>>,
}

impl Target {
    pub(super) fn new(peer: NodeId, address: String, duty: Duty) -> Rc<Self> {
        Rc::new(Self {
            peer,
            address,
            duty: Cell::new(duty),
            stopped: Cell::new(false),
            stop: Nudge::default(),
            asked: Cell::new(false),
            found: RefCell::default(),
            come: Nudge::default(),
            turn: Cell::new(0),
            missed: RefCell::default(),
        })
    }

    /// Dials no more.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.stop.ring();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    pub(super) fn duty(&self) -> Duty {
        self.duty.get()
    }

    /// Its peer is a member now.
    pub(super) fn keep(&self) {
        self.duty.set(Duty::Keep);
    }

    /// Waits so long, or until it is to stop.
    pub(super) async fn pause(&self, ms: u64) {
        // Stopped or not: the caller looks.
        drop(monoio::time::timeout(Duration::from_millis(ms), self.stop.wait()).await);
    }

    /// What came of the last attempt: `None`: a link. The next one is looked up anew.
    pub(super) fn note(&self, missed: Option<String>) {
        if missed.is_none() {
            self.found.replace(None);
        }
        self.missed.replace(missed);
    }

    /// See [`Target::note`].
    pub(super) fn missed(&self) -> Option<String> {
        self.missed.borrow().clone()
    }

    /// An attempt that gave no link, with where it was made.
    pub(super) fn missed_by(&self, text: &str) -> Missed {
        let why = match self.address.as_str() {
            "" => text.to_owned(),
            address => format!("{address}: {text}"),
        };
        Missed { why, code: None }
    }

    /// Where to connect to now, and what its certificate is to be for.
    ///
    /// # Errors
    /// What is wrong with the address, or why the name is not found.
    ///
    /// # Cancel safety
    /// Dropped while it waits, the answer is for the next attempt.
    pub(super) async fn place(&self, inner: &Inner) -> Result<(SocketAddr, ServerName<'static>), String> {
        if let Ok(address) = self.address.parse::<SocketAddr>() {
            return Ok((address, ServerName::IpAddress(address.ip().into())));
        }
        let no_address = "it has no address HOST:PORT: set its cluster.rpc_address, or rpc= in its line of cluster.members";
        let endpoint = Endpoint::parse(&self.address).ok_or(no_address)?;
        let name = ServerName::try_from(endpoint.host).map_err(|_| no_address)?;
        if self.found.borrow().is_none() && !self.asked.get() {
            if !(inner.plan.look_up)(&self.address) {
                return Err("too many names wait to be looked up".to_owned());
            }
            self.asked.set(true);
        }
        let found = loop {
            let found = self.found.borrow_mut().take();
            match found {
                Some(found) => break found,
                None => self.come.wait().await,
            }
        };
        let addresses = found.map_err(|why| format!("the name cannot be looked up: {why}"))?;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let at = turn.checked_rem(addresses.len()).and_then(|n| addresses.get(n).copied());
        Ok((at.ok_or("the name has no address")?, name))
    }

    /// Takes what was found, if it is for this one.
    pub(super) fn looked_up(&self, answer: &NameAnswer) {
        if self.address == answer.name {
            self.asked.set(false);
            self.found.replace(Some(answer.found.clone()));
            self.come.ring();
        }
    }
}
