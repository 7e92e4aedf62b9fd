//! A Redis Cluster of two real nodes: token states by slot, `online_change` from any node.

use pinion::control::plan::Subscription;
use pinion::metrics::Metric;

use super::redis::{ask, change, follow, kick_all_but};
use super::servers::{Redis, Resp};
use super::*;

struct Cluster(Vec<Redis>);

impl Cluster {
    /// Two nodes, each with half of the slots.
    fn start(more: &[&str]) -> Self {
        let flags = [&["--cluster-enabled", "yes"], more].concat();
        let nodes: Vec<Redis> = (0..2).map(|_| Redis::start_with(&flags)).collect();
        Self(nodes)
    }

    /// Makes one cluster of the nodes. `login` is what a client says first.
    fn join(self, login: &[&str]) -> Self {
        for (node, slots) in self.0.iter().zip([["0", "8191"], ["8192", "16383"]]) {
            self.client(node, login).call(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
        }
        let port = self.0[1].0.address.port().to_string();
        self.client(&self.0[0], login).call(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        for node in &self.0 {
            eventually("a cluster", || {
                (self.client(node, login).call(&["CLUSTER", "INFO"]) == ["cluster_state:ok"]).then_some(())
            });
        }
        self
    }

    fn client(&self, node: &Redis, login: &[&str]) -> Resp {
        let mut client = node.client();
        if !login.is_empty() {
            client.call(login);
        }
        client
    }

    /// Asks the node that has the key; which one that is.
    fn at_home(&self, login: &[&str], question: &[&str]) -> (usize, Vec<String>) {
        let answers = self.0.iter().map(|node| self.client(node, login).call(question)).enumerate();
        answers.into_iter().find(|(_, answer)| !answer[0].starts_with("MOVED")).unwrap()
    }

    fn plan(&self, subscription: Subscription) -> RedisPlan {
        let topology = RedisTopology::Cluster;
        RedisPlan { topology, subscription, ..redis_plan(self.0[0].0.address) }
    }
}

#[test]
fn token_states_are_those_of_the_slots_node() {
    const LOGIN: [&str; 2] = ["AUTH", "openIM123"];
    let cluster = Cluster::start(&["--requirepass", "openIM123"]).join(&LOGIN);
    let users: Vec<String> = (0..16).map(|n| format!("u{n}")).collect();
    let key = |user: &str| format!("UID_PID_TOKEN_STATUS:{user}:Web");
    let homes: Vec<usize> = users
        .iter()
        .map(|user| cluster.at_home(&LOGIN, &["HSET", &key(user), "old", "0", "new", "0"]).0)
        .collect();
    assert!(homes.contains(&0) && homes.contains(&1), "both nodes have users: {homes:?}");
    let password = "openIM123".to_owned();
    let control = follow(RedisPlan { password, ..cluster.plan(Subscription::Off) });
    let states = |old| Ok(vec![("new".to_owned(), 0), ("old".to_owned(), old)]);
    for (question, user) in (0..).zip(&users) {
        assert_eq!(ask(&control, question, user), states(0), "{user}");
        control.address.tokens(kick_all_but(user, "new")).unwrap();
    }
    control.await_metric(Metric::TokenOrdersOk, 2 * users.len() as u64);
    for (question, user) in (100..).zip(&users) {
        assert_eq!(ask(&control, question, user), states(2), "{user}");
        assert_eq!(cluster.at_home(&LOGIN, &["HMGET", &key(user), "old", "new"]).1, ["2", "0"], "{user}");
    }
    assert_eq!(control.block.value(Metric::RedisTokenFailures), 0);
}

#[test]
fn online_change_is_heard_whichever_node_it_was_told() {
    let cluster = Cluster::start(&[]).join(&[]);
    let control = follow(cluster.plan(Subscription::OnlineChange));
    control.await_count(&News::Resubscribed, 1);
    for (node, payload) in cluster.0.iter().zip(["5:here", "5:elsewhere"]) {
        // Those who hear it at other nodes are not in the answer.
        node.client().publish(payload);
        control.await_count(&change(payload), 1);
    }
}

#[test]
fn a_cluster_that_is_none_yet_is_awaited() {
    let nodes = Cluster::start(&[]);
    let control = follow(nodes.plan(Subscription::Off));
    assert!(ask(&control, 1, "u1").is_err(), "no node has the slot");
    let _cluster = nodes.join(&[]);
    let mut question = 1;
    eventually("an answer", || {
        question += 1;
        ask(&control, question, "u1").ok()
    });
}
