//! The members that a running node knows, for `pinion route`: `GET /v1/cluster`, read into the list that a file
//! would have.
//!
//! What of the answer is not about members is skipped, so that nodes of other versions can be compared as well.

use serde::Deserialize;

use super::super::admin::{Failed, Gateway, parse};
use crate::cluster::members::{MemberList, Scheme};
use crate::placement::view::NodeId;
use crate::placement::{Algorithm, RingKeys};

const PATH: &str = "/v1/cluster";
const RING: &str = "ring ";
const RENDEZVOUS: &str = "rendezvous";

/// What a node says of the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Who says it.
    pub(super) node: String,
    /// Of its view; a node of a lower epoch is behind.
    pub(super) epoch: u64,
    /// Of the placement it acts by, as it says itself.
    fingerprint: String,
    /// How it answers OpenIM's push service.
    push_mode: String,
    /// Members whose connections it cannot ask for now.
    unlinked: Vec<String>,
    /// Its members.
    pub(super) list: MemberList,
}

#[derive(Deserialize)]
struct Answer {
    node_id: String,
    epoch: u64,
    #[serde(default)]
    push_mode: String,
    placement: Placed,
    #[serde(default)]
    unlinked: Vec<String>,
    members: Vec<Listed>,
}

#[derive(Deserialize)]
struct Placed {
    algorithm: String,
    version: String,
    fingerprint: String,
}

#[derive(Deserialize)]
struct Listed {
    node_id: String,
    state: String,
    weight: u16,
    #[serde(default)]
    ws_url: String,
    #[serde(default)]
    rpc_addr: String,
    #[serde(default)]
    labels: Vec<(String, String)>,
}

impl Listed {
    /// As a line of a file; `hashed` is what its ring hashes.
    fn line(&self, hashed: &str) -> String {
        let Self { node_id, state, weight, ws_url, rpc_addr, labels } = self;
        let named = [("ws", ws_url), ("rpc", rpc_addr)].into_iter().filter(|(_, value)| !value.is_empty());
        let named = named.map(|(name, value)| format!(" {name}={value}"));
        let labels = labels.iter().map(|(name, value)| format!(" label.{name}={value}"));
        let more: String = named.chain(labels).collect();
        format!("{hashed} node={node_id} weight={weight} state={state}{more}")
    }
}

/// The host and port of an argument that names a node and not a file.
pub(super) fn host_of(argument: &str) -> Option<&str> {
    let rest = argument.strip_prefix("http://")?;
    Some(rest.split('/').next().unwrap_or(rest))
}

/// Asks the node at `host`. The error says what to do.
pub(super) fn ask(host: &str, token: Option<&String>) -> Result<Seen, String> {
    if host.is_empty() {
        return Err("http://: write http://HOST:PORT, the admin port of a node (http.listen)".to_owned());
    }
    let gateway = Gateway::at(host, token);
    let text = gateway.get(PATH).map_err(|failed| match failed {
        Failed::Unreachable(host, why) => format!(
            "http://{host}: no gateway answers: {why}; is it running, and is this its admin port (http.listen)?"
        ),
        Failed::Refused(why) => {
            let hint = if why.contains("token") { " (--token gives http.token)" } else { "" };
            format!("http://{host}: the gateway refuses: {why}{hint}")
        }
        Failed::Strange(why) => {
            format!("http://{host}: {why} ({PATH}); another version, or no pinion? write its members into a file")
        }
    })?;
    read(&text).map_err(|why| format!("http://{host}: {why}"))
}

/// Reads an answer.
fn read(text: &str) -> Result<Seen, String> {
    let answer: Answer = parse(text).map_err(|failed| failed.to_string())?;
    if answer.members.is_empty() {
        return Err(format!(
            "{} has not read the members yet; its /readyz says what it waits for",
            answer.node_id
        ));
    }
    let algorithm = algorithm(&answer.placement)?;
    let mut members = answer.members;
    // As `Placement` orders the members of a ring, where of equal points the last one counts.
    members.sort_by(|a, b| (a.node_id.len(), &a.node_id).cmp(&(b.node_id.len(), &b.node_id)));
    let mut list = MemberList { scheme: Scheme::of(&algorithm), members: Vec::new() };
    for member in members {
        let node_id = &member.node_id;
        let hashed = match &algorithm {
            Algorithm::Rendezvous => node_id.clone(),
            Algorithm::OpenImRing(keys) => {
                keys.string(&NodeId::new(node_id).map_err(|why| format!("member {node_id:?}: {why}"))?)
            }
        };
        list.take(&member.line(&hashed)).map_err(|why| format!("member {node_id:?}: {why}"))?;
    }
    Ok(Seen {
        node: answer.node_id,
        epoch: answer.epoch,
        fingerprint: answer.placement.fingerprint,
        push_mode: answer.push_mode,
        unlinked: answer.unlinked,
        list,
    })
}

fn algorithm(placed: &Placed) -> Result<Algorithm, String> {
    let Placed { algorithm: text, version, .. } = placed;
    let ring = || RingKeys::parse(text.strip_prefix(RING)?).map(Algorithm::OpenImRing);
    let found = if text == RENDEZVOUS { Some(Algorithm::Rendezvous) } else { ring() };
    found.filter(|algorithm| algorithm.name() == version).ok_or_else(|| {
        format!("it places by {text:?} ({version}), which this version of pinion does not know; use that node's own")
    })
}

/// What two nodes say beside their members, and what that means for `elsewhere` users that differ.
pub(super) fn compared(a: &Seen, b: &Seen, elsewhere: usize) -> String {
    let mut said = String::new();
    if a.epoch != b.epoch {
        let (behind, newer) = if a.epoch < b.epoch { (a, b) } else { (b, a) };
        said += &format!(
            "{} acts by view {}, {} by view {}: {} has not heard of the change yet, or cannot reach the source\n",
            newer.node, newer.epoch, behind.node, behind.epoch, behind.node
        );
    }
    if a.list.scheme != b.list.scheme {
        said += &format!(
            "{} and {} need the same cluster.placement, as all nodes of a cluster\n",
            a.node, b.node
        );
    }
    if a.push_mode != b.push_mode {
        said += &format!(
            "{} has cluster.push_mode {}, {} has {}: set the one that OpenIM's push service uses on both\n",
            a.node, a.push_mode, b.node, b.push_mode
        );
    }
    for (seen, other) in [(a, b), (b, a)] {
        if seen.unlinked.contains(&other.node) {
            said += &format!("{} is not linked to {}: pushes are not complete\n", seen.node, other.node);
        }
    }
    if (a.fingerprint == b.fingerprint) != (elsewhere == 0) {
        said += &format!(
            "their fingerprints are {} and {}: one of them changed its view while it was asked; ask again\n",
            a.fingerprint, b.fingerprint
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn answer(epoch: u64, algorithm: &str, nodes: &[(&str, &str)]) -> String {
        let members: Vec<String> = nodes
            .iter()
            .map(|(node, state)| {
                format!("{{\"node_id\":{node:?},\"state\":{state:?},\"weight\":100,\"x\":1}}")
            })
            .collect();
        let version = if algorithm == RENDEZVOUS { "rendezvous/1" } else { "openim-ring/1" };
        format!(
            "{{\"node_id\":\"n1\",\"epoch\":{epoch},\"later\":[],\"push_mode\":\"local\",\"placement\":\
             {{\"algorithm\":{algorithm:?},\"version\":{version:?},\"fingerprint\":\"aa\"}},\"members\":[{}]}}",
            members.join(",")
        )
    }

    /// A node that answers so once; its host and port.
    fn serving(status: &'static str, body: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answer = move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let n = socket.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /v1/cluster HTTP/1.1\r\n"));
            socket.write_all(format!("HTTP/1.1 {status}\r\n\r\n{body}").as_bytes()).unwrap();
        };
        std::thread::Builder::new().spawn(answer).unwrap();
        host
    }

    #[test]
    fn a_node_tells_what_a_file_would() {
        let seen = read(&answer(7, RENDEZVOUS, &[("n2", "active"), ("n1", "draining")])).unwrap();
        assert_eq!((seen.node.as_str(), seen.epoch), ("n1", 7));
        let file = "n1 weight=100 state=draining\nn2 weight=100\n";
        assert_eq!(seen.list, MemberList::parse(file).unwrap());
        let told = answer(7, RENDEZVOUS, &[("n1", "active")]).replace(
            "\"x\":1",
            "\"ws_url\":\"wss://n1.it\",\"rpc_addr\":\"10.0.0.7:10140\",\"labels\":[[\"region\",\"eu\"]]",
        );
        let file = "n1 weight=100 ws=wss://n1.it rpc=10.0.0.7:10140 label.region=eu\n";
        assert_eq!(read(&told).unwrap().list, MemberList::parse(file).unwrap());
        // Pod 2 comes before pod 10, and what is hashed is not the id.
        let ring =
            read(&answer(7, "ring {node_id}.svc:88", &[("g-10", "active"), ("g-2", "active")])).unwrap();
        let file = "placement openim-ring\ng-2.svc:88 node=g-2\ng-10.svc:88 node=g-10\n";
        assert_eq!(ring.list, MemberList::parse(file).unwrap());
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        for (text, said) in [
            (answer(1, RENDEZVOUS, &[]), "n1 has not read the members yet"),
            (answer(1, "maglev", &[("n1", "active")]), "places by \"maglev\""),
            (answer(1, RENDEZVOUS, &[]).replace("members", "nodes"), "not understood"),
            (answer(1, RENDEZVOUS, &[("n1", "active")]).replace("us/1", "us/2"), "(rendezvous/2), which"),
            (answer(1, RENDEZVOUS, &[("n1", "asleep")]), "member \"n1\": state=asleep"),
            (answer(1, RENDEZVOUS, &[("n1", "active"), ("n1", "lost")]), "member \"n1\""),
            ("7".to_owned(), "not understood"),
        ] {
            let why = read(&text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }

    #[test]
    fn a_node_that_does_not_answer_is_named() {
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let why = ask(&host, None).unwrap_err();
        assert!(why.contains(&host) && why.contains("no gateway answers"), "{why}");
        for (status, body, said) in [
            ("404 Not Found", "try one of /v1/who\n", "another version, or no pinion"),
            ("403 Forbidden", "403: a token is needed\n", "--token gives http.token"),
            ("409 Conflict", "this node is alone\n", "refuses: this node is alone"),
            ("200 OK", "{}", "not understood"),
        ] {
            let host = serving(status, body.to_owned());
            let why = ask(&host, None).unwrap_err();
            assert!(why.contains(said) && why.contains(&host), "{status}: {why}");
        }
        let host = serving("200 OK", answer(3, RENDEZVOUS, &[("n1", "active")]));
        assert_eq!(ask(&host, None).unwrap().epoch, 3);
        assert!(ask("", None).unwrap_err().contains("write http://HOST:PORT"));
    }

    #[test]
    fn who_is_behind_is_said() {
        let seen = |node: &str, epoch, fingerprint: &str| Seen {
            node: node.to_owned(),
            fingerprint: fingerprint.to_owned(),
            ..read(&answer(epoch, RENDEZVOUS, &[("n1", "active")])).unwrap()
        };
        let mut behind = seen("n2", 7, "bb");
        let said = compared(&seen("n1", 9, "aa"), &behind, 3);
        assert!(said.starts_with("n1 acts by view 9, n2 by view 7: n2 has not heard"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        behind.push_mode = "route".to_owned();
        behind.unlinked = vec!["n1".to_owned()];
        let said = compared(&behind, &seen("n1", 7, "aa"), 3);
        assert_eq!(
            said,
            "n2 has cluster.push_mode route, n1 has local: set the one that OpenIM's push service uses on both\n\
             n2 is not linked to n1: pushes are not complete\n"
        );
        assert_eq!(compared(&seen("n1", 9, "aa"), &seen("n2", 9, "aa"), 0), "");
        let mut ring = seen("n2", 9, "bb");
        ring.list.scheme = Scheme::OpenImRing;
        assert!(
            compared(&seen("n1", 9, "aa"), &ring, 3).starts_with("n1 and n2 need the same cluster.placement")
        );
        assert!(compared(&seen("n1", 9, "aa"), &seen("n2", 9, "aa"), 1).contains("ask again"));
    }

    #[test]
    fn a_url_names_a_node() {
        for (argument, host) in [
            ("http://127.0.0.1:12140", Some("127.0.0.1:12140")),
            ("http://[::1]:1/", Some("[::1]:1")),
            ("members", None),
            ("127.0.0.1:12140", None),
        ] {
            assert_eq!(host_of(argument), host, "{argument}");
        }
    }
}
