//! The pipes of one thread, for bytes that go from socket to socket without passing through user memory.
//!
//! What always holds: a pipe that is given back is empty, and there are at most `PROXY_PIPES_MAX`.

use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::limits::{PROXY_PIPES_MAX, PROXY_SPARE_PIPES_MAX};

/// A pipe, non-blocking at both ends.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    spare: Vec<Pipe>,
    used: usize,
}

impl Pipes {
    /// A pipe to fill. `None`: too many are in use, or the system gives none.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if self.used >= PROXY_PIPES_MAX {
            return None;
        }
        let made = || {
            let pipe = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC);
            pipe.map(|(read, write)| Pipe { read, write }).ok()
        };
        let pipe = self.spare.pop().or_else(made)?;
        self.used += 1;
        Some(pipe)
    }

    /// An empty pipe comes back.
    pub(super) fn give(&mut self, pipe: Pipe) {
        self.used -= 1;
        if self.spare.len() < PROXY_SPARE_PIPES_MAX {
            self.spare.push(pipe);
        }
    }

    /// A pipe is closed with what is in it.
    pub(super) fn discard(&mut self, pipe: Pipe) {
        self.used -= 1;
        drop(pipe);
    }

    /// Pipes that are in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_some_are_kept() {
        let mut pipes = Pipes::default();
        let mut taken: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!((taken.len(), pipes.used()), (PROXY_PIPES_MAX, PROXY_PIPES_MAX));
        pipes.discard(taken.pop().unwrap());
        taken.into_iter().for_each(|pipe| pipes.give(pipe));
        assert_eq!((pipes.used(), pipes.spare.len()), (0, PROXY_SPARE_PIPES_MAX));
        assert!(pipes.take().is_some());
    }
}
