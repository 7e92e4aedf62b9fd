//! Gateways in Kubernetes, whose API server is a stand-in: they find OpenIM's services and each other, and nobody
//! registers.

use std::net::SocketAddr;

use crate::harness::{ApiServer, Gateway, Mood, NAMESPACE, eventually};

const SERVICES: [&str; 4] = ["auth-rpc-service", "user-rpc-service", "msg-rpc-service", "push-rpc-service"];

/// As the kubelet would start it.
fn start(server: &ApiServer, flags: &[&str]) -> Gateway {
    let account = server.account().to_str().unwrap();
    let all = [
        &[
            "--backend=openim",
            "--discovery-kind=kubernetes",
            "--discovery-service-account",
            account,
            "--redis-addresses=127.0.0.1:1",
        ],
        flags,
    ];
    let spawn = |command: &mut std::process::Command| {
        command
            .env("KUBERNETES_SERVICE_HOST", server.address.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", server.address.port().to_string())
            .spawn()
    };
    Gateway::start_by(spawn, &all.concat())
}

fn await_ready(gateway: &Gateway, service: &str, instances: f64) {
    let labels = format!("service=\"{service}\"");
    eventually(&format!("{instances} {service} of {}\n{}", gateway.grpc, gateway.logs()), || {
        (gateway.metrics().sum("pinion_upstream_ready", &[&labels]) == instances).then_some(())
    });
}

#[test]
fn gateways_find_services_and_each_other() {
    let server = ApiServer::start();
    // Whatever speaks HTTP/2 can be connected to.
    let anybody = Gateway::start(&[]);
    let first = start(&server, &[]);
    assert!(first.banner_line("backend").contains("namespace of this pod"), "{:?}", first.banner);
    let second = start(&server, &["--discovery-namespace", NAMESPACE]);
    for service in SERVICES {
        server.set(service, &[anybody.grpc]);
    }
    for gateway in [&first, &second] {
        ["auth", "user", "msg", "push"].iter().for_each(|service| await_ready(gateway, service, 1.0));
        eventually("a ready gateway", || (gateway.get("/readyz").ok()?.0 == 200).then_some(()));
        await_ready(gateway, "gateway", 0.0);
    }
    // Kubernetes shows those that are ready.
    let gateways: [SocketAddr; 2] = [first.grpc, second.grpc];
    server.set("messagegateway-rpc-service", &gateways);
    [&first, &second].iter().for_each(|gateway| await_ready(gateway, "gateway", 1.0));
    // The API server goes, and the services stay known.
    server.be(Mood::Away);
    server.cut();
    eventually("a failure", || {
        (first.metrics().sum("pinion_kubernetes_failures_total", &[]) > 0.0).then_some(())
    });
    assert_eq!(first.get("/readyz").unwrap().0, 200);
    await_ready(&first, "auth", 1.0);
}

#[test]
fn a_gateway_of_openim_35_counts_those_that_answer() {
    let anybody = Gateway::start(&[]);
    let service = anybody.grpc.to_string();
    let flags = [
        "--backend=openim",
        "--compat=v3.5",
        "--discovery-kind=kubernetes",
        "--discovery-service-auth",
        &service,
        "--discovery-service-user",
        &service,
        "--discovery-service-msg",
        &service,
        "--discovery-service-push",
        &service,
        "--discovery-service-gateway=openimserver-openim-msggateway:88",
        "--redis-addresses=127.0.0.1:1",
    ];
    let start = |replicas: &str, differ: &str| {
        let spawn = |command: &mut std::process::Command| {
            command
                .env("MY_POD_NAME", "openimserver-openim-msggateway-0")
                .env("MY_POD_NAMESPACE", NAMESPACE)
                .env("MY_MSGGATEWAY_REPLICACOUNT", replicas)
                .spawn()
        };
        Gateway::start_by(spawn, &[&flags[..], &["--discovery-gateways-differ-ms", differ]].concat())
    };
    // Nobody knows the name of the headless service here, so that no other gateway answers.
    let (alone, one_of_two, patient) = (start("1", "0"), start("2", "0"), start("2", "3600s"));
    for (gateway, status, part) in [
        (&alone, 200, "ready"),
        (&one_of_two, 503, "MY_MSGGATEWAY_REPLICACOUNT is 2, and 1 gateways answer"),
        (&patient, 200, "ready"),
    ] {
        await_ready(gateway, "auth", 1.0);
        eventually(part, || {
            let (seen, body) = gateway.get("/readyz").ok()?;
            (seen == status && body.contains(part)).then_some(())
        });
    }
    eventually("a line in the log", || {
        let logs = one_of_two.logs();
        logs.contains("other than MY_MSGGATEWAY_REPLICACOUNT gateways answer").then_some(())
    });
    let metric = |kind| one_of_two.metrics().sum("pinion_gateways", &[kind]);
    eventually("both numbers", || {
        ((metric("kind=\"expected\""), metric("kind=\"answering\"")) == (2.0, 1.0)).then_some(())
    });
}

#[test]
fn outside_of_a_pod_a_gateway_says_what_is_missing() {
    let mut command = crate::harness::pinion(&[
        "gateway",
        "--backend=openim",
        "--discovery-kind=kubernetes",
        "--websocket-port=0",
        "--rpc-listen=127.0.0.1:0",
        "--http-listen=127.0.0.1:0",
    ]);
    command.env_remove("KUBERNETES_SERVICE_HOST");
    let (code, _, err) = crate::harness::texts(&crate::harness::run(command));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("KUBERNETES_SERVICE_HOST is not set, so this is no pod"), "{err}");
}
