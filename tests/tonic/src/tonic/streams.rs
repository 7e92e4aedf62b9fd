//! `pinion.v1.Push/Stream`: order at a real client, half-close, 1 000 streams on one connection.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::api::{Api, batch, with_gateway};
use super::gateway::eventually;
use super::pb::pinion::{MessageVerdict, Outcome, PushBatch, PushVerdicts};

const MANY: u64 = 1_000;
/// Batches that wait for tonic on one stream.
const QUEUED_MAX: usize = 16;

/// Opens a stream; it is half-closed when the sender is dropped.
async fn open(api: &Api) -> (mpsc::Sender<PushBatch>, Streaming<PushVerdicts>) {
    let (batches, waiting) = mpsc::channel(QUEUED_MAX);
    let verdicts = api.pinion.clone().stream(ReceiverStream::new(waiting)).await.unwrap().into_inner();
    (batches, verdicts)
}

/// Reads to the end of the stream, which must be OK.
async fn rest(mut stream: Streaming<PushVerdicts>) -> Vec<MessageVerdict> {
    let mut verdicts = Vec::new();
    while let Some(answer) = stream.next().await {
        verdicts.extend(answer.unwrap().verdicts);
    }
    verdicts
}

#[test]
fn a_streams_messages_arrive_in_order_and_each_has_its_verdict() {
    with_gateway(|gateway, plain| async move {
        let listener = gateway.listen("anna");
        plain.online("anna").await;
        let mut wanted = Vec::new();
        for (name, api) in [("plain", plain.clone()), ("gzip", plain.gzip())] {
            let (batches, verdicts) = open(&api).await;
            let writer = tokio::spawn(async move {
                for id in 0..300 {
                    batches.send(batch(id, "anna", &format!("{name} {id}"), 0)).await.unwrap();
                }
            });
            let verdicts = rest(verdicts).await;
            writer.await.unwrap();
            for verdict in &verdicts {
                let outcomes: Vec<_> =
                    verdict.users.iter().flat_map(|u| &u.devices).map(|d| d.outcome()).collect();
                assert_eq!((outcomes, verdict.last), (vec![Outcome::Written], true), "{verdict:?}");
            }
            assert_eq!(verdicts.iter().map(|v| v.id).collect::<BTreeSet<_>>(), (0..300).collect());
            wanted.extend((0..300).map(|id| format!("{name} {id}")));
            eventually("all texts", || (listener.texts().len() >= wanted.len()).then_some(())).await;
            assert_eq!(listener.texts(), wanted);
        }
    });
}

#[test]
fn a_thousand_streams_are_open_at_once_on_one_connection() {
    with_gateway(|gateway, api| async move {
        let mut streams = Vec::new();
        for id in 0..MANY {
            let (batches, mut verdicts) = open(&api).await;
            batches.send(batch(id, "nobody", "x", 0)).await.unwrap();
            let answer = verdicts.next().await.unwrap().unwrap();
            assert_eq!(answer.verdicts[0].users[0].outcome(), Outcome::NotHere);
            streams.push((batches, verdicts));
        }
        gateway.settles("pinion_rpc_connections", 1).await;
        for (batches, verdicts) in streams {
            drop(batches);
            assert_eq!(rest(verdicts).await, []);
        }
    });
}
