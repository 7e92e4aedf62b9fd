//! A direction between two pairs of sockets: order, bounds, ends, and who is idle.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use super::*;
use crate::limits::PROXY_PIPES_MAX;

/// `near` writes what the pump reads from; the pump writes to what `far` reads.
struct Bench {
    near: TcpStream,
    from: TcpStream,
    to: TcpStream,
    far: TcpStream,
    mover: Mover,
    flow: Flow,
    tally: ProxyTally,
}

fn joined() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

impl Bench {
    fn new(relay: Relay) -> Self {
        let ((near, from), (to, far)) = (joined(), joined());
        for socket in [&near, &from, &to, &far] {
            socket.set_nonblocking(true).unwrap();
        }
        Self {
            near,
            from,
            to,
            far,
            mover: Mover::new(relay),
            flow: Flow::default(),
            tally: ProxyTally::default(),
        }
    }

    fn pump(&mut self, hint: Hint) -> Pumped {
        self.mover.pump(&mut self.flow, (self.from.as_fd(), self.to.as_fd()), hint, &mut self.tally)
    }

    /// What has come out so far, to the end if it was told.
    fn drain(&mut self, into: &mut Vec<u8>) {
        let mut some = [0; 100_000];
        while let Ok(n @ 1..) = self.far.read(&mut some) {
            into.extend_from_slice(&some[..n]);
        }
    }
}

/// Bytes that show where they belong.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from((i * 31 + i / 251) % 251).unwrap()).collect()
}

#[test]
fn a_small_message_is_one_copy_and_nothing_is_owned_afterwards() {
    let mut bench = Bench::new(Relay::Auto);
    bench.near.write_all(b"frame").unwrap();
    let pumped = bench.pump(Hint::Data);
    assert_eq!((pumped.progress, pumped.bytes), (Progress::Idle, 5));
    assert!(!bench.flow.is_held() && bench.mover.pipes.used() == 0);
    let mut out = Vec::new();
    bench.drain(&mut out);
    assert_eq!(out, b"frame");
    assert_eq!(bench.pump(Hint::Data).progress, Progress::Idle);
}

#[test]
fn what_goes_in_comes_out_in_order_however_slow_the_sink_is() {
    for relay in [Relay::Auto, Relay::Splice, Relay::Copy] {
        let mut bench = Bench::new(relay);
        let sent = pattern(8_000_000);
        let (mut offered, mut out, mut held_most, mut blocked) = (0, Vec::new(), 0, 0);
        while out.len() < sent.len() {
            if offered < sent.len() {
                offered += bench.near.write(&sent[offered..]).unwrap_or(0);
                if offered == sent.len() {
                    bench.near.shutdown(std::net::Shutdown::Write).unwrap();
                }
            }
            let pumped = bench.pump(Hint::End);
            assert!(pumped.bytes <= PROXY_TURN_BYTES + PROXY_BUFFER_BYTES, "a turn is bounded");
            blocked += usize::from(pumped.progress == Progress::Blocked);
            held_most = held_most.max(bench.flow.held_bytes());
            // Reads only when nothing else goes on: everything between is full by then.
            if pumped.bytes == 0 {
                bench.drain(&mut out);
            }
        }
        assert!(out == sent, "{relay:?}");
        assert!(blocked > 0, "{relay:?}: the sink was never slow, which shows nothing");
        assert!(held_most <= PROXY_BUFFER_BYTES, "{relay:?}: {held_most}");
        while !bench.flow.is_over() {
            assert!(matches!(bench.pump(Hint::End).progress, Progress::Ended | Progress::Idle));
        }
        assert!(bench.mover.pipes.used() == 0 && !bench.flow.is_held());
    }
}

#[test]
fn the_end_is_told_after_the_last_byte_and_the_other_way_stays_open() {
    let mut bench = Bench::new(Relay::Auto);
    bench.near.write_all(b"last").unwrap();
    bench.near.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.pump(Hint::End).progress, Progress::Ended);
    bench.far.set_nonblocking(false).unwrap();
    let mut out = Vec::new();
    bench.far.read_to_end(&mut out).unwrap();
    assert_eq!(out, b"last");
    bench.far.write_all(b"answer").unwrap();
    let mut back = Flow::default();
    let ends = (bench.to.as_fd(), bench.from.as_fd());
    let pumped = bench.mover.pump(&mut back, ends, Hint::Data, &mut bench.tally);
    assert_eq!((pumped.progress, pumped.bytes), (Progress::Idle, 6));
}

#[test]
fn a_reset_of_the_sink_breaks_the_direction_and_its_pipe_is_closed() {
    let mut bench = Bench::new(Relay::Splice);
    let all = pattern(4_000_000);
    let mut offered = 0;
    while bench.pump(Hint::End).progress != Progress::Blocked {
        offered += bench.near.write(&all[offered..]).unwrap_or(0);
    }
    assert_eq!(bench.mover.pipes.used(), 1, "the rest is in a pipe");
    rustix::net::sockopt::set_socket_linger(&bench.far, Some(std::time::Duration::ZERO)).unwrap();
    let (gone, _) = joined();
    drop(std::mem::replace(&mut bench.far, gone));
    assert!(matches!(bench.pump(Hint::End).progress, Progress::Broken(_)));
    let flow = std::mem::take(&mut bench.flow);
    bench.mover.forget(flow);
    assert_eq!(bench.mover.pipes.used(), 0);
}

#[test]
fn without_a_pipe_bytes_are_copied() {
    let mut bench = Bench::new(Relay::Splice);
    let taken: Vec<Pipe> = std::iter::from_fn(|| bench.mover.pipes.take()).collect();
    assert_eq!(taken.len(), PROXY_PIPES_MAX);
    bench.near.write_all(b"frame").unwrap();
    assert_eq!(bench.pump(Hint::Data).bytes, 5);
    let mut out = Vec::new();
    bench.drain(&mut out);
    assert_eq!(out, b"frame");
}
