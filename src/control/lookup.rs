//! Names that rpc thread 0 dials: it must not wait for a resolver, so it orders a look-up here and hears what came of
//! it.
//!
//! What always holds: each order that was taken has one answer, unless the thread ends first; nothing is remembered
//! from one order to the next; look-ups that hang do not keep other parts of the thread from theirs.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::counts::Counts;
use super::news::Board;
use crate::limits::{CONTROL_CALL_MS, LOOKUPS_IN_FLIGHT_MAX};
use crate::metrics::Metric;

/// What came of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAnswer {
    /// As it was asked: `HOST:PORT`.
    pub name: String,
    /// At least one address, or why there is none.
    pub found: Result<Vec<SocketAddr>, String>,
}

/// Answers until the thread ends.
pub(super) async fn answer_always(mut orders: mpsc::Receiver<String>, board: &Board, counts: &Counts) {
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    loop {
        tokio::select! {
            order = orders.recv(), if open && under_way.len() < LOOKUPS_IN_FLIGHT_MAX => match order {
                Some(name) => under_way.push(answer(name)),
                None => open = false,
            },
            Some(answer) = under_way.next(), if !under_way.is_empty() => {
                if answer.found.is_err() {
                    counts.count(Metric::PeerNameFailures);
                }
                board.name(answer);
            }
            else => std::future::pending().await,
        }
    }
}

async fn answer(name: String) -> NameAnswer {
    let found = look_up(&name).await;
    NameAnswer { name, found }
}

/// All addresses of a name, at least one, each once.
///
/// # Errors
/// Why there is none.
pub(super) async fn look_up(name: &str) -> Result<Vec<SocketAddr>, String> {
    match timeout(Duration::from_millis(CONTROL_CALL_MS), lookup_host(name)).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<SocketAddr> = found.collect();
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {CONTROL_CALL_MS} ms")),
    }
}
