//! A sandbox without io_uring, as Docker's and containerd's default profiles have it.

use std::collections::BTreeMap;
use std::process::{Child, Command};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Spawns a command in which every io_uring call fails with EPERM. A filter belongs to a thread and is inherited by
/// its children, so a thread of its own is filtered and then spawns.
pub fn spawn_without_io_uring(command: &mut Command) -> std::io::Result<Child> {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let denied = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap());
    let filter = SeccompFilter::new(
        calls.map(|call| (call, Vec::new())).into_iter().collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        denied,
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    std::thread::scope(|scope| {
        let spawned = scope.spawn(|| {
            apply_filter(&program).unwrap();
            command.spawn()
        });
        spawned.join().unwrap()
    })
}
