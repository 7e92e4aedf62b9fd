//! Listeners and ports of OpenIM's files (spec 11.3, trap 37): `index` picks one element of each list, unless OpenIM
//! chooses the ports itself, which etcd only can tell others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::fault::Fault;
use super::files::{File, Value, Values};
use super::folder::Translation;
use crate::wire::compat::Compat;

/// OpenIM's first port for metrics; each further gateway of a machine takes the next.
const METRICS_PORT: u16 = 12_140;

/// The one kind that can tell others a port that was chosen by chance; the default.
const ETCD: &str = "etcd";

/// Where the keys stand in one layout.
struct Places {
    file: File,
    listen_ip: &'static str,
    websocket: &'static str,
    /// The first that is there counts.
    rpc: &'static [&'static str],
    metrics: &'static str,
}

const SPLIT: Places = Places {
    file: File::Gateway,
    listen_ip: "listenIP",
    websocket: "longConnSvr.ports",
    rpc: &["rpc.ports"],
    metrics: "prometheus.ports",
};
const WHOLE: Places = Places {
    file: File::Whole,
    listen_ip: "rpc.listenIP",
    websocket: "longConnSvr.openImWsPort",
    rpc: &["longConnSvr.openImMessageGatewayPort", "rpcPort.openImMessageGatewayPort"],
    metrics: "prometheus.messageGatewayPrometheusPort",
};

/// Sets the three listeners, as far as nothing stronger has.
pub(super) fn listeners(values: &Values, layout: Compat, out: &mut Translation<'_>) {
    let places = if layout == Compat::V35 { WHOLE } else { SPLIT };
    let list = |key: &str| values.get(places.file, key);
    if out.is_open("websocket.port")
        && let Some(ports) = list(places.websocket)
        && let Some(port) = element(ports, out)
    {
        out.set("websocket.port", port, &ports.origin);
    }
    let automatic = values.get(File::Gateway, "rpc.autoSetPorts").filter(|value| is_on(value, out));
    rpc(values, &places, automatic, out);
    metrics(values, (&places, layout), automatic, out);
}

fn rpc(values: &Values, places: &Places, automatic: Option<&Value>, out: &mut Translation<'_>) {
    if !out.is_open("rpc.listen") {
        return;
    }
    if let Some(value) = automatic
        && kind(out) != ETCD
    {
        let kind = kind(out);
        let expected = format!(
            "with discovery.kind {kind} nobody learns a port that was chosen by chance; set it to false and give \
             rpc.ports, or set rpc.listen"
        );
        return out.faults.push(fault(value, expected, "false"));
    }
    let ports = places.rpc.iter().find_map(|key| values.get(places.file, key));
    let (port, from) = match (automatic, ports) {
        (Some(value), _) => ("0".to_owned(), value),
        (None, Some(ports)) => match element(ports, out) {
            Some(port) => (port, ports),
            None => return,
        },
        (None, None) => return,
    };
    let listen = values.get(places.file, places.listen_ip).filter(|value| !value.text.is_empty());
    match listen {
        None => out.set("rpc.listen", format!("{}:{port}", Ipv4Addr::UNSPECIFIED), &from.origin),
        Some(value) => match value.text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => out.set("rpc.listen", format!("[{ip}]:{port}"), &from.origin),
            Ok(IpAddr::V4(ip)) => out.set("rpc.listen", format!("{ip}:{port}"), &from.origin),
            Err(_) => {
                let expected = "expected the IP address that the gRPC port listens on".to_owned();
                out.faults.push(fault(value, expected, "0.0.0.0"));
            }
        },
    }
}

fn metrics(
    values: &Values,
    (places, layout): (&Places, Compat),
    automatic: Option<&Value>,
    out: &mut Translation<'_>,
) {
    if !out.is_open("http.listen") {
        return;
    }
    let everywhere = |port: &str| format!("{}:{port}", Ipv4Addr::UNSPECIFIED);
    let switch = values.get(places.file, "prometheus.enable");
    let off = switch.filter(|value| !is_on(value, out));
    match (off, automatic, values.get(places.file, places.metrics)) {
        (Some(value), ..) if layout != Compat::Main => {
            // Health is asked there as well, so there is a port; it must not be that of the next gateway.
            let port = METRICS_PORT.saturating_add(out.index);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            out.set("http.listen", address.to_string(), &value.origin);
        }
        (off, Some(value), _) => {
            if let Some(off) = off {
                out.notes.push(dead_switch(off));
            }
            out.set("http.listen", everywhere("0"), &value.origin);
            if kind(out) == ETCD {
                out.set("discovery.metrics", "true".to_owned(), &value.origin);
            }
            out.notes.push(
                "health and metrics get any free port (rpc.autoSetPorts), which the start prints and etcd, if used, is \
                 told; http.listen fixes it"
                    .to_owned(),
            );
        }
        (off, None, Some(ports)) => {
            if let Some(off) = off {
                out.notes.push(dead_switch(off));
            }
            if let Some(port) = element(ports, out) {
                out.set("http.listen", everywhere(&port), &ports.origin);
            }
        }
        (_, None, None) => {}
    }
}

fn dead_switch(value: &Value) -> String {
    format!("{} is not used: OpenIM main serves metrics whatever it says", value.origin)
}

/// `discovery.kind` as far as it is known.
fn kind<'a>(out: &'a Translation<'_>) -> &'a str {
    out.text_of("discovery.kind").unwrap_or(ETCD)
}

/// A switch; anything but `true` and `false` is a fault, and counts as off.
fn is_on(value: &Value, out: &mut Translation<'_>) -> bool {
    match value.text.parse() {
        Ok(on) => on,
        Err(_) => {
            out.faults.push(fault(value, "expected true or false".to_owned(), "true"));
            false
        }
    }
}

/// The element of a list of ports that is ours.
fn element(ports: &Value, out: &mut Translation<'_>) -> Option<String> {
    let index = usize::from(out.index);
    let element = ports.text.split(',').map(str::trim).nth(index).filter(|port| !port.is_empty());
    if element.is_none() {
        let expected = format!(
            "openim.index is {index}, so {} ports at least are needed here; add some, or choose a smaller index (-i)",
            index + 1
        );
        let example = (0..=out.index).map(|n| METRICS_PORT.saturating_add(n).to_string()).collect::<Vec<_>>();
        out.faults.push(fault(ports, expected, &example.join(",")));
    }
    element.map(str::to_owned)
}

fn fault(value: &Value, expected: String, example: &str) -> Fault {
    Fault {
        key: value.key.clone(),
        value: Some(value.text.clone()),
        origin: value.origin.clone(),
        expected,
        example: example.to_owned(),
    }
}
