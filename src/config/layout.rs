//! How many threads there are and where they run. Pure: a function of the machine and of what the operator asked for.

use super::machine::Machine;

/// From this many CPUs up the rpc threads get CPUs of their own.
const OWN_CPU_FROM: usize = 4;
/// One rpc thread serves so many shards.
const SHARDS_PER_RPC: usize = 8;

/// How many threads of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Shards.
    pub shards: u16,
    /// rpc threads.
    pub rpcs: u16,
}

/// Which thread runs where; `None` = not pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// By shard.
    pub shards: Vec<Option<usize>>,
    /// By rpc thread.
    pub rpcs: Vec<Option<usize>>,
}

/// CPUs' worth of time that the node may use.
pub fn cpus_usable(machine: &Machine) -> usize {
    machine.quota.unwrap_or(usize::MAX).min(machine.cpus.len())
}

/// Fills in what the operator left open: a shard per CPU, less the rpc threads from 4 CPUs up.
pub fn counts(machine: &Machine, shards: Option<u16>, rpcs: Option<u16>) -> Counts {
    let usable = cpus_usable(machine);
    let shards = shards.map(usize::from).unwrap_or_else(|| {
        if usable < OWN_CPU_FROM {
            return usable;
        }
        // The fewest rpc threads that serve the shards they leave room for.
        let taken = rpcs.map_or_else(|| usable.div_ceil(SHARDS_PER_RPC + 1), usize::from);
        usable.saturating_sub(taken).max(1)
    });
    let rpcs = rpcs.map_or_else(|| shards.div_ceil(SHARDS_PER_RPC), usize::from);
    Counts {
        shards: u16::try_from(shards).unwrap_or(u16::MAX),
        rpcs: u16::try_from(rpcs).unwrap_or(u16::MAX),
    }
}

/// Whether pinning does good: not if the cgroup grants less time than the CPU set is wide, since every container of the
/// host would then crowd the first CPUs.
pub fn pins_by_default(machine: &Machine) -> bool {
    cpus_usable(machine) == machine.cpus.len()
}

/// Places the threads: shard i on the i-th CPU of the set, rpc threads on the CPUs after them. A thread that finds no
/// CPU of its own is left to the scheduler.
pub fn layout(machine: &Machine, counts: Counts, pinning: Pinning) -> Layout {
    let cpu = |nth: usize| match pinning {
        Pinning::On => machine.cpus.get(nth).copied(),
        Pinning::Off => None,
    };
    let shards = usize::from(counts.shards);
    Layout {
        shards: (0..shards).map(cpu).collect(),
        rpcs: (shards..shards + usize::from(counts.rpcs)).map(cpu).collect(),
    }
}

/// `shards.pin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// Each thread on its CPU.
    On,
    /// The scheduler places them.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: usize, quota: Option<usize>) -> Machine {
        Machine { cpus: (0..cpus).map(|n| n * 2).collect(), quota, files_max: 20_000, interfaces: Vec::new() }
    }

    #[test]
    fn threads_follow_cpus_and_quota() {
        for (cpus, quota, want) in [
            (1, None, (1, 1)),
            (2, None, (2, 1)),
            (3, None, (3, 1)),
            (4, None, (3, 1)),
            (8, None, (7, 1)),
            (9, None, (8, 1)),
            (10, None, (8, 1)),
            (18, None, (16, 2)),
            (64, None, (56, 7)),
            (64, Some(1), (1, 1)),
            (64, Some(6), (5, 1)),
            (2, Some(8), (2, 1)),
        ] {
            let got = counts(&machine(cpus, quota), None, None);
            assert_eq!((got.shards, got.rpcs), want, "{cpus} CPUs, quota {quota:?}");
            assert!(usize::from(got.rpcs) * SHARDS_PER_RPC >= usize::from(got.shards));
        }
    }

    #[test]
    fn what_the_operator_says_counts() {
        let machine = machine(8, None);
        for (shards, rpcs, want) in [
            (Some(2), None, (2, 1)),
            (Some(17), None, (17, 3)),
            (None, Some(3), (5, 3)),
            (None, Some(30), (1, 30)),
            (Some(1), Some(1), (1, 1)),
        ] {
            let got = counts(&machine, shards, rpcs);
            assert_eq!((got.shards, got.rpcs), want, "{shards:?} {rpcs:?}");
        }
    }

    #[test]
    fn threads_beyond_the_cpu_set_are_not_pinned() {
        let place = |cpus, shards, pinning| {
            let counts = Counts { shards, rpcs: 1 };
            let layout = layout(&machine(cpus, None), counts, pinning);
            (layout.shards, layout.rpcs)
        };
        assert_eq!(place(4, 3, Pinning::On), (vec![Some(0), Some(2), Some(4)], vec![Some(6)]));
        assert_eq!(place(2, 2, Pinning::On), (vec![Some(0), Some(2)], vec![None]));
        assert_eq!(place(1, 2, Pinning::On), (vec![Some(0), None], vec![None]));
        assert_eq!(place(4, 1, Pinning::Off), (vec![None], vec![None]));
        assert!(pins_by_default(&machine(4, None)) && pins_by_default(&machine(4, Some(4))));
        assert!(!pins_by_default(&machine(4, Some(2))));
    }
}
