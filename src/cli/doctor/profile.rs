//! What a host is planned for.

use crate::limits;

/// A number of connections under the name that `tuning/sysctl` and `scripts/tune.sh` use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Profile {
    pub(in crate::cli) name: &'static str,
    pub(in crate::cli) connections: u64,
}

/// All profiles; the first is the default.
pub(in crate::cli) const PROFILES: [Profile; 4] = [
    Profile { name: "10k", connections: 10_000 },
    Profile { name: "100k", connections: 100_000 },
    Profile { name: "1m", connections: 1_000_000 },
    Profile { name: "10m", connections: 10_000_000 },
];

impl Profile {
    /// The profile of this name.
    pub(in crate::cli) fn named(name: &str) -> Option<Self> {
        PROFILES.into_iter().find(|profile| profile.name == name)
    }

    /// The smallest profile that holds so many connections, for advice; the largest if none does.
    pub(in crate::cli) fn for_connections(connections: u64) -> &'static str {
        let fits = PROFILES.iter().find(|profile| profile.connections >= connections);
        fits.map_or("10m", |profile| profile.name)
    }
}

/// Files that one process needs if it holds as many of these connections as this build lets it.
pub(in crate::cli) fn files_for_process(connections: u64) -> u64 {
    connections.min(limits::CONNECTIONS_MAX.into()) + limits::FILES_RESERVED_MAX
}

/// Files that all processes of the host need for so many connections.
pub(in crate::cli) fn files_for_host(connections: u64) -> u64 {
    connections + limits::FILES_RESERVED_MAX * processes_for(connections)
}

/// Gateways that so many connections need.
pub(in crate::cli) fn processes_for(connections: u64) -> u64 {
    connections.div_ceil(limits::CONNECTIONS_MAX.into())
}
