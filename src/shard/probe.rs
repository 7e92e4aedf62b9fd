//! Whether this process may use io_uring, and if not, what an operator can do about it (platform.md rule 13).

use rustix::io::Errno;

use super::{DriverKind, thread};

/// Tries io_uring once: a ring is built and a wait goes through it. Not from inside a runtime.
///
/// # Errors
/// One line that says why not and what to do.
pub fn probe_io_uring() -> Result<(), String> {
    let probe = std::thread::Builder::new()
        .name("ring-probe".into())
        .spawn(|| thread::run(DriverKind::IoUring, |turns| async move { turns.turn().await }));
    let outcome = match probe.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => return Err("io_uring: the probe did not survive; use shards.driver = epoll".into()),
        Err(error) => Err(error),
    };
    outcome.map_err(|error| explain(&error, disabled_setting().as_deref()))
}

/// `kernel.io_uring_disabled`, where the kernel has it (6.6 and newer).
fn disabled_setting() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(text.trim().to_owned())
}

fn explain(error: &std::io::Error, disabled: Option<&str>) -> String {
    let errno = Errno::from_io_error(error);
    if matches!(disabled, Some("1" | "2")) && errno == Some(Errno::PERM) {
        return format!(
            "io_uring is switched off (kernel.io_uring_disabled = {}): sysctl -w kernel.io_uring_disabled=0",
            disabled.unwrap_or_default()
        );
    }
    let advice = match errno {
        Some(Errno::PERM) => {
            "a seccomp profile forbids it (Docker and containerd do by default): allow io_uring_setup, io_uring_enter \
             and io_uring_register in the container's profile"
        }
        Some(Errno::NOSYS) => {
            "the kernel has none, or a seccomp profile hides it: use kernel 5.19 or newer and allow io_uring_setup, \
             io_uring_enter and io_uring_register"
        }
        Some(Errno::NOMEM) => "locked memory is exhausted: raise RLIMIT_MEMLOCK (ulimit -l)",
        Some(Errno::MFILE | Errno::NFILE) => "out of descriptors: raise RLIMIT_NOFILE (ulimit -n)",
        _ => "unexpected; the epoll driver does the same work",
    };
    format!("io_uring: {error}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_remedy_in_one_line() {
        for (errno, disabled, remedy) in [
            (Errno::PERM, Some("2"), "sysctl -w kernel.io_uring_disabled=0"),
            (Errno::PERM, Some("0"), "seccomp"),
            (Errno::PERM, None, "seccomp"),
            (Errno::NOSYS, None, "kernel 5.19"),
            (Errno::NOMEM, None, "RLIMIT_MEMLOCK"),
            (Errno::MFILE, None, "RLIMIT_NOFILE"),
            (Errno::INVAL, None, "epoll"),
        ] {
            let line = explain(&errno.into(), disabled);
            assert!(line.contains(remedy) && !line.contains('\n'), "{errno:?}: {line}");
        }
    }

    #[test]
    fn the_probe_ends_either_way() {
        if let Err(why) = probe_io_uring() {
            assert!(why.contains("io_uring"), "{why}");
        }
    }
}
