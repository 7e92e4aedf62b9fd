//! Asks each member now and then how full it is, and whether it takes clients (`pinion.v1.Node/Load`).
//!
//! What always holds: at most one question to a member is open; each has a deadline; a round of many members is spread.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use prost::Message;

use super::Assigner;
use crate::cluster::assign::standing::{Takes, Told};
use crate::config::{RpcConfig, Token};
use crate::limits::{ASSIGN_POLL_ANSWER_MS, ASSIGN_POLL_GAP_MS, ASSIGN_POLL_MS};
use crate::pb::pinion::v1 as pb;
use crate::placement::view::NodeId;
use crate::rpc::client::{CallError, Target, TlsIdentity};
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
    /// As this node's own gRPC port is secured, so are the others'. Reads the files of `rpc.tls_*`.
    ///
    /// # Errors
    /// A file is no good.
    pub fn of(config: &RpcConfig) -> Result<Self, String> {
        let token = config.token.clone();
        let own = config.tls_cert.as_deref().zip(config.tls_key.as_deref());
        Ok(match (&config.tls_client_ca, own) {
            (Some(ca), own) => {
                // The name is each member's own.
                Self { token, tls: Some(TlsIdentity::read("localhost", ca, own)?), off: None }
            }
            (None, Some(_)) => {
                let off = "rpc.tls_cert is set and rpc.tls_client_ca is not: there is no CA to believe other members by";
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

/// Asks for as long as the thread runs.
pub(super) async fn poll_always(assigner: Rc<Assigner>, polling: Polling) {
    if let Some(why) = polling.off {
        tracing::warn!("members are not asked how full they are, and not whether they answer: {why}");
        return;
    }
    let asked: Rc<RefCell<BTreeSet<NodeId>>> = Rc::default();
    loop {
        let round_ends = clock::now().mono.plus_ms(ASSIGN_POLL_MS);
        for (node_id, address, rpc_addr) in assigner.to_ask() {
            if asked.borrow_mut().insert(node_id.clone()) {
                let (assigner, asked) = (Rc::clone(&assigner), Rc::clone(&asked));
                let target = polling.target(address, &rpc_addr);
                monoio::spawn(async move {
                    let answer = match target {
                        Ok(target) => ask(&target, &node_id).await,
                        Err(why) => Err(why),
                    };
                    assigner.hear(&node_id, answer);
                    asked.borrow_mut().remove(&node_id);
                });
            }
            pause(ASSIGN_POLL_GAP_MS).await;
        }
        // At least one: a full round must not follow the last without one.
        pause(round_ends.since_ms(clock::now().mono).max(ASSIGN_POLL_GAP_MS)).await;
    }
}

async fn pause(ms: u64) {
    monoio::time::sleep(Duration::from_millis(ms)).await;
}

/// Asks one.
async fn ask(target: &Target, node_id: &NodeId) -> Result<Told, String> {
    let message = Bytes::from(pb::LoadRequest::default().encode_to_vec());
    let answer = match target.ask(PATH, message, ASSIGN_POLL_ANSWER_MS).await {
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
