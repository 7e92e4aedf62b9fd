//! The gateways of OpenIM 3.5 on Kubernetes: not discovered, but computed from the pod's name, its namespace and the
//! number of replicas (spec 10.4). The same strings are the members of the ring that OpenIM's push hashes users with,
//! so they must come out byte for byte as there. Pure.

use super::super::fault::{Fault, Origin};
use super::super::value::{label, number};
use crate::limits::REPLICAS_MAX;

/// The variable with the number of gateways.
pub(in crate::config) const REPLICAS_ENV: &str = "MY_MSGGATEWAY_REPLICACOUNT";
/// The variable with the name of this pod.
pub const POD_ENV: &str = "MY_POD_NAME";
/// The variable with its namespace.
pub const NAMESPACE_ENV: &str = "MY_POD_NAMESPACE";
/// What the register name of OpenIM's chart says if it says nothing.
const PORT_DEFAULT: u16 = 88;
/// What the chart calls the stateful set, behind the name of the release.
const SET: &str = "-openim-msggateway";

/// The members, by ordinal, each with its gRPC port:
/// `<inst>-openim-msggateway-<i>.<inst>-openim-msggateway-headless.<namespace>.svc.cluster.local:<port>`.
///
/// `env` has the variables of this process; `register_name` is the gateway's (`discovery.service_gateway`), whose port
/// is taken.
///
/// # Errors
/// Every variable that is missing or cannot be read, with the value seen.
pub fn members(env: &[(String, String)], register_name: &str) -> Result<Vec<String>, Vec<Fault>> {
    let mut faults = Vec::new();
    let value = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.trim());
    let read = |name: &'static str, expected: &str, example: &str| Fault {
        key: name.to_owned(),
        value: value(name).map(str::to_owned),
        origin: if value(name).is_some() { Origin::Env(name.to_owned()) } else { Origin::Default },
        expected: format!("{}{expected}", if value(name).is_some() { "" } else { "not set; " }),
        example: example.to_owned(),
    };
    let pod = value(POD_ENV).and_then(pod_parts);
    if pod.is_none() {
        let expected = "expected the pod's own name, RELEASE-openim-msggateway-NUMBER, with no dash in RELEASE: OpenIM \
                        takes what is before the first one (fieldRef metadata.name)";
        faults.push(read(POD_ENV, expected, "openimserver-openim-msggateway-0"));
    }
    let namespace = value(NAMESPACE_ENV).and_then(label);
    if namespace.is_none() {
        faults.push(read(
            NAMESPACE_ENV,
            "expected the pod's namespace (fieldRef metadata.namespace)",
            "default",
        ));
    }
    let count = value(REPLICAS_ENV).and_then(|text| number(text, 1..=REPLICAS_MAX));
    match (count, pod) {
        (None, _) => {
            let expected = format!("expected the number of gateways, from 1 to {REPLICAS_MAX}");
            faults.push(read(REPLICAS_ENV, &expected, "3"));
        }
        (Some(count), Some((_, ordinal))) if ordinal >= count => {
            let expected = format!(
                "expected more than {ordinal}, the number at the end of this pod's name: OpenIM's push would never ask \
                 this gateway"
            );
            faults.push(read(REPLICAS_ENV, &expected, &(ordinal + 1).to_string()));
        }
        (Some(_), _) => {}
    }
    let port = port_of(register_name);
    if port.is_none() {
        faults.push(Fault {
            key: "discovery.service_gateway".to_owned(),
            value: Some(register_name.to_owned()),
            origin: Origin::Default,
            expected: "expected a name, and behind a colon the gRPC port of the gateways, from 1 to 65535"
                .to_owned(),
            example: format!("openimserver-openim-msggateway:{PORT_DEFAULT}"),
        });
    }
    let (Some((inst, _)), Some(namespace), Some(count), Some(port), true) =
        (pod, namespace, count, port, faults.is_empty())
    else {
        return Err(faults);
    };
    let member = |i| format!("{inst}{SET}-{i}.{inst}{SET}-headless.{namespace}.svc.cluster.local:{port}");
    Ok((0..count).map(member).collect())
}

/// Release and ordinal.
fn pod_parts(pod: &str) -> Option<(&str, u32)> {
    let (inst, _) = pod.split_once('-')?;
    let ordinal = pod.strip_prefix(inst)?.strip_prefix(SET)?.strip_prefix('-')?;
    let digits = !inst.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit());
    Some((inst, digits.then(|| ordinal.parse().ok())??))
}

fn port_of(register_name: &str) -> Option<u16> {
    match register_name.split_once(':') {
        None => Some(PORT_DEFAULT),
        Some((_, port)) => number(port, 1..=u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: (&str, &str) = (POD_ENV, "openimserver-openim-msggateway-1");
    const NAMESPACE: (&str, &str) = (NAMESPACE_ENV, "openim-lin");
    const NAME: &str = "openimserver-openim-msggateway:88";

    fn of(env: &[(&str, &str)], name: &str) -> Result<Vec<String>, Vec<Fault>> {
        let env: Vec<_> = env.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        members(&env, name)
    }

    #[test]
    fn members_are_the_strings_of_openims_ring() {
        let host = |i: u32| {
            let set = "openimserver-openim-msggateway";
            format!("{set}-{i}.{set}-headless.openim-lin.svc.cluster.local")
        };
        let env = [POD, NAMESPACE, (REPLICAS_ENV, "2")];
        for (name, port) in [(NAME, 88), ("MessageGateway", 88), ("x:10140", 10_140)] {
            let want: Vec<_> = (0..2).map(|i| format!("{}:{port}", host(i))).collect();
            assert_eq!(of(&env, name).unwrap(), want, "{name}");
        }
        let most = [POD, NAMESPACE, (REPLICAS_ENV, "1024")];
        assert_eq!(of(&most, NAME).unwrap().len(), 1024);
    }

    #[test]
    fn what_is_missing_or_no_good_is_named_with_the_value_seen() {
        let count = (REPLICAS_ENV, "2");
        for (env, key, seen) in [
            (&[NAMESPACE, count][..], POD_ENV, None),
            (&[(POD_ENV, ""), NAMESPACE, count], POD_ENV, Some("")),
            (&[(POD_ENV, "gateway"), NAMESPACE, count], POD_ENV, Some("gateway")),
            (&[(POD_ENV, "-openim-msggateway-0"), NAMESPACE, count], POD_ENV, Some("-openim-msggateway-0")),
            (
                &[(POD_ENV, "my-release-openim-msggateway-0"), NAMESPACE, count],
                POD_ENV,
                Some("my-release-openim-msggateway-0"),
            ),
            (&[(POD_ENV, "x-openim-msggateway-"), NAMESPACE, count], POD_ENV, Some("x-openim-msggateway-")),
            (&[(POD_ENV, "x-openim-msggateway-a"), NAMESPACE, count], POD_ENV, Some("x-openim-msggateway-a")),
            (&[POD, count], NAMESPACE_ENV, None),
            (&[POD, (NAMESPACE_ENV, "Open IM"), count], NAMESPACE_ENV, Some("Open IM")),
            (&[POD, NAMESPACE], REPLICAS_ENV, None),
            (&[POD, NAMESPACE, (REPLICAS_ENV, "0")], REPLICAS_ENV, Some("0")),
            (&[POD, NAMESPACE, (REPLICAS_ENV, "two")], REPLICAS_ENV, Some("two")),
            (&[POD, NAMESPACE, (REPLICAS_ENV, "-1")], REPLICAS_ENV, Some("-1")),
            (&[POD, NAMESPACE, (REPLICAS_ENV, "1025")], REPLICAS_ENV, Some("1025")),
            // Pod 1 of a set of one.
            (&[POD, NAMESPACE, (REPLICAS_ENV, "1")], REPLICAS_ENV, Some("1")),
        ] {
            let faults = of(env, NAME).unwrap_err();
            let [fault] = &faults[..] else { panic!("{env:?}: {faults:?}") };
            assert_eq!((fault.key.as_str(), fault.value.as_deref()), (key, seen), "{env:?}");
            assert_eq!(fault.expected.contains("not set"), seen.is_none(), "{fault}");
        }
        for name in ["gateway:", "gateway:0", "gateway:65536", "gateway:x", "a:b:88"] {
            let faults = of(&[POD, NAMESPACE, count], name).unwrap_err();
            assert_eq!(faults[0].value.as_deref(), Some(name), "{faults:?}");
        }
        assert_eq!(of(&[], "x:").unwrap_err().len(), 4, "all at once");
    }
}
