//! The gateways of OpenIM 3.5 in Kubernetes: a count that is not that of those who answer makes the node unready.

use super::admin::get;
use super::*;
use crate::backend::openim::Service;
use crate::cluster::endpoints::Endpoints;
use crate::control::news::{DiscoveryState, News};

fn tell(node: &Node, news: News) {
    node.rpc.post(RpcMail::News(Box::new(news))).unwrap();
}

fn tell_gateways(node: &Node, version: u64, gateways: &[SocketAddr]) {
    let endpoints = Arc::new(Endpoints { version, addresses: gateways.to_vec() });
    tell(node, News::Endpoints { service: Service::Gateway, endpoints });
}

fn await_readyz(node: &Node, status: u16, part: &str) {
    let start = clock::now().mono;
    loop {
        let answer = get(node, "/readyz");
        if answer.0.contains(&format!(" {status} ")) && answer.1.contains(part) {
            return;
        }
        assert!(clock::now().mono.since_ms(start) < 60_000, "{answer:?}, not {status} {part:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_count_that_is_not_that_of_the_gateways_that_answer_is_an_error() {
    on_each_of_the_drivers(|driver| {
        let (second, third) = (Node::start(driver, Shards::Answer), Node::start(driver, Shards::Answer));
        let mut config = config();
        config.backend = crate::config::Backend::Openim;
        config.openim.discovery.members = vec!["a:88".into(), "b:88".into()];
        config.openim.discovery.gateways_differ_ms = 0;
        let node = Node::start_with(driver, Shards::Answer, config);
        node.admission.set_state(NodeState::Ready);
        await_readyz(&node, 503, "OpenIM's services were not found yet");
        tell(&node, News::Discovery(DiscoveryState::Current));
        await_readyz(&node, 503, "MY_MSGGATEWAY_REPLICACOUNT is 2, and 1 gateways answer");
        tell_gateways(&node, 1, &[second.grpc]);
        await_readyz(&node, 200, "ready");
        tell_gateways(&node, 2, &[second.grpc, third.grpc]);
        await_readyz(&node, 503, "is 2, and 3 gateways answer");
        node.await_count(Metric::GatewaysAnswering, 3);
        assert_eq!(node.block.value(Metric::GatewaysExpected), 2);
        tell_gateways(&node, 3, &[third.grpc]);
        await_readyz(&node, 200, "ready");
    });
}
