//! Where a connection comes from when proxies stand in front: what of their words is believed.
//!
//! Only configured proxies are asked. The address starts as the TCP peer's; while it is a proxy's, the next word (the
//! PROXY header, then `X-Forwarded-For` from its end) takes its place. So a client cannot name itself: the first
//! address that is no proxy's is the one that a proxy saw. The connection id does not change with it (spec 1.2).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::wire::proxy::Source;

/// A range of addresses, like `10.0.0.0/8` or `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// Leading bits that count.
    prefix: u8,
}

/// Whether proxies begin their connections with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// They do not; one that comes is a malformed head.
    Off,
    /// They all do; a connection of theirs without one is closed.
    Required,
}

/// Who is believed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    /// `websocket.proxies`.
    pub networks: Vec<Network>,
    /// `websocket.proxy_protocol`.
    pub header: ProxyHeader,
}

impl Network {
    /// Parses `address` or `address/prefix`. `None`: not one, or bits behind the prefix are set. IPv4 written as IPv6
    /// (`::ffff:10.0.0.0/104`) is IPv4, as addresses are before they are compared.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().ok()?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(text) => text.parse().ok().filter(|n: &u8| *n <= bits && n.to_string() == text)?,
            None => bits,
        };
        let (first, prefix) = match (first.to_canonical(), prefix.checked_sub(96)) {
            (v4 @ IpAddr::V4(_), Some(prefix)) if first.is_ipv6() => (v4, prefix),
            _ => (first, prefix),
        };
        let network = Self { first, prefix };
        (network.masked(first)? == bits_of(first)).then_some(network)
    }

    /// Whether an address (in canonical form) lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.masked(address).is_some_and(|bits| bits == bits_of(self.first))
    }

    /// `address` cut to the prefix; `None`: of the other family.
    fn masked(self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.first.is_ipv4() {
            return None;
        }
        let host_bits = 128 - u32::from(self.prefix) - if address.is_ipv4() { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(bits_of(address) & mask)
    }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl Proxies {
    /// Nobody is believed.
    pub const NONE: Self = Self { networks: Vec::new(), header: ProxyHeader::Off };

    /// Whether this (canonical) address is a proxy's.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from there must begin with a PROXY header.
    pub fn expect_header(&self, peer: IpAddr) -> bool {
        self.header == ProxyHeader::Required && self.contain(peer)
    }

    /// The client behind a connection. It is a proxy's own address if no word leads further; its port is 0 if the word
    /// has none.
    pub fn client(&self, peer: SocketAddr, header: Source, forwarded_for: Option<&str>) -> SocketAddr {
        let mut client = peer;
        if let (true, Source::Client(source)) = (self.contain(client.ip()), header) {
            client = source;
        }
        for word in forwarded_for.unwrap_or_default().rsplit(',') {
            if !self.contain(client.ip()) {
                break;
            }
            match address(word.trim()) {
                Some(address) => client = address,
                None => break, // nonsense in the list: what stands before it is no better
            }
        }
        client
    }
}

/// An entry of `X-Forwarded-For`: an address, with or without a port.
fn address(word: &str) -> Option<SocketAddr> {
    let bracketed = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    let (address, port) = match bracketed {
        Some(inner) => (IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?), 0),
        None => match word.parse() {
            Ok(address) => (address, 0),
            Err(_) => word.parse().ok().map(|socket: SocketAddr| (socket.ip(), socket.port()))?,
        },
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// A client's address for a log or a table: without its port where that is not known.
pub fn address_text(client: SocketAddr) -> impl fmt::Display {
    fmt::from_fn(move |f| match client.port() {
        0 => fmt::Display::fmt(&client.ip(), f),
        _ => fmt::Display::fmt(&client, f),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_their_prefix_says() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
            ("192.0.2.4", "192.0.2.4", "192.0.2.5"),
            ("192.0.2.4/31", "192.0.2.5", "192.0.2.6"),
            ("0.0.0.0/0", "203.0.113.1", "::1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("::/0", "2001::1", "10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.255.1.2", "11.0.0.1"),
            ("::ffff:192.0.2.4", "192.0.2.4", "192.0.2.5"),
            ("::ffff:0:0/96", "203.0.113.1", "::1"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(ip(inside)) && !network.contains(ip(outside)), "{network}");
            assert_eq!(Network::parse(&network.to_string()), Some(network));
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "host",
            "10.0.0/8",
            "::ffff:10.0.0.1/104",
            "::ffff:0:0/95",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_proxies_are_believed_and_from_the_end() {
        let proxies = Proxies {
            networks: vec![Network::parse("10.0.0.0/8").unwrap(), Network::parse("fd00::/8").unwrap()],
            header: ProxyHeader::Required,
        };
        let said = |address: &str| Source::Client(SocketAddr::new(ip(address), 9));
        for (peer, header, forwarded_for, want) in [
            // A stranger says what he likes.
            ("203.0.113.1", said("1.1.1.1"), Some("2.2.2.2"), "203.0.113.1:7"),
            // A proxy with either word.
            ("10.0.0.1", said("1.1.1.1"), None, "1.1.1.1:9"),
            ("10.0.0.1", Source::Unsaid, Some("2.2.2.2"), "2.2.2.2"),
            // The header ends at the client, whose own words count for nothing.
            ("10.0.0.1", said("1.1.1.1"), Some("2.2.2.2"), "1.1.1.1:9"),
            // A chain: header, then list from its end, to the first that is no proxy.
            ("10.0.0.1", said("10.0.0.2"), Some("6.6.6.6, 3.3.3.3, 10.9.9.9"), "3.3.3.3"),
            ("fd00::1", Source::Unsaid, Some("6.6.6.6,3.3.3.3:1234"), "3.3.3.3:1234"),
            ("10.0.0.1", Source::Unsaid, Some("[2001::5]:77"), "[2001::5]:77"),
            ("10.0.0.1", Source::Unsaid, Some("[2001::5]"), "2001::5"),
            ("10.0.0.1", Source::Unsaid, Some("::ffff:4.4.4.4"), "4.4.4.4"),
            // No word, or nonsense: it stays the proxy's.
            ("10.0.0.1", Source::Unsaid, None, "10.0.0.1:7"),
            ("10.0.0.1", Source::Unsaid, Some("6.6.6.6, unknown"), "10.0.0.1:7"),
            ("10.0.0.1", Source::Unsaid, Some(""), "10.0.0.1:7"),
        ] {
            let found = proxies.client(SocketAddr::new(ip(peer), 7), header, forwarded_for);
            assert_eq!(address_text(found).to_string(), want, "{peer} {header:?} {forwarded_for:?}");
        }
        assert!(proxies.expect_header(ip("10.1.1.1")) && !proxies.expect_header(ip("203.0.113.1")));
        assert!(!Proxies::NONE.contain(ip("127.0.0.1")));
    }
}
