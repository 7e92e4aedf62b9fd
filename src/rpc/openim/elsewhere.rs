//! The other gateways: each hears of every login here, so that its connections of that user fall under the login policy
//! too (spec 4.6, 8.4).
//!
//! Nobody waits for it: it has its deadline, and what fails is counted. A gateway that cannot be reached is left alone
//! by its channel for a while.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use super::super::budget::Ration;
use super::super::channel::{Channel, ChannelCounts, ChannelLimits, ChannelPlan};
use super::{add, call_of};
use crate::backend::openim::calls::Question;
use crate::limits::CHANNEL_INSTANCES_MAX;
use crate::time::Mono;

/// See the module's documentation.
pub(super) struct Elsewhere {
    /// Not told.
    own: SocketAddr,
    limits: ChannelLimits,
    key: [u64; 2],
    ration: Rc<Ration>,
    gateways: RefCell<BTreeMap<SocketAddr, Rc<Channel>>>,
    /// Of gateways that have gone.
    past: RefCell<ChannelCounts>,
}

impl Elsewhere {
    pub(super) fn new(own: SocketAddr, limits: ChannelLimits, key: [u64; 2], ration: Rc<Ration>) -> Self {
        Self { own, limits, key, ration, gateways: RefCell::default(), past: RefCell::default() }
    }

    /// Takes a new snapshot of all gateways, this one among them. More than `CHANNEL_INSTANCES_MAX` are left out.
    pub(super) fn set_endpoints(&self, addresses: &[SocketAddr]) {
        let others: Vec<SocketAddr> =
            addresses.iter().copied().filter(|address| *address != self.own).collect();
        if others.len() > CHANNEL_INSTANCES_MAX {
            let left_out = others.len() - CHANNEL_INSTANCES_MAX;
            tracing::warn!(left_out, "more gateways than are told of logins");
        }
        let others = &others[..others.len().min(CHANNEL_INSTANCES_MAX)];
        let mut gateways = self.gateways.borrow_mut();
        gateways.retain(|address, channel| {
            let stays = others.contains(address);
            if !stays {
                add(&mut self.past.borrow_mut(), &ChannelCounts { ready: 0, ..channel.counts() });
            }
            stays
        });
        for address in others {
            gateways.entry(*address).or_insert_with(|| {
                let seed = self.key[0] ^ u64::from(address.port()).wrapping_mul(self.key[1] | 1);
                let plan =
                    ChannelPlan { service: format!("gateway {address}").into(), seed, limits: self.limits };
                let channel = Channel::new(plan, Rc::clone(&self.ration));
                channel.set_endpoints(&[*address]);
                Rc::new(channel)
            });
        }
    }

    /// Makes a call to each. Gives how many they are.
    pub(super) fn tell(&self, question: &Question, deadline: Mono) -> usize {
        let gateways = self.gateways.borrow();
        for (address, channel) in &*gateways {
            let (address, channel) = (*address, Rc::clone(channel));
            let call = call_of(question.clone(), deadline);
            monoio::spawn(async move {
                if let Err(fault) = channel.call(call).await {
                    tracing::debug!(%address, %fault, "a gateway was not told of a login");
                }
            });
        }
        gateways.len()
    }

    /// Those that can be called now.
    pub(super) fn ready(&self) -> usize {
        self.gateways.borrow().values().map(|channel| channel.counts().ready).sum()
    }

    pub(super) fn counts(&self) -> ChannelCounts {
        let mut sum = *self.past.borrow();
        self.gateways.borrow().values().for_each(|channel| add(&mut sum, &channel.counts()));
        sum
    }
}
