//! Asks each member now and then how full it is, and whether it takes clients (`pinion.v1.Node/Load`).
//!
//! What always holds: at most one question to a member is open; each has a deadline; a round of many members is spread;
//! the connection to a member is kept for its next question, at most one to each that is asked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use prost::Message;

use super::Assigner;
use crate::cluster::assign::standing::{Takes, Told};
use crate::config::Token;
use crate::config::policy::TlsFiles;
use crate::limits::{ASSIGN_POLL_ANSWER_MS, ASSIGN_POLL_GAP_MS, ASSIGN_POLL_MS};
use crate::pb::pinion::v1 as pb;
use crate::placement::view::NodeId;
use crate::rpc::client::{CallError, Kept, Target, TlsIdentity};
use crate::shard::clock;
use crate::wire::grpc::code;

const PATH: &str = "/pinion.v1.Node/Load";

/// How members are asked.
#[derive(Clone)]
pub struct Polling {
    /// `rpc.token`: that of all members.
    token: Option<Token>,
    tls: Option<TlsIdentity>,
    /// Why nobody is asked.
    off: Option<&'static str>,
}

impl Polling {
    /// As this node's own gRPC port is secured (`rpc.token`, and the files of `rpc.tls_*`), so are the others'. Reads
    /// the files.
    ///
    /// # Errors
    /// A file is no good.
    pub fn of(token: Option<Token>, files: &TlsFiles) -> Result<Self, String> {
        let own = files.own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        Ok(match (&files.authority, own) {
            (Some(ca), own) => {
                // The name is each member's own.
                Self { token, tls: Some(TlsIdentity::read("localhost", ca, own)?), off: None }
            }
            (None, Some(_)) => {
                let off =
                    "rpc.tls_cert is set and rpc.tls_client_ca is not: no CA to believe other members by";
                Self { token, tls: None, off: Some(off) }
            }
            (None, None) => Self { token, tls: None, off: None },
        })
    }

    /// Why members are not asked; `None`: they are.
    pub fn off(&self) -> Option<&'static str> {
        self.off
    }

    fn target(&self, address: SocketAddr, rpc_addr: &str) -> Result<Target, String> {
        let host = rpc_addr.rsplit_once(':').map_or(rpc_addr, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tls = self.tls.as_ref().map(|tls| tls.named(host)).transpose()?;
        Ok(Target { addresses: vec![address], tls, token: self.token.clone() })
    }
}

/// A member to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whom {
    pub(super) node_id: NodeId,
    /// Its `rpc_addr`, looked up.
    pub(super) address: SocketAddr,
    /// As it is registered; its certificate has this name.
    pub(super) rpc_addr: String,
}

/// A connection that waits for the next question.
struct Line {
    whom: Whom,
    polling: Rc<Polling>,
    kept: Kept,
}

/// By member.
type Lines = Rc<RefCell<BTreeMap<NodeId, Line>>>;

/// Asks for as long as the thread runs.
pub(super) async fn poll_always(assigner: Rc<Assigner>) {
    let asked: Rc<RefCell<BTreeSet<NodeId>>> = Rc::default();
    let lines: Lines = Rc::default();
    let mut last: Option<Rc<Polling>> = None;
    loop {
        let round_ends = clock::now().mono.plus_ms(ASSIGN_POLL_MS);
        let polling = assigner.polling();
        let is_news = last.as_ref().is_none_or(|last| !Rc::ptr_eq(last, &polling));
        if let (Some(why), true) = (polling.off, is_news) {
            tracing::warn!("members are not asked how full they are, and not whether they answer: {why}");
        }
        let members = if polling.off.is_none() { assigner.to_ask() } else { Vec::new() };
        lines
            .borrow_mut()
            .retain(|_, line| members.contains(&line.whom) && Rc::ptr_eq(&line.polling, &polling));
        for whom in members {
            if asked.borrow_mut().insert(whom.node_id.clone()) {
                let (assigner, asked, lines) = (Rc::clone(&assigner), Rc::clone(&asked), Rc::clone(&lines));
                let polling = Rc::clone(&polling);
                monoio::spawn(async move {
                    let answer = ask(&polling, &whom, &lines).await;
                    assigner.hear(&whom.node_id, answer);
                    asked.borrow_mut().remove(&whom.node_id);
                });
            }
            pause(ASSIGN_POLL_GAP_MS).await;
        }
        last = Some(polling);
        // At least one: a full round must not follow the last without one.
        pause(round_ends.since_ms(clock::now().mono).max(ASSIGN_POLL_GAP_MS)).await;
    }
}

async fn pause(ms: u64) {
    monoio::time::sleep(Duration::from_millis(ms)).await;
}

/// Asks one, on the connection of the last question if that still holds.
async fn ask(polling: &Rc<Polling>, whom: &Whom, lines: &Lines) -> Result<Told, String> {
    let target = polling.target(whom.address, &whom.rpc_addr)?;
    let message = Bytes::from(pb::LoadRequest::default().encode_to_vec());
    let kept = lines.borrow_mut().remove(&whom.node_id).map(|line| line.kept);
    let answer = match kept {
        Some(kept) => match kept.ask(&target, PATH, &message, ASSIGN_POLL_ANSWER_MS).await {
            // It ended since the last question, which says nothing about the member.
            Err(CallError::Closed(..) | CallError::Protocol(_) | CallError::Tls(..)) => None,
            answer => Some((kept, answer)),
        },
        None => None,
    };
    let (kept, answer) = match answer {
        Some(found) => found,
        None => {
            let kept = target.keep(ASSIGN_POLL_ANSWER_MS).await.map_err(|error| error.to_string())?;
            let answer = kept.ask(&target, PATH, &message, ASSIGN_POLL_ANSWER_MS).await;
            (kept, answer)
        }
    };
    if matches!(answer, Ok(_) | Err(CallError::Refused(_))) {
        let line = Line { whom: whom.clone(), polling: Rc::clone(polling), kept };
        lines.borrow_mut().insert(whom.node_id.clone(), line);
    }
    told(&whom.node_id, answer)
}

/// What a member's answer says.
fn told(node_id: &NodeId, answer: Result<Bytes, CallError>) -> Result<Told, String> {
    let answer = match answer {
        Ok(answer) => answer,
        // An older version: it is there, and that is all that is known.
        Err(CallError::Refused(status)) if status.code == code::UNIMPLEMENTED => {
            return Ok(Told { connections: 0, connections_max: 0, takes: Takes::Clients });
        }
        Err(error) => return Err(error.to_string()),
    };
    let load = pb::LoadResponse::decode(answer).map_err(|error| error.to_string())?;
    if !load.node_id.is_empty() && load.node_id != node_id.as_str() {
        return Err(format!("{} answers at its address", load.node_id));
    }
    let takes = if load.ready { Takes::Clients } else { Takes::Nobody };
    Ok(Told { connections: load.connections, connections_max: load.connections_max, takes })
}
