//! The `pinion` binary: chooses the allocator and hands over to `cli`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    end_with_any_panic();
    pinion::cli::run(std::env::args_os())
}

/// A panic on one shard ends the process, not silently one core (platform.md rule 3). Release builds abort anyway.
fn end_with_any_panic() {
    if cfg!(panic = "unwind") {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            std::process::abort();
        }));
    }
}
