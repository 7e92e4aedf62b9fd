//! Which of this machine's addresses others are told (spec 11.1, `registerIP`).
//!
//! `interfaces` asks the kernel, once, at start; the choice is a pure function of its answer.

use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An IPv4 address of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The address.
    pub address: Ipv4Addr,
    /// Whether the interface is up.
    pub up: bool,
    /// Whether it leads back to this machine.
    pub loopback: bool,
}

/// The IPv4 addresses of all interfaces, in the kernel's order. What cannot be read counts as "none".
pub fn interfaces() -> Vec<Interface> {
    let Ok(found) = getifaddrs() else {
        return Vec::new();
    };
    let interface = |found: nix::ifaddrs::InterfaceAddress| {
        let address = found.address?.as_sockaddr_in().map(|address| Ipv4Addr::from(address.ip()))?;
        Some(Interface {
            address,
            up: found.flags.contains(InterfaceFlags::IFF_UP),
            loopback: found.flags.contains(InterfaceFlags::IFF_LOOPBACK) || address.is_loopback(),
        })
    };
    found.filter_map(interface).collect()
}

/// The address to register: what was configured, else the first IPv4 address of an interface that is up and no
/// loopback, private ones first. `None`: there is none.
pub fn register_ip(configured: Option<IpAddr>, interfaces: &[Interface]) -> Option<IpAddr> {
    let usable = || interfaces.iter().filter(|i| i.up && !i.loopback).map(|i| i.address);
    let first = || usable().find(Ipv4Addr::is_private).or_else(|| usable().next());
    configured.or_else(|| first().map(IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(address: [u8; 4]) -> Interface {
        Interface { address: address.into(), up: true, loopback: false }
    }

    #[test]
    fn the_configured_address_wins_then_private_ones_then_the_first() {
        let lo = Interface { loopback: true, ..interface([127, 0, 0, 1]) };
        let down = Interface { up: false, ..interface([10, 0, 0, 1]) };
        let public = interface([192, 0, 2, 1]);
        let other_public = interface([198, 51, 100, 1]);
        let private = interface([172, 16, 0, 9]);
        let other_private = interface([192, 168, 0, 9]);
        for (interfaces, want) in [
            (&[][..], None),
            (&[lo, down], None),
            (&[lo, public, other_public], Some([192, 0, 2, 1])),
            (&[lo, down, public, private, other_private], Some([172, 16, 0, 9])),
        ] {
            let want: Option<IpAddr> = want.map(|address: [u8; 4]| address.into());
            assert_eq!(register_ip(None, interfaces), want, "{interfaces:?}");
            let configured: IpAddr = "2001:db8::1".parse().unwrap();
            assert_eq!(register_ip(Some(configured), interfaces), Some(configured));
        }
    }

    #[test]
    fn the_kernel_names_at_least_the_loopback_as_such() {
        let found = interfaces();
        assert!(found.iter().filter(|i| i.address.is_loopback()).all(|i| i.loopback), "{found:?}");
    }
}
