//! Keys and values of the registry, as the resolver of etcd's Go client writes and reads them (spec 11.1, 11.4, A.8).

use std::net::SocketAddr;

use serde::Deserialize;

use crate::limits::ENDPOINT_VALUE_BYTES;

/// The fields of a value. Others, `Metadata` among them, say nothing to us.
#[derive(Deserialize)]
struct Update {
    /// 0: the endpoint is there.
    #[serde(rename = "Op", default)]
    op: i64,
    #[serde(rename = "Addr")]
    address: SocketAddr,
}

/// What all keys of a service begin with.
pub(super) fn prefix(root: &str, service: &str) -> Vec<u8> {
    format!("{root}/{service}/").into_bytes()
}

/// The first key after all that begin with `prefix`, which ends in a slash.
pub(in crate::control) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// The key of an instance.
pub(super) fn key(root: &str, service: &str, address: SocketAddr) -> Vec<u8> {
    format!("{root}/{service}/{address}").into_bytes()
}

/// The value of an instance, byte for byte as Go resolvers expect it.
pub(super) fn endpoint(address: SocketAddr) -> Vec<u8> {
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null}}"#).into_bytes()
}

/// The value that OpenIM's Prometheus discovery reads.
pub(super) fn prometheus(target: SocketAddr) -> Vec<u8> {
    format!(r#"{{"target":"{target}","labels":{{"namespace":"default"}}}}"#).into_bytes()
}

/// The address in an instance's value; `None`: it is none.
pub(super) fn read_endpoint(value: &[u8]) -> Option<SocketAddr> {
    if value.len() > ENDPOINT_VALUE_BYTES {
        return None;
    }
    let update: Update = serde_json::from_slice(value).ok()?;
    (update.op == 0).then_some(update.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec trap 35: Go resolvers ignore any other form.
    #[test]
    fn keys_and_values_are_those_of_the_vectors() {
        let address = "10.0.0.7:10140".parse().unwrap();
        assert_eq!(key("openim", "messageGateway", address), b"openim/messageGateway/10.0.0.7:10140");
        assert_eq!(endpoint(address), br#"{"Op":0,"Addr":"10.0.0.7:10140","Metadata":null}"#);
        assert_eq!(prometheus(address), br#"{"target":"10.0.0.7:10140","labels":{"namespace":"default"}}"#);
    }

    #[test]
    fn a_prefix_ends_before_the_next_service() {
        let prefix = prefix("openim", "auth");
        let end = prefix_end(&prefix);
        for (key, inside) in [
            ("openim/auth/10.0.0.7:1", true),
            ("openim/auth/[::1]:1", true),
            ("openim/auth-rpc-service/10.0.0.7:1", false),
            ("openim/auth", false),
            ("openim/auth0", false),
            ("openim/authx/1", false),
        ] {
            let key = key.as_bytes();
            assert_eq!(key >= prefix.as_slice() && key < end.as_slice(), inside, "{key:?}");
        }
    }

    #[test]
    fn values_that_are_no_endpoint_are_none() {
        let v6 = "[2001:db8::1]:10140".parse().unwrap();
        assert_eq!(read_endpoint(&endpoint(v6)), Some(v6));
        let long =
            format!(r#"{{"Op":0,"Addr":"10.0.0.7:1","Metadata":"{}"}}"#, "x".repeat(ENDPOINT_VALUE_BYTES));
        let fits = &long.replace("xx", "")[..];
        for (value, good) in [
            (r#"{"Op":0,"Addr":"10.0.0.7:1","Metadata":null}"#, true),
            (r#"{"Op":0,"Addr":"10.0.0.7:1","Metadata":{"weight":3}}"#, true),
            (r#" {"Addr" : "10.0.0.7:1"} "#, true),
            (fits, true),
            (&long, false),
            (r#"{"Op":1,"Addr":"10.0.0.7:1","Metadata":null}"#, false),
            (r#"{"Op":0,"Addr":"10.0.0.7","Metadata":null}"#, false),
            (r#"{"Op":0,"Addr":"10.0.0.7:70000"}"#, false),
            (r#"{"Op":0,"Addr":"auth:1"}"#, false),
            (r#"{"Op":0}"#, false),
            (r#"{"Op":0,"Addr":"10.0.0.7:1""#, false),
            ("10.0.0.7:1", false),
            ("", false),
            ("null", false),
            ("\u{0}", false),
        ] {
            let wanted = good.then(|| "10.0.0.7:1".parse().unwrap());
            assert_eq!(read_endpoint(value.as_bytes()), wanted, "{value}");
        }
    }
}
