//! Callers that are not on loopback: at another address of this machine, or in another network namespace.

use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};

use super::{run, texts};

/// An address of this machine that is not loopback: a caller that dials it comes from it.
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?; // sends nothing
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback())
}

/// A network namespace with one cable to this one; gone when dropped.
pub struct Elsewhere(String);

impl Elsewhere {
    /// 198.18.NET.2, seen from 198.18.NET.1 here. `None`: this process may not make one.
    pub fn new(net: u8) -> Option<Self> {
        let name = format!("pin{}n{net}", std::process::id() % 10_000);
        let ends = [format!("198.18.{net}.1/30"), format!("198.18.{net}.2/30")];
        let made = ip(&["netns", "add", &name]).then(|| Self(name.clone()))?;
        let (here, there) = (format!("{name}h"), format!("{name}t"));
        let ready = ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name])
            && ip(&["addr", "add", &ends[0], "dev", &here])
            && ip(&["link", "set", &here, "up"])
            && ip(&["-n", &name, "addr", "add", &ends[1], "dev", &there])
            && ip(&["-n", &name, "link", "set", &there, "up"]);
        ready.then_some(made)
    }

    /// Runs a command over there.
    pub fn run(&self, command: &mut Command) -> (i32, String, String) {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.0]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        texts(&run(there))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]); // the cable goes with it
    }
}

fn ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
