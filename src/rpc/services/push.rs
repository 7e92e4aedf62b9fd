//! `pinion.v1.Push` (proto/pinion/v1/push.proto): batches in, verdicts out, as a stream or as one unary call.
//!
//! What is in hand, and when there is room for more, is in `in_hand`; how verdicts are written in `verdicts`. What
//! always holds: messages of one call are one source, so they stay in order; a message in hand gets a last verdict, or
//! its push is cancelled because the caller is gone.

mod in_hand;
mod verdicts;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::batch::{Batch, BatchFault, BatchMessage};
use crate::limits::{GRPC_MESSAGE_BYTES_MAX, PUSH_USER_BYTES, PUSH_VERDICTS_BYTES, VERDICT_MARGIN_MS};
use crate::metrics::Metric;
use crate::pb::pinion::v1::{MessageVerdict, PushVerdicts};
use crate::rpc::call::{Call, End, Service, StreamCall};
use crate::rpc::exchange::{DrainWatch, Held};
use crate::rpc::stream::{Inbound, Outbound, encode, unless_draining};
use crate::shard::clock;
use crate::wire::grpc::{Status, code};

use in_hand::{Due, InHand};
use verdicts::{Room, Unsaid};

/// `Push/Stream`. What cannot be read on ends the stream when everything in hand has its verdicts.
pub(in crate::rpc) async fn stream(service: &Rc<Service>, call: StreamCall) -> Result<(), End> {
    let in_hand = InHand::of_stream(service);
    let mut reading = pin!(read(service, &in_hand, call.inbound, &call.drain));
    let mut writing = pin!(write(service, &in_hand, &call.outbound));
    let mut read_end = None;
    // One task for both, and the writer first: a reader that waits for verdicts to be sent looks again when they are.
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(end) = writing.as_mut().poll(cx) {
                return Poll::Ready(end.and(read_end.take().unwrap_or(Ok(()))));
            }
            if read_end.is_some() {
                return Poll::Pending;
            }
            match reading.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(end @ (Ok(()) | Err(End::Refused(_)))) => read_end = Some(end),
                Poll::Ready(end) => return Poll::Ready(end),
            }
            in_hand.no_more();
        }
    })
    .await
}

/// Takes batches until the caller half-closes.
async fn read(
    service: &Service,
    in_hand: &InHand,
    mut inbound: Inbound,
    drain: &DrainWatch,
) -> Result<(), End> {
    loop {
        in_hand.batch_fits().await;
        let Some(received) = unless_draining(drain, inbound.next()).await? else {
            return Ok(());
        };
        let arrived = clock::now().mono;
        let (messages, held) = batch(service, received.bytes, received.held)?;
        let held = in_hand.account(held);
        for message in messages {
            let pushed = async { Ok(in_hand.push(message, Due::in_its_time(arrived), &held).await?) };
            unless_draining(drain, pushed).await?;
        }
    }
}

/// Sends verdicts as they come: what is ready together leaves together.
async fn write(service: &Service, in_hand: &InHand, outbound: &Outbound) -> Result<(), End> {
    let mut unsaid: Option<Unsaid> = None;
    while unsaid.is_some() || in_hand.news().await {
        let (mut message, mut room) = (PushVerdicts::default(), Room::new(PUSH_VERDICTS_BYTES));
        let mut said = Vec::new();
        while !room.is_full()
            && let Some(mut part) = unsaid.take().or_else(|| in_hand.next())
        {
            let mut verdict = MessageVerdict { id: part.id, ..MessageVerdict::default() };
            part.say(&mut verdict, &mut room);
            message.verdicts.push(verdict);
            if part.is_said() {
                said.extend(part.ends());
            } else {
                unsaid = Some(part);
            }
        }
        outbound.send(&message).await?;
        said.into_iter().for_each(|ticket| in_hand.let_go(ticket));
        if room.is_full() {
            service.turns.turn().await;
        }
    }
    Ok(())
}

/// `Push/Send`: all verdicts in one answer, those that are known at the call's deadline.
pub(in crate::rpc) async fn send(service: &Rc<Service>, call: Call) -> Result<Bytes, Status> {
    let arrived = clock::now().mono;
    let (messages, held) = batch(service, call.message, service.exchange.hold_nothing())?;
    let in_hand = InHand::of_one_batch(service);
    let held = in_hand.account(held);
    let verdict = |message: &BatchMessage| MessageVerdict { id: message.id, ..MessageVerdict::default() };
    let mut answer = PushVerdicts { verdicts: messages.iter().map(verdict).collect() };
    // Before the call's deadline the last parts of the shards must have come.
    let budget_ms = call.deadline.since_ms(arrived);
    let due = Due::together(arrived, arrived.plus_ms(budget_ms - (budget_ms / 10).min(VERDICT_MARGIN_MS)));
    for message in messages {
        in_hand.push(message, due, &held).await?;
    }
    in_hand.no_more();
    let mut room = Room::new(GRPC_MESSAGE_BYTES_MAX);
    loop {
        let left = Duration::from_millis(call.deadline.since_ms(clock::now().mono));
        match monoio::time::timeout(left, in_hand.news()).await {
            Ok(true) => {}
            Ok(false) => return encode(&answer),
            Err(_) => in_hand.give_up(),
        }
        while let Some(part) = in_hand.next() {
            let ends = part.ends();
            say_whole(service, part, &mut answer, &mut room).await?;
            ends.into_iter().for_each(|ticket| in_hand.let_go(ticket));
        }
    }
}

/// Writes a part into the verdict of its message.
async fn say_whole(
    service: &Service,
    mut part: Unsaid,
    answer: &mut PushVerdicts,
    room: &mut Room,
) -> Result<(), Status> {
    let Some(verdict) = answer.verdicts.get_mut(part.position) else {
        return Ok(()); // one verdict was made for each message
    };
    loop {
        part.say(verdict, room);
        if part.is_said() {
            return Ok(());
        }
        if !room.has_bytes() {
            return Err(Status::new(
                code::RESOURCE_EXHAUSTED,
                "the messages were pushed, but their verdicts are larger than one answer: ask for totals, or use Stream",
            ));
        }
        service.turns.turn().await;
        room.next_turn();
    }
}

/// The messages of a batch, and the account of all that they hold.
fn batch(service: &Service, body: Bytes, mut held: Held) -> Result<(Vec<BatchMessage>, Held), Status> {
    let batch = Batch::decode(body).map_err(|fault| refused(service, &fault))?;
    held.grow(batch.users() * PUSH_USER_BYTES)?;
    let messages = batch.check().map_err(|fault| refused(service, &fault))?;
    Ok((messages, held))
}

fn refused(service: &Service, fault: &BatchFault) -> Status {
    match fault {
        BatchFault::Malformed(_) => {
            service.exchange.count(Metric::RpcBadRequest);
            Status::new(code::INTERNAL, format!("grpc: error unmarshalling request: {}", fault.text()))
        }
        BatchFault::TooManyMessages | BatchFault::TooManyUsers => {
            Status::new(code::RESOURCE_EXHAUSTED, fault.text())
        }
        BatchFault::Empty | BatchFault::Rule { .. } => Status::new(code::INVALID_ARGUMENT, fault.text()),
    }
}
