//! What this machine can hold, before anything is started: descriptors, ports and memory. What it cannot is refused
//! with figures and the command that mends it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::run::Refusal;
use crate::settings::Settings;

/// Descriptors of a process beside its connections: runtimes, pipes, the push connections, files being read.
const SPARE_DESCRIPTORS: usize = 128;
/// A socket in the kernel, its slot, its wait task, and buffers in passing: measured 6 to 7 KiB.
const CONNECTION_BYTES: usize = 8 * 1024;
/// Of a source address's ports so many are planned for; the rest may wait in TIME_WAIT or belong to others.
const PORT_SHARE: f64 = 0.8;
const LOCAL_NET: u32 = 0x7f00_0000;

/// How a run is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub processes: usize,
    /// In turn by connection; empty: the system's choice.
    pub sources: Vec<IpAddr>,
}

/// What there is.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Descriptors that a process may have.
    pub descriptors: usize,
    /// Ports that a source address has for one peer.
    pub ports: usize,
    pub memory_available: usize,
}

impl Machine {
    /// Reads it. The soft limit of descriptors is raised to the hard one.
    pub fn read() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        let descriptors = if raised.is_ok() { limit.maximum } else { limit.current };
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let ends: Vec<usize> = range.split_whitespace().filter_map(|end| end.parse().ok()).collect();
        let ports = if let [low, high] = ends[..] { high.saturating_sub(low) + 1 } else { 28_232 };
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = field(&memory, "MemAvailable:").unwrap_or(usize::MAX / 1024);
        let all = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self { descriptors: descriptors.map_or(usize::MAX, all), ports, memory_available: kib * 1024 }
    }

    /// Lays a run out.
    ///
    /// # Errors
    /// What does not fit.
    pub fn layout(&self, settings: &Settings) -> Result<Layout, Refusal> {
        let connections = settings.connections;
        if settings.threads == 0 || connections < settings.threads {
            return Err(Refusal {
                why: format!("{connections} connections cannot be shared by {} threads", settings.threads),
                mend: Some("at least one thread, and a connection for each: -t, -c".to_owned()),
            });
        }
        if settings.targets.is_empty() {
            return Err(Refusal { why: "no target is given".to_owned(), mend: None });
        }
        self.check_memory(connections)?;
        let sources = self.sources(settings)?;
        Ok(Layout { processes: self.processes(settings)?, sources })
    }

    fn check_memory(&self, connections: usize) -> Result<(), Refusal> {
        let needed = connections.saturating_mul(CONNECTION_BYTES);
        if needed <= self.memory_available {
            return Ok(());
        }
        Err(Refusal {
            why: format!(
                "{connections} connections need about {} MiB here ({} KiB each, kernel included), {} MiB are available",
                needed >> 20,
                CONNECTION_BYTES >> 10,
                self.memory_available >> 20
            ),
            mend: Some(format!(
                "at most -c {} here; share the load between several machines",
                self.memory_available / CONNECTION_BYTES
            )),
        })
    }

    fn processes(&self, settings: &Settings) -> Result<usize, Refusal> {
        let room = self.descriptors.saturating_sub(SPARE_DESCRIPTORS);
        let needed = if room == 0 { usize::MAX } else { settings.connections.div_ceil(room) };
        let processes = settings.processes.unwrap_or(needed);
        // Threads are not split: each process has at least one.
        let most_of_one = settings.connections.div_ceil(processes.clamp(1, settings.connections));
        if processes == 0 || processes > settings.connections || most_of_one > room {
            let needs = if needed == usize::MAX {
                "no number of processes is enough".to_owned()
            } else {
                format!("--processes {needed} is enough")
            };
            return Err(Refusal {
                why: format!(
                    "{} connections in {processes} processes need {} descriptors each, the hard limit is {}",
                    settings.connections,
                    most_of_one.saturating_add(SPARE_DESCRIPTORS),
                    self.descriptors
                ),
                mend: Some(format!(
                    "ulimit -Hn {} as root (or LimitNOFILE=, /etc/security/limits.conf); {needs}",
                    settings.connections.saturating_add(SPARE_DESCRIPTORS)
                )),
            });
        }
        Ok(processes)
    }

    fn sources(&self, settings: &Settings) -> Result<Vec<IpAddr>, Refusal> {
        // A connection that is made again may find its old port in TIME_WAIT: see PORT_SHARE.
        let per_source = ((self.ports as f64 * PORT_SHARE) as usize).max(1) * settings.targets.len();
        let needed = settings.connections.div_ceil(per_source);
        let given = settings.sources.len();
        if given >= needed || (given == 0 && needed <= 1) {
            return Ok(settings.sources.clone());
        }
        let loopback = settings.targets.iter().all(|target| match target.address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(_) => false,
        });
        if given == 0 && loopback {
            let address = |n: usize| IpAddr::V4(Ipv4Addr::from(LOCAL_NET + n as u32));
            return Ok((1..=needed).map(address).collect());
        }
        Err(Refusal {
            why: format!(
                "{} connections to {} targets need {needed} source addresses: each has {} ports for a target \
                 (net.ipv4.ip_local_port_range), of which {} are planned for; {} are given",
                settings.connections,
                settings.targets.len(),
                self.ports,
                per_source / settings.targets.len(),
                given.max(1)
            ),
            mend: Some(
                "--sources FIRST-LAST with addresses of this machine, or sysctl -w \
                 net.ipv4.ip_local_port_range=\"1024 65535\""
                    .to_owned(),
            ),
        })
    }
}

/// The number behind a name in a file of `/proc`.
pub fn field(text: &str, name: &str) -> Option<usize> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::settings;

    const MACHINE: Machine = Machine { descriptors: 20_000, ports: 28_232, memory_available: 8 << 30 };

    #[test]
    fn a_load_that_fits_needs_nothing() {
        let layout = MACHINE.layout(&settings(10_000)).unwrap();
        assert_eq!(layout, Layout { processes: 1, sources: Vec::new() });
    }

    #[test]
    fn more_descriptors_ask_for_processes_and_more_ports_for_addresses() {
        let layout = MACHINE.layout(&settings(60_000)).unwrap();
        assert_eq!(layout.processes, 4);
        let addresses: Vec<String> = layout.sources.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures_and_a_remedy() {
        let why = |machine: &Machine, settings: &Settings| machine.layout(settings).unwrap_err().to_string();
        let one = Settings { processes: Some(1), ..settings(60_000) };
        let text = why(&MACHINE, &one);
        assert!(text.contains("60128") && text.contains("20000") && text.contains("--processes 4"), "{text}");
        let small = Machine { memory_available: 100 << 20, ..MACHINE };
        let text = why(&small, &settings(60_000));
        assert!(text.contains("468 MiB") && text.contains("-c 12800"), "{text}");
        let mut far = settings(60_000);
        far.targets[0].address = "192.0.2.1:80".parse().unwrap();
        let text = why(&MACHINE, &far);
        assert!(text.contains("3 source addresses") && text.contains("--sources"), "{text}");
        let text = why(&MACHINE, &Settings { threads: 3, ..settings(2) });
        assert!(text.contains("3 threads"), "{text}");
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read();
        assert!(
            machine.descriptors > 100 && machine.ports > 0 && machine.memory_available > 0,
            "{machine:?}"
        );
    }
}
