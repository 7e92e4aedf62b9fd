//! Where a stuck thread is: a signal makes it store its own return addresses, the watcher turns them into names.
//!
//! Not here: when to ask (`stall.rs`). What always holds: the stuck thread allocates nothing and takes no lock of ours;
//! one request is open at a time; a thread that does not answer costs the watcher `STALL_TRACE_MS`, nothing else.
//!
//! The signal is SIGURG: its default is to be ignored, so a stray one ends nobody, and nothing here uses out-of-band
//! data. It interrupts system calls: SA_RESTART restarts most; `epoll_wait` and `io_uring_enter` return EINTR, upon
//! which monoio 0.2.4 parks again (its epoll driver expects EINTR, its runtime drops the error of the ring's park).
//! The code runs on the thread's ordinary stack, not on an alternate one (no SA_ONSTACK): the 8 KiB that std sets
//! aside per thread hardly hold a signal frame with AVX-512 state and an unwinder.
//!
//! Async-signal-safety: atomics, `gettid`, and the unwinder. The unwinder initialises itself on first use, so
//! [`install`] unwinds once. After that it looks up the loaded objects (lock-free since glibc 2.35; before, under a
//! recursive lock that only `dlopen` holds for long) and reads unwind tables, which rustc emits under panic = "abort"
//! too since 1.92.
#![expect(unsafe_code, reason = "the stall backtrace: signal set-up, tgkill, unwinding inside the signal")]

use std::ffi::c_void;
use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::limits;

const SIGNAL: libc::c_int = libc::SIGURG;

/// Values of [`REQUEST`] beside the id of the thread that is asked.
const IDLE: i32 = 0;
const STORING: i32 = -1;
const STORED: i32 = -2;
const ABANDONED: i32 = -3;

/// Who is asked, or how far the answer is: idle -> thread id -> storing -> stored -> idle. The thread makes the two
/// steps in the middle, so a signal that comes late finds no request of its own and does nothing. The watcher may give
/// up on the way: thread id -> idle, or storing -> abandoned -> idle, the last step by the thread.
static REQUEST: AtomicI32 = AtomicI32::new(IDLE);
static FRAMES: [AtomicUsize; limits::STALL_FRAMES_MAX] =
    [const { AtomicUsize::new(0) }; limits::STALL_FRAMES_MAX];
static FRAME_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Prepares this process: once, on the main thread, before any shard starts.
///
/// # Errors
/// The kernel refused the signal action.
pub fn install() -> io::Result<()> {
    store_frames(); // warms the unwinder up; see the module's documentation
    // SAFETY: all zero is a valid sigaction (no flags, empty mask, default action).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: `action` is a live, initialised sigaction whose function has the type that SA_SIGINFO asks for and does
    // only what is safe inside a signal; the old action is not wanted.
    let result = unsafe { libc::sigaction(SIGNAL, &action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The stack of `thread` (a kernel thread id of this process), innermost call first, as lines of text. Takes up to
/// `STALL_TRACE_MS` and, the first time, the reading of the debug information: for the watcher only.
///
/// # Errors
/// In words: the thread is gone, or did not answer in time (it sleeps in the kernel uninterruptibly).
pub fn trace(thread: i32) -> Result<String, String> {
    if thread <= 0 {
        return Err("the thread has not begun".to_owned());
    }
    if advance(IDLE, thread).is_err() {
        return Err("an earlier request for a backtrace is still open".to_owned());
    }
    // SAFETY: tgkill takes three numbers. A thread id that is stale is refused, or reaches another thread of this
    // process, which finds that it is not asked.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) };
    if sent != 0 {
        REQUEST.store(IDLE, Ordering::Release);
        return Err(format!("no signal could be sent: {}", io::Error::last_os_error()));
    }
    const POLL_MS: u64 = 2;
    for _ in 0..limits::STALL_TRACE_MS / POLL_MS {
        if REQUEST.load(Ordering::Acquire) == STORED {
            break;
        }
        std::thread::sleep(Duration::from_millis(POLL_MS));
    }
    let waited_ms = limits::STALL_TRACE_MS;
    if advance(thread, IDLE).is_ok() {
        return Err(format!("the thread did not take the signal within {waited_ms} ms"));
    }
    if advance(STORING, ABANDONED).is_ok() {
        return Err(format!("the thread did not finish unwinding within {waited_ms} ms"));
    }
    let lines = symbolise();
    REQUEST.store(IDLE, Ordering::Release);
    Ok(lines)
}

/// Moves the request on, if it stands where the caller thinks.
fn advance(from: i32, to: i32) -> Result<i32, i32> {
    REQUEST.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
}

/// Runs on the thread that was signalled.
extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: returns the address of this thread's errno, which lives as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; no other code of this thread runs meanwhile.
    let saved = unsafe { *errno };
    let me = rustix::thread::gettid().as_raw_nonzero().get();
    if advance(me, STORING).is_ok() {
        store_frames();
        if advance(STORING, STORED).is_err() {
            REQUEST.store(IDLE, Ordering::Release); // abandoned: nobody reads it, and the next may ask
        }
    }
    // SAFETY: as above. The interrupted code must not see our errno.
    unsafe { *errno = saved };
}

/// Unwinds the calling thread into [`FRAMES`].
fn store_frames() {
    let mut count = 0;
    // SAFETY: "unsynchronized" means without the crate's own lock, which guards symbolisation and old platforms;
    // unwinding on Linux shares no state of that crate. The closure does not panic: `get` checks the index.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let Some(slot) = FRAMES.get(count) else {
                return false;
            };
            slot.store(frame.ip() as usize, Ordering::Relaxed);
            count += 1;
            true
        });
    }
    FRAME_COUNT.store(count, Ordering::Relaxed);
}

/// The stored addresses as lines: address, name, file and line. Frames of the signal itself are left out.
fn symbolise() -> String {
    let count = FRAME_COUNT.load(Ordering::Relaxed);
    let mut lines = String::new();
    for slot in FRAMES.iter().take(count) {
        let address = slot.load(Ordering::Relaxed);
        let (mut named, mut ours) = (false, false);
        let mut line = String::new();
        backtrace::resolve(address as *mut c_void, |symbol| {
            let name = symbol.name().map_or_else(|| "?".to_owned(), |name| name.to_string());
            ours |= name.contains("stall_trace::on_signal") || name.contains("stall_trace::store_frames");
            let place = match (symbol.filename(), symbol.lineno()) {
                (Some(file), Some(number)) => format!(" at {}:{number}", file.display()),
                _ => String::new(),
            };
            append(&mut line, format_args!("\n  {address:#x} {name}{place}"));
            named = true;
        });
        if !named {
            append(&mut line, format_args!("\n  {address:#x} ?"));
        }
        if ours {
            lines.clear(); // this frame and all inside it are ours; the caller is what was interrupted
        } else {
            lines += &line;
        }
    }
    lines
}

fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    assert!(text.write_fmt(arguments).is_ok(), "writing to a String does not fail");
}
