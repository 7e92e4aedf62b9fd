//! One load thread: connections on the gateway's own engine, a script that says what they do, and a loop.
//!
//! `load` is what stands above the engine: its state, and the steps that all parts share. `login` connects and logs in,
//! `operations` begins what the script asks for, `answers` reads what comes, `pace` is everything that happens at a
//! time. The loop here only moves what they left to be done: sockets to adopt, flush and close.

mod answers;
mod conn;
mod load;
mod login;
mod operations;
mod pace;

use std::io;
use std::rc::Rc;

use crossbeam_channel::Receiver;
use pinion::shard::engine::{Engine, EngineKind};
use pinion::shard::nudge::Nudge;
use pinion::shard::socket::Socket;
use pinion::shard::transform::Identity;
use pinion::shard::turn::Turns;
use pinion_bench_kit::clock::now_ns;

use crate::calls::Calls;
use crate::news::{News, Order, Part};
use crate::script::Script;
use crate::timer::Timer;
use crate::tokens::Purse;
use load::Load;

/// Of a slow reader; the kernel doubles it. Much smaller, and the server's kernel would send in probes only, for ever:
/// loopback's segments have 64 KiB.
const SLOW_BUFFER_BYTES: usize = 32 * 1024;

/// What a thread has before its runtime runs.
pub struct Start {
    pub part: Part,
    pub script: Box<dyn Script>,
    /// `None`: not OpenIM.
    pub purse: Option<Purse>,
    pub orders: Receiver<Order>,
    pub engine: EngineKind,
}

/// Runs until it is told to quit, or cannot go on, which it says.
///
/// # Errors
/// The process is out of descriptors.
pub async fn run(start: Start, turns: Turns, tell: &dyn Fn(News)) -> io::Result<()> {
    let nudge = Nudge::default();
    let timer = Timer::start(nudge.clone())?;
    let settings = &start.part.settings;
    let calls = Calls::new(settings.push.map(|to| (to, settings.push_token.clone())), nudge.clone());
    let mut engine = Engine::<Identity>::new(start.engine, nudge.clone())?;
    let mut load = Load::new(start.part, start.script, start.purse, calls);
    loop {
        nudge.clear();
        load.now_ns = now_ns();
        while let Ok(order) = start.orders.try_recv() {
            match order {
                Order::Go { at_ns } => load.go_at(at_ns),
                Order::Quit => return Ok(()),
            }
        }
        let mut more = engine.serve(&mut load);
        load.take_calls();
        more |= load.keep_time();
        more |= settle(&mut engine, &mut load);
        for news in load.take_news() {
            tell(news);
        }
        if let Some(fault) = load.take_fault() {
            tell(News::Failed(fault));
            return Ok(());
        }
        if more {
            turns.turn().await;
        } else {
            timer.arm(load.next_due_ns())?;
            nudge.wait().await;
        }
    }
}

/// Does what is left to be done with sockets, each step of which may leave more, and lets everything leave. `true`:
/// something came meanwhile.
fn settle(engine: &mut Engine<Identity>, load: &mut Load) -> bool {
    let mut more = false;
    load.dial();
    loop {
        let todo = load.take_todo();
        if todo.is_empty() {
            more |= engine.submit(load);
            if load.has_nothing_to_do() {
                return more;
            }
            continue;
        }
        for (conn, socket) in todo.adopt {
            match Socket::adopt(socket) {
                Ok(socket) => engine.adopt(conn, Rc::new(socket)),
                Err(error) => load.not_dialed(conn, &error),
            }
        }
        for conn in todo.pause {
            engine.pause(conn);
            if let Some(socket) = engine.socket(conn)
                && let Err(error) =
                    rustix::net::sockopt::set_socket_recv_buffer_size(socket, SLOW_BUFFER_BYTES)
            {
                load.fail(format!("SO_RCVBUF: {error}"));
            }
        }
        todo.resume.into_iter().for_each(|conn| engine.resume(conn));
        todo.flush.into_iter().for_each(|conn| engine.flush(conn, load));
        todo.close.into_iter().for_each(|conn| engine.close(conn, load));
        load.dial();
    }
}
