//! The engine under a stand-in for the hub that echoes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use crate::hub::SendBatch;
use crate::ids::{ConnId, SlotId};
use crate::limits::{READS_PER_TURN_MAX, SCRATCH_BYTES};
use crate::shard::clock;
use crate::shard::engine::{Engine, Upper};
use crate::shard::nudge::Nudge;
use crate::shard::socket::Socket;
use crate::shard::thread::{block_on, tests::bases};
use crate::shard::transform::{Identity, Transform, TransformFault};
use crate::shard::turn::Turns;
use crate::wire::frame::Frame;

/// Both directions of the wire are masked. Stands for TLS: the engine must not see the difference.
#[derive(Default)]
struct Xor;

const KEY: u8 = 0x5a;

impl Transform for Xor {
    const PASSES_THROUGH: bool = false;

    fn inbound(&mut self, received: &mut [u8]) -> Result<usize, TransformFault> {
        received.iter_mut().for_each(|byte| *byte ^= KEY);
        Ok(received.len())
    }

    fn outbound(&mut self, frame: &[u8], wire: &mut Vec<u8>) {
        wire.extend(frame.iter().map(|byte| byte ^ KEY));
    }
}

/// Sends back what it gets and notes what happens.
#[derive(Default)]
struct Echo {
    outboxes: BTreeMap<ConnId, Outbox>,
    flush: VecDeque<ConnId>,
    lost: Vec<ConnId>,
    closed: Vec<ConnId>,
    received: usize,
    most_in_a_turn: usize,
}

#[derive(Default)]
struct Outbox {
    frames: VecDeque<Frame>,
    skip: usize,
}

impl Echo {
    fn queue(&mut self, conn: ConnId, bytes: &[u8]) {
        self.outboxes.entry(conn).or_default().frames.push_back(Frame::raw(bytes));
        self.flush.push_back(conn);
    }
}

impl Upper for Echo {
    fn bytes(&mut self, conn: ConnId, bytes: &mut [u8]) {
        self.received += bytes.len();
        self.queue(conn, bytes);
    }

    fn lost(&mut self, conn: ConnId) {
        self.lost.push(conn);
    }

    fn closed(&mut self, conn: ConnId) {
        self.closed.push(conn);
    }

    fn fill(&mut self, conn: ConnId, batch: &mut SendBatch) -> usize {
        batch.frames.clear();
        let Some(outbox) = self.outboxes.get(&conn) else {
            return 0;
        };
        batch.skip = outbox.skip;
        batch.frames.extend(outbox.frames.iter().take(3).cloned());
        batch.frames.iter().map(|f| f.bytes().len()).sum::<usize>().saturating_sub(batch.skip)
    }

    fn sent(&mut self, conn: ConnId, bytes: usize) {
        let outbox = self.outboxes.get_mut(&conn).unwrap();
        outbox.skip += bytes;
        while let Some(frame) = outbox.frames.front()
            && outbox.skip >= frame.bytes().len()
        {
            outbox.skip -= frame.bytes().len();
            outbox.frames.pop_front();
        }
        if bytes > 0 && !outbox.frames.is_empty() {
            self.flush.push_back(conn);
        }
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    (near, far)
}

fn conn(index: u32, generation: u32) -> ConnId {
    ConnId(SlotId { index, generation })
}

fn adopt<T: Transform>(engine: &mut Engine<T>, conn: ConnId, socket: TcpStream) {
    engine.adopt(conn, Rc::new(Socket::adopt(socket).unwrap()));
}

/// Runs the engine until `done`, or fails after ten seconds.
async fn drive<T: Transform>(
    engine: &mut Engine<T>,
    (turns, nudge): (&Turns, &Nudge),
    echo: &mut Echo,
    done: impl Fn(&Echo) -> bool,
) {
    let start = clock::now().mono;
    let alarm = nudge.clone();
    let ticker = monoio::spawn(async move {
        loop {
            monoio::time::sleep(std::time::Duration::from_millis(5)).await;
            alarm.ring();
        }
    });
    drop(ticker);
    loop {
        let before = echo.received;
        let mut more = engine.serve(echo);
        echo.most_in_a_turn = echo.most_in_a_turn.max(echo.received - before);
        while let Some(conn) = echo.flush.pop_front() {
            engine.flush(conn, echo);
        }
        more |= engine.submit(echo) || !echo.flush.is_empty();
        if done(echo) {
            return;
        }
        assert!(clock::now().mono.since_ms(start) < 10_000, "not done in time");
        if more { turns.turn().await } else { nudge.wait().await }
    }
}

/// One byte stream through the engine and back, more than the socket buffers hold, with a reader that starts late.
fn everything_comes_back_in_order<T: Transform + 'static>(key: u8) {
    const TOTAL: usize = 3_000_000;
    for base in bases() {
        let (near, far) = pair();
        let mut writer = near.try_clone().unwrap();
        let send = std::thread::Builder::new().spawn(move || {
            let data: Vec<u8> = (0..TOTAL).map(|n| n.to_le_bytes()[1] ^ key).collect();
            writer.write_all(&data).unwrap();
        });
        let mut reader = near;
        let receive = std::thread::Builder::new().spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50)); // so that the engine meets a full socket
            let mut back = vec![0; TOTAL];
            reader.read_exact(&mut back).unwrap();
            back.iter().enumerate().all(|(n, byte)| byte ^ key == n.to_le_bytes()[1])
        });
        block_on(base.driver, |turns| async move {
            let (nudge, mut echo) = (Nudge::default(), Echo::default());
            let mut engine = Engine::<T>::new(base.engine, nudge.clone()).unwrap();
            adopt(&mut engine, conn(0, 0), far);
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| {
                echo.received == TOTAL && echo.outboxes.values().all(|outbox| outbox.frames.is_empty())
            })
            .await;
            assert!(
                echo.most_in_a_turn <= READS_PER_TURN_MAX * SCRATCH_BYTES,
                "{base:?}: {} bytes in a turn",
                echo.most_in_a_turn
            );
            engine.close(conn(0, 0), &mut echo);
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| echo.closed.len() == 1).await;
        });
        send.unwrap().join().unwrap();
        assert!(receive.unwrap().join().unwrap(), "{base:?}: bytes changed on their way");
    }
}

#[test]
fn everything_comes_back_in_order_over_plain_tcp() {
    everything_comes_back_in_order::<Identity>(0);
}

#[test]
fn everything_comes_back_in_order_through_a_transform() {
    everything_comes_back_in_order::<Xor>(KEY);
}

#[test]
fn closing_during_an_unfinished_send_joins_the_wait_and_closes_the_descriptor() {
    for base in bases() {
        let (near, far) = pair();
        block_on(base.driver, |turns| async move {
            let (nudge, mut echo) = (Nudge::default(), Echo::default());
            let mut engine = Engine::<Identity>::new(base.engine, nudge.clone()).unwrap();
            let id = conn(3, 7);
            adopt(&mut engine, id, far);
            for _ in 0..100 {
                echo.queue(id, &[0; 100_000]); // more than any socket buffer: the peer does not read
            }
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| echo.flush.is_empty()).await;
            assert!(!echo.outboxes[&id].frames.is_empty(), "the socket must be full");
            engine.close(id, &mut echo);
            engine.close(id, &mut echo); // a second time changes nothing
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| echo.closed == [id]).await;
            assert_eq!((engine.sockets(), echo.lost.len()), (0, 0), "{base:?}");
        });
        // The descriptor is gone: the peer reads to an end or a reset, and does not time out.
        let mut near = near;
        let mut scratch = vec![0; 65_536];
        loop {
            match near.read(&mut scratch) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{base:?}");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_peer_that_leaves_is_said_once_and_its_socket_stays_until_closed() {
    for base in bases() {
        let (near, far) = pair();
        drop(near);
        block_on(base.driver, |turns| async move {
            let (nudge, mut echo) = (Nudge::default(), Echo::default());
            let mut engine = Engine::<Identity>::new(base.engine, nudge.clone()).unwrap();
            let id = conn(0, 1);
            adopt(&mut engine, id, far);
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| !echo.lost.is_empty()).await;
            echo.queue(id, b"into the void");
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| echo.flush.is_empty()).await;
            assert_eq!((echo.lost.len(), engine.sockets()), (1, 1), "{base:?}");
            engine.close(id, &mut echo);
            assert_eq!((&echo.closed, engine.sockets()), (&vec![id], 0), "nothing was in flight");
        });
    }
}

#[test]
fn a_stale_id_reaches_nobody() {
    for base in bases() {
        let ((_near, far), (mut near2, far2)) = (pair(), pair());
        block_on(base.driver, |turns| async move {
            let (nudge, mut echo) = (Nudge::default(), Echo::default());
            let mut engine = Engine::<Identity>::new(base.engine, nudge.clone()).unwrap();
            let (old, new) = (conn(0, 1), conn(0, 2));
            adopt(&mut engine, old, far);
            engine.close(old, &mut echo);
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| echo.closed == [old]).await;
            adopt(&mut engine, new, far2);
            echo.queue(old, b"for the old one");
            engine.flush(old, &mut echo);
            engine.close(old, &mut echo);
            assert_eq!((engine.sockets(), echo.closed.len()), (1, 1), "{base:?}");
            assert!(!echo.outboxes[&old].frames.is_empty(), "nothing was sent for the stale id");
            engine.close(conn(9, 0), &mut echo); // never existed
            near2.write_all(b"hello").unwrap();
            echo.flush.clear();
            drive(&mut engine, (&turns, &nudge), &mut echo, |echo| {
                echo.outboxes.get(&new).is_some_and(|outbox| outbox.frames.is_empty())
            })
            .await;
            let mut back = [0; 5];
            near2.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"hello", "only the new one's bytes: {base:?}");
        });
    }
}

#[test]
fn a_fast_sender_does_not_keep_the_others_waiting() {
    for base in bases() {
        let ((fast, far), (mut slow, far2)) = (pair(), pair());
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (told, mut flood) = (std::sync::Arc::clone(&stop), fast.try_clone().unwrap());
        let flooder = std::thread::Builder::new().spawn(move || {
            while !told.load(std::sync::atomic::Ordering::Relaxed) && flood.write_all(&[0; 65_536]).is_ok() {}
        });
        block_on(base.driver, |turns| async move {
            let (nudge, mut echo) = (Nudge::default(), Echo::default());
            let mut engine = Engine::<Identity>::new(base.engine, nudge.clone()).unwrap();
            adopt(&mut engine, conn(0, 0), far);
            adopt(&mut engine, conn(1, 0), far2);
            let start = clock::now().mono;
            let mut answered = 0;
            while answered < 20 {
                slow.write_all(b"x").unwrap();
                let before = answered;
                while answered == before {
                    let more = engine.serve(&mut echo) | engine.submit(&mut echo);
                    answered += usize::from(echo.outboxes.remove(&conn(1, 0)).is_some());
                    echo.outboxes.clear(); // this test reads only
                    assert!(clock::now().mono.since_ms(start) < 10_000, "{base:?}: starved");
                    if more { turns.turn().await } else { nudge.wait().await }
                }
            }
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        drop(fast);
        drop(flooder);
    }
}
