//! An agent's end of the stream, as far as a journal needs one: numbered batches, and what of them was acknowledged.

use std::net::SocketAddr;

use nodetap_wire::{
    AssignedWatch, Checkpoint, Durable, FromAgent, HeldWatch, Hello, Record, Records, frame, from_agent,
    to_agent,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::certificates::Identity;
use crate::{raw, within};

/// A stream.
pub struct Sender {
    frames: mpsc::Sender<FromAgent>,
    sequence: u64,
    /// What it watches: who watches nothing has no events to hand over.
    pub watch: AssignedWatch,
    /// The last batch that was acknowledged.
    pub acknowledged: watch::Receiver<u64>,
    /// What was said with it of what is durable.
    pub durable: watch::Receiver<Option<Durable>>,
    /// How often the journal said that it has lost something.
    pub lost: watch::Receiver<u64>,
    reading: JoinHandle<Option<Status>>,
}

/// Batches that may be under way, as an agent has them.
const UNDER_WAY: usize = 8;

impl Sender {
    /// Says hello, and what it watches already, and waits until it is told to watch.
    pub async fn connect(identity: &Identity, address: SocketAddr, held: Option<AssignedWatch>) -> Self {
        Self::resume(identity, address, held, None).await
    }

    /// The same of one to which something was acknowledged before.
    pub async fn resume(
        identity: &Identity,
        address: SocketAddr,
        held: Option<AssignedWatch>,
        acknowledged: Option<Durable>,
    ) -> Self {
        let (frames, sent) = mpsc::channel::<FromAgent>(UNDER_WAY);
        let held = held.map(|watch| HeldWatch { shard: watch.shard, epoch: watch.epoch });
        let hello = Hello {
            node: "node-1".to_owned(),
            instance: "1".to_owned(),
            held: held.into_iter().collect(),
            acknowledged,
            ..Hello::default()
        };
        frames.send(FromAgent { frame: Some(from_agent::Frame::Hello(hello)) }).await.unwrap();
        let sent = futures_util::stream::unfold(sent, |mut sent| async move {
            sent.recv().await.map(|frame| (frame, sent))
        });
        let mut incoming = raw::open(raw::channel(identity, address).await, sent).await.unwrap();
        let watch = loop {
            let message = within(incoming.message()).await.unwrap().expect("an assignment");
            if let Some(to_agent::Frame::Assignment(assignment)) = message.frame
                && let Some(watch) = assignment.watches.into_iter().next()
            {
                break watch;
            }
        };
        let (promise, durable) = watch::channel(acknowledged);
        let (acknowledge, acknowledged) = watch::channel(0);
        let (lose, lost) = watch::channel(0);
        let reading = tokio::spawn(async move {
            loop {
                match incoming.message().await {
                    Ok(Some(message)) => match message.frame {
                        Some(to_agent::Frame::Ack(ack)) => {
                            promise.send_replace(ack.durable);
                            acknowledge.send_replace(ack.sequence);
                        }
                        Some(to_agent::Frame::Lost(losses)) => _ = lose.send_replace(losses.times),
                        _ => {}
                    },
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                }
            }
        });
        Self { frames, sequence: 0, watch, acknowledged, durable, lost, reading }
    }

    /// Sends a batch and how far the watch has come with it; false: the stream has ended.
    pub async fn send(&mut self, records: Vec<Record>, version: u64) -> bool {
        self.sequence += 1;
        let AssignedWatch { shard, epoch, .. } = self.watch.clone();
        let checkpoint = Checkpoint { shard, epoch, resource_version: version.to_string() };
        let records = Records { records, checkpoints: vec![checkpoint] };
        let batch = frame::encode(self.sequence, &records).unwrap();
        let mut acknowledged = self.acknowledged.clone();
        let least = self.sequence.saturating_sub(UNDER_WAY as u64);
        acknowledged.wait_for(|sequence| *sequence >= least).await.is_ok()
            && self.frames.send(FromAgent { frame: Some(from_agent::Frame::Batch(batch)) }).await.is_ok()
    }

    /// Until everything that was sent is acknowledged; false: the stream ended before.
    pub async fn settled(&mut self) -> bool {
        let all = self.sequence;
        self.acknowledged.wait_for(|sequence| *sequence >= all).await.is_ok()
    }

    /// Until the other side has ended the stream; the last batch that it acknowledged, and what it said.
    pub async fn ended(self) -> (u64, Option<Status>) {
        let said = self.reading.await.unwrap();
        (*self.acknowledged.borrow(), said)
    }
}
