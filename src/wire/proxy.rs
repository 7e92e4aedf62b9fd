//! The header of the PROXY protocol, versions 1 and 2, that a proxy puts before the bytes of its client.
//!
//! Not here: from whom it is believed (`session::handshake::origin`), and that it is asked for at all. What always
//! holds: a header is recognised by its first bytes or refused, it is bounded, and what it does not say is not guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits;

/// What a header says about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Where the client connected from.
    Client(SocketAddr),
    /// Nothing: the proxy speaks for itself (its health check), or its client is not on TCP.
    Unsaid,
}

/// The bytes are no header of either version: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyFault;

/// Which header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The header that names `client` as the source and `at`, where it was accepted, as the destination. Addresses of
/// unlike families are both written as IPv6.
pub fn header(version: Version, client: SocketAddr, at: SocketAddr) -> Vec<u8> {
    let (source, destination) = (client.ip().to_canonical(), at.ip().to_canonical());
    let ports = [client.port(), at.port()];
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    match (version, source, destination) {
        (Version::V1, IpAddr::V4(source), IpAddr::V4(destination)) => {
            format!("PROXY TCP4 {source} {destination} {} {}\r\n", client.port(), at.port()).into_bytes()
        }
        (Version::V1, source, destination) => {
            let (source, destination) = (mapped(source), mapped(destination));
            format!("PROXY TCP6 {source} {destination} {} {}\r\n", client.port(), at.port()).into_bytes()
        }
        (Version::V2, IpAddr::V4(source), IpAddr::V4(destination)) => {
            v2_header(0x11, &[source.octets(), destination.octets()].concat(), ports)
        }
        (Version::V2, source, destination) => {
            v2_header(0x21, &[mapped(source).octets(), mapped(destination).octets()].concat(), ports)
        }
    }
}

fn v2_header(family: u8, addresses: &[u8], ports: [u16; 2]) -> Vec<u8> {
    // At most two IPv6 addresses and two ports: 36.
    let length = u16::try_from(addresses.len() + 4).unwrap_or_default().to_be_bytes();
    let [from, to] = ports.map(u16::to_be_bytes);
    [V2_START.as_slice(), &[0x21, family], &length, addresses, &from, &to].concat()
}

const V1_START: &[u8] = b"PROXY ";
/// The longest header of version 1, line end included (specification, section 2.1).
const V1_BYTES_MAX: usize = 107;
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// Parses a header. `Ok(None)`: more bytes are needed. `Ok(Some((source, n)))`: the header took the first `n` bytes.
///
/// # Errors
/// The bytes cannot be the start of a header, or it is longer than [`limits::PROXY_HEADER_BYTES`].
pub fn parse(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyFault> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => version_1(bytes),
        Some(_) => version_2(bytes),
    }
}

/// `Ok(false)`: what is there fits, but is not all of it.
fn begins_with(bytes: &[u8], start: &[u8]) -> Result<bool, ProxyFault> {
    let n = bytes.len().min(start.len());
    if bytes.get(..n) == start.get(..n) { Ok(n == start.len()) } else { Err(ProxyFault) }
}

fn version_1(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyFault> {
    if !begins_with(bytes, V1_START)? {
        return Ok(None);
    }
    let window = bytes.get(..V1_BYTES_MAX.min(bytes.len())).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < V1_BYTES_MAX { Ok(None) } else { Err(ProxyFault) };
    };
    let line = window.get(V1_START.len()..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(ProxyFault)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyFault)?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some((Source::Unsaid, end + 1))); // the rest of the line is to be ignored
    }
    let (Some(source), Some(destination), Some(from), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ProxyFault);
    };
    let (source, _) = match family {
        "TCP4" => (ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(destination)?),
        "TCP6" => (ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(destination)?),
        _ => return Err(ProxyFault),
    };
    let (from, _) = (port(from)?, port(to)?);
    Ok(Some((Source::Client(SocketAddr::new(source, from)), end + 1)))
}

fn ip<A: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, ProxyFault> {
    text.parse::<A>().map(|address| address.into().to_canonical()).map_err(|_| ProxyFault)
}

/// Decimal without leading zeros or signs.
fn port(text: &str) -> Result<u16, ProxyFault> {
    text.parse::<u16>().ok().filter(|port| port.to_string() == text).ok_or(ProxyFault)
}

fn version_2(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyFault> {
    if !begins_with(bytes, V2_START)? {
        return Ok(None);
    }
    let Some([command, family, high, low]) = bytes.get(V2_START.len()..V2_FIXED_BYTES) else {
        return Ok(None);
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if length > limits::PROXY_HEADER_BYTES {
        return Err(ProxyFault);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyFault),
    };
    let addresses = match (is_local, family) {
        (true, _) | (false, 0x00) => 0,
        (false, 0x11) => 12,
        (false, 0x21) => 36,
        // Datagrams and Unix sockets are well-formed, but not addresses of ours.
        (false, 0x12 | 0x22 | 0x31 | 0x32) => 0,
        _ => return Err(ProxyFault),
    };
    if length < V2_FIXED_BYTES + addresses {
        return Err(ProxyFault);
    }
    let Some(body) = bytes.get(V2_FIXED_BYTES..length) else {
        return Ok(None);
    };
    // The source comes first, behind both addresses its port; what follows (TLVs) is not looked at.
    let source = match addresses {
        12 => body.first_chunk::<4>().map(|octets| IpAddr::from(*octets)).zip(port_at(body, 8)),
        36 => {
            body.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical()).zip(port_at(body, 32))
        }
        _ => None,
    };
    let source = source.map(SocketAddr::from);
    Ok(Some((source.map_or(Source::Unsaid, Source::Client), length)))
}

/// The port that stands there.
fn port_at(body: &[u8], at: usize) -> Option<u16> {
    body.get(at..)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_START.as_slice(), &[command, family], &length, body].concat()
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    #[test]
    fn headers_of_both_versions_name_the_client() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0xc0, 0x00, 0x27, 0x11];
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[32], v6[33]) = (0x20, 0x01, 9, 1, 2);
        let with_tlv = [v4.as_slice(), &[3, 0, 4, 1, 2, 3, 4]].concat();
        for (header, source) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 49152 10001\r\n".to_vec(), client("203.0.113.7:49152")),
            (b"PROXY TCP6 2001::9 ::1 1 65535\r\n".to_vec(), client("[2001::9]:1")),
            (b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n".to_vec(), client("1.2.3.4:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Source::Unsaid),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Source::Unsaid),
            (v2(0x21, 0x11, &v4), client("203.0.113.7:49152")),
            (v2(0x21, 0x11, &with_tlv), client("203.0.113.7:49152")),
            (v2(0x21, 0x21, &v6), client("[2001::9]:258")),
            (v2(0x20, 0x11, &v4), Source::Unsaid),
            (v2(0x20, 0x00, b""), Source::Unsaid),
            (v2(0x21, 0x00, b"anything"), Source::Unsaid),
            (v2(0x21, 0x31, &[0; 216]), Source::Unsaid),
        ] {
            let n = header.len();
            for cut in 0..n {
                assert_eq!(parse(&header[..cut]), Ok(None), "{cut} of {header:02x?}");
            }
            assert_eq!(parse(&header), Ok(Some((source, n))), "{header:02x?}");
            let followed = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed), Ok(Some((source, n))), "{header:02x?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (from, at) in [
            ("203.0.113.7:49152", "10.0.0.1:10001"),
            ("[2001::9]:1", "[::1]:65535"),
            ("203.0.113.7:49152", "[::1]:10001"),
            ("[::ffff:203.0.113.7]:49152", "[::ffff:10.0.0.1]:10001"),
        ] {
            let (from, at): (SocketAddr, SocketAddr) = (from.parse().unwrap(), at.parse().unwrap());
            for version in [Version::V1, Version::V2] {
                let written = header(version, from, at);
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let whole = Some((Source::Client(from), written.len()));
                assert_eq!(parse(&written), Ok(whole), "{written:02x?}");
            }
        }
        let line = header(Version::V1, "1.2.3.4:5".parse().unwrap(), "6.7.8.9:10".parse().unwrap());
        assert_eq!(line, b"PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n");
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX));
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PRI * HTTP/2.0".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            b"PROXY TCP4 \xff 5.6.7.8 1 2\r\n".to_vec(),
            long.into_bytes(),
            b"\r\n\r\n\0\r\nQUIX".to_vec(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; limits::PROXY_HEADER_BYTES]),
        ] {
            assert_eq!(parse(&bytes), Err(ProxyFault), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics_or_takes_more_than_there_is(start in 0..3_usize, rest: Vec<u8>) {
            let start: &[u8] = [V1_START, V2_START.as_slice(), b""].get(start).copied().unwrap_or_default();
            let bytes = [start, &rest].concat();
            if let Ok(Some((_, n))) = parse(&bytes) {
                assert!(n <= bytes.len() && n <= limits::PROXY_HEADER_BYTES);
            }
        }
    }
}
