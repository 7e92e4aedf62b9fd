//! Links between nodes over mutual TLS.

use std::path::Path;

use super::channel::until;
use super::peers::{Peer, large, on_each, until_up};
use super::*;
use crate::cluster::protocol::frame::Body;
use crate::config::authority::{Authority, When};
use crate::config::peer_tls::PeerTls;
use crate::config::tls::Tls;
use crate::control::lookup::NameAnswer;
use crate::shard::turn::Turns;

const NAME: &str = "nodes.internal";

/// A node's certificate by that authority, which it also asks of its callers and believes.
fn config_by(authority: &Authority, folder: &Path) -> Config {
    let mut config = config();
    let (cert, key) = authority.write_pair(folder, "node", &[NAME], When::Now);
    config.rpc.tls_cert = Some(cert);
    config.rpc.tls_key = Some(key);
    config.rpc.tls_client_ca = Some(authority.write(folder, "nodes"));
    config.rpc.tls = Some(Tls::read(&config.rpc).unwrap());
    config.cluster.peer_name = Some(NAME.to_owned());
    config
}

fn start(name: &str, turns: &Turns, config: &Config) -> Peer {
    Peer::start_with(name, turns, config, "127.0.0.1:0".parse().unwrap())
}

#[test]
fn nodes_of_one_authority_link_and_others_do_not() {
    on_each(async |turns: Turns| {
        let dir = tempfile::tempdir().unwrap();
        let (folder, other) = (dir.path().join("ours"), dir.path().join("other"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&other).unwrap();
        let ours = Authority::new("nodes", When::Now);
        let good = config_by(&ours, &folder);
        let (a, b) = (start("a", &turns, &good), start("b", &turns, &good));
        a.dial(&[&b]);
        until_up(&a, &b).await;
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.send(to, large(1_000_000));
            from.send(to, Body::Beat(1));
            until("it carries", || to.bodies(from).last() == Some(&Body::Beat(1))).await;
        }
        // Certificates of somebody else, another name, and none.
        let stranger = config_by(&Authority::new("stranger", When::Now), &other);
        let mut misnamed = good.clone();
        misnamed.cluster.peer_name = None;
        let strangers = [stranger, misnamed, config()].map(|config| start("aa", &turns, &config));
        for (stranger, text) in strangers.iter().zip(["cluster.peer_ca", "cluster.peer_ca", "rpc.tls_*"]) {
            stranger.dial(&[&b]);
            stranger.until_refused(text).await;
        }
        assert_eq!(b.links.up(), 1);
        strangers[0].links.adopt(None, PeerTls::of(&good).unwrap());
        until_up(&strangers[0], &b).await;
    });
}

#[test]
fn without_a_common_name_the_certificate_is_for_the_host_that_is_dialled() {
    on_each(async |turns: Turns| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config_by(&Authority::new("nodes", When::Now), dir.path());
        config.cluster.peer_name = None;
        let (a, b) = (start("a", &turns, &config), start("b", &turns, &config));
        for (host, linked) in [("other.internal", false), (NAME, true)] {
            let name = format!("{host}:{}", b.address.port());
            let asked = a.asked.borrow().len();
            a.links.dial([(b.id.clone(), name.clone())].into());
            until("a look-up", || a.asked.borrow().len() > asked).await;
            a.links.looked_up(&NameAnswer { name, found: Ok(vec![b.address]) });
            match linked {
                true => until_up(&a, &b).await,
                false => a.until_refused("cluster.peer_ca").await,
            }
        }
    });
}

#[test]
fn tls_without_an_authority_for_peers_is_told_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_by(&Authority::new("nodes", When::Now), dir.path());
    assert!(PeerTls::of(&config).unwrap().is_some());
    config.cluster.peer_ca = config.rpc.tls_client_ca.take();
    assert!(PeerTls::of(&config).unwrap().is_some());
    config.cluster.peer_ca = None;
    let (key, text) = PeerTls::of(&config).unwrap_err();
    assert!(key == "cluster.peer_ca" && text.contains("needed"), "{key}: {text}");
    config.cluster.peer_ca = Some("/nowhere/ca.pem".into());
    assert!(PeerTls::of(&config).is_err_and(|(_, text)| text.contains("/nowhere/ca.pem")));
    config.cluster.peer_ca = config.rpc.tls_cert.clone();
    config.cluster.peer_name = Some("not a name".to_owned());
    assert!(PeerTls::of(&config).is_err_and(|(key, _)| key == "cluster.peer_name"));
    config.rpc.tls_cert = None;
    assert!(PeerTls::of(&config).unwrap().is_none());
}
