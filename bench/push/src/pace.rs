//! A pace: when the next of evenly spaced events is due. A thread that sleeps, since the runtime's own timer counts in
//! milliseconds; the kernel's slack of 50 us is part of what a latency shows.

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use pinion_bench_kit::clock::now_ns;

/// See the module's documentation.
pub struct Pace(UnboundedReceiver<u64>);

impl Pace {
    /// So many events per second from now on, for so long. Late ones come at once, none is left out.
    pub fn start(per_second: f64, seconds: f64) -> Self {
        let (due, events) = unbounded_channel();
        let (start_ns, step_ns) = (now_ns(), 1e9 / per_second);
        let count = (per_second * seconds) as u64;
        let tick = move || {
            for n in 1..=count {
                let due_ns = start_ns + (n as f64 * step_ns) as u64;
                let now = now_ns();
                if now < due_ns {
                    thread::sleep(Duration::from_nanos(due_ns - now));
                }
                if due.send(due_ns).is_err() {
                    return;
                }
            }
        };
        drop(thread::Builder::new().name("pace".into()).spawn(tick).expect("a thread"));
        Self(events)
    }

    /// Waits for the next event and gives the time at which it was due. `None`: that was the last.
    pub async fn due(&mut self) -> Option<u64> {
        self.0.recv().await
    }
}
