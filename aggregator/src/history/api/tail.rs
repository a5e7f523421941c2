//! The live tail: records as they are journalled, as server-sent events (HTML Standard, 9.2).
//!
//! It reads the journal behind a position, as a sink does: whoever comes back with the last id misses nothing that is kept, and is
//! told where retention has left a gap. A reader that takes nothing is cut, and told why. One that is behind is judged, hears that
//! it is still served and how far it has come, and goes when its reader does, as one that waits.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use nodetap_wire::time::now_ns;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Grant};
use super::answer::{self, Answer, Broken, Refusal};
use super::metrics::{Cut, CutLabel, Metrics};
use super::parameters::Asked;
use super::{Limits, Service, place, rows};
use crate::history::History;
use crate::journal::facets::Test;
use crate::journal::{Journal, Position};

/// Entries of one read.
const BATCH: usize = 256;

/// Bytes of one chunk, but for a record that is longer.
const CHUNK: usize = 64 << 10;

/// After it has come to the end: what is journalled meanwhile is read at once, and not commit by commit.
const PAUSE: Duration = Duration::from_millis(200);

/// One tail.
struct Tail<H> {
    history: H,
    head: watch::Receiver<Position>,
    /// None where it is of another cluster.
    test: Option<Test>,
    position: Position,
    cluster: Arc<str>,
    limits: Limits,
    grant: Grant,
    access: Access,
    metrics: Metrics,
    chunks: mpsc::Sender<Result<Bytes, Broken>>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// Why a tail ends.
enum End {
    /// Its reader went away.
    Gone,
    Cut(Cut),
}

/// Counts a tail as long as it is there.
struct Open(Metrics);

impl<H: History + Journal> Service<H> {
    pub(super) fn tail(&self, asked: Asked, headers: &HeaderMap, grant: Grant) -> Result<Answer, Refusal> {
        let head = self.history.head();
        let end = *head.borrow();
        let after = match headers.get("last-event-id") {
            None => asked.after,
            Some(value) => {
                let text = String::from_utf8_lossy(value.as_bytes());
                let position = text.parse().map_err(|_| {
                    Refusal::parameter("Last-Event-ID", &text, "expected the id of an event of this tail")
                })?;
                Some(Position(position))
            }
        };
        let test = self.is_asked(&asked).then(|| Test::new(asked.filter)).transpose()?;
        let place = place(&self.tails, "tails", self.limits.tails, 10)?;
        let (mut answer, chunks, farewell) = answer::chunks("text/event-stream");
        // Or a proxy would keep it until there is enough.
        super::set(&mut answer, http::header::HeaderName::from_static("x-accel-buffering"), "no");
        let tail = Tail {
            history: self.history.clone(),
            head,
            test,
            position: after.unwrap_or(end),
            cluster: self.cluster.clone(),
            limits: self.limits,
            grant,
            access: self.access.clone(),
            metrics: self.metrics.clone(),
            chunks,
            stop: self.stop.clone(),
            _place: place,
        };
        tokio::spawn(tail.run(farewell));
        Ok(answer)
    }
}

// === impl Tail ===

impl<H: History + Journal> Tail<H> {
    async fn run(mut self, farewell: Arc<OnceLock<Bytes>>) {
        let _open = Open::new(&self.metrics);
        let Err(End::Cut(cut)) = self.follow().await else { return };
        self.metrics.cut.get_or_create(&CutLabel { reason: cut }).inc();
        let (reason, message) = cut.said();
        tracing::info!(reason, position = self.position.0, "a live tail was cut");
        let said = serde_json::json!({"reason": reason, "message": message, "position": self.position.0});
        // Nobody else sets it.
        let _ = farewell.set(Bytes::from(format!("event: end\ndata: {said}\n\n")));
    }

    async fn follow(&mut self) -> Result<Infallible, End> {
        let end = *self.head.borrow_and_update();
        let mut said = format!("retry: 2000\nid: {}\n\n", self.position.0.min(end.0));
        if self.position > end {
            // The journal is not the one that gave this id: it was lost, or set aside.
            said += &gap(self.position, end.0 + 1);
            self.position = end;
        }
        self.send(said.into()).await?;
        let mut said_at = Instant::now();
        loop {
            self.judge()?;
            if said_at.elapsed() >= self.limits.keep_alive {
                // With the id, so that who comes back does not ask for what no filter let through.
                self.send(format!(": nothing new\nid: {}\n\n", self.position.0).into()).await?;
                said_at = Instant::now();
            }
            let end = *self.head.borrow_and_update();
            if self.position < end {
                let (chunks, stop) = (self.chunks.clone(), self.stop.clone());
                let has_sent = tokio::select! {
                    read = self.read(end) => read?,
                    why = ended(&chunks, &stop) => return Err(why),
                };
                if has_sent {
                    said_at = Instant::now();
                }
                if self.position < end {
                    continue;
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    why = ended(&chunks, &stop) => return Err(why),
                }
            }
            tokio::select! {
                changed = self.head.changed() => changed.map_err(|_| End::Cut(Cut::journal))?,
                why = ended(&self.chunks, &self.stop) => return Err(why),
                () = tokio::time::sleep_until(said_at + self.limits.keep_alive) => {}
            }
        }
    }

    /// Reads on towards `end`. Answers whether something was sent.
    async fn read(&mut self, end: Position) -> Result<bool, End> {
        let reading = self.history.read_from(self.position, BATCH);
        let read = tokio::time::timeout(self.limits.deadline, reading).await;
        let entries = read.map_err(|late| unread(&late))?.map_err(|error| unread(&error))?;
        let mut text: Vec<u8> = Vec::new();
        let mut has_sent = false;
        if entries.is_empty() {
            text.extend(gap(self.position, end.0 + 1).into_bytes());
            self.position = end;
        }
        for entry in entries {
            if entry.position.0 > self.position.0 + 1 {
                text.extend(gap(self.position, entry.position.0).into_bytes());
            }
            self.position = entry.position;
            let Some(test) = &self.test else { continue };
            match rows::matching(&entry, &self.cluster, test) {
                Ok(None) => {}
                Ok(Some(row)) => {
                    // JSON has no line ends.
                    text.extend(format!("id: {}\nevent: record\ndata: ", entry.position.0).into_bytes());
                    text.extend(row);
                    text.extend(b"\n\n");
                    self.metrics.tailed.inc();
                }
                Err(error) => {
                    self.metrics.leave_out_one(entry.position, &error);
                    let before = Position(entry.position.0.saturating_sub(1));
                    text.extend(gap(before, entry.position.0 + 1).into_bytes());
                }
            }
            if text.len() >= CHUNK {
                has_sent = true;
                self.send(std::mem::take(&mut text).into()).await?;
            }
        }
        if !text.is_empty() {
            has_sent = true;
            self.send(text.into()).await?;
        }
        Ok(has_sent)
    }

    async fn send(&self, bytes: Bytes) -> Result<(), End> {
        let sending = tokio::time::timeout(self.limits.stall, self.chunks.send(Ok(bytes)));
        tokio::select! {
            sent = sending => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Gone),
                Err(_) => Err(End::Cut(Cut::slow)),
            },
            () = self.stop.cancelled() => Err(End::Cut(Cut::stopping)),
        }
    }

    fn judge(&self) -> Result<(), End> {
        match self.access.still_grants(&self.grant, now_ns()) {
            true => Ok(()),
            false => Err(End::Cut(Cut::access)),
        }
    }
}

/// Until its reader has gone, or it is to stop.
async fn ended(chunks: &mpsc::Sender<Result<Bytes, Broken>>, stop: &CancellationToken) -> End {
    tokio::select! {
        () = chunks.closed() => End::Gone,
        () = stop.cancelled() => End::Cut(Cut::stopping),
    }
}

/// What lies between, the journal has no more.
fn gap(after: Position, next: u64) -> String {
    format!("event: gap\ndata: {{\"after\":{},\"next\":{next}}}\n\n", after.0)
}

fn unread(error: &dyn std::fmt::Display) -> End {
    tracing::warn!(%error, "a live tail cannot read the journal");
    End::Cut(Cut::journal)
}

// === impl Cut ===

impl Cut {
    /// To its reader.
    pub(super) fn said(self) -> (&'static str, &'static str) {
        match self {
            Self::slow => {
                ("slow", "nothing was taken for too long: come back with the last id, or filter for less")
            }
            Self::access => {
                ("access", "the token is no longer one that may read, or the client certificate has expired")
            }
            Self::journal => ("journal", "the journal cannot be read: come back later with the last id"),
            Self::stopping => ("stopping", "the aggregator stops: come back with the last id"),
        }
    }
}

// === impl Open ===

impl Open {
    fn new(metrics: &Metrics) -> Self {
        metrics.tails.inc();
        Self(metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.tails.dec();
    }
}
