//! The export: every record that a filter lets through, one a line, as the reader takes them. Nothing but a page is in memory.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use nodetap_wire::time::now_ns;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Grant};
use super::answer::{self, Answer, Broken, Refusal};
use super::metrics::Metrics;
use super::parameters::Asked;
use super::questions::{GRACE, storage};
use super::{Limits, Service, place, rows};
use crate::history::query::{Mark, Search};
use crate::history::{History, Page};
use crate::journal::facets::Test;
use crate::journal::{Entry, Journal, Position};

/// Records that are read at one time.
const BATCH: usize = 500;

/// Bytes of one chunk, but for a record that is longer.
const CHUNK: usize = 64 << 10;

const STOPS: &str = "the aggregator stops";

/// One export.
struct Export<H> {
    history: H,
    test: Test,
    left: usize,
    /// Records that were found and cannot be read.
    unreadable: u64,
    cluster: Arc<str>,
    limits: Limits,
    grant: Grant,
    access: Access,
    metrics: Metrics,
    text: Vec<u8>,
    chunks: mpsc::Sender<Result<Bytes, Broken>>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// What is read before anything is answered.
enum First {
    Newest(Page),
    /// Up to a position.
    Oldest(Vec<Entry>, Position),
}

/// Why an export does not go on.
enum End {
    /// Its reader went away.
    Gone,
    /// As many as were asked for are there.
    Enough,
    Broken(String),
}

impl<H: History + Journal> Service<H> {
    pub(super) async fn export(&self, asked: Asked, grant: Grant) -> Result<Answer, Refusal> {
        let place = place(&self.exports, "exports", self.limits.exports, 30)?;
        let (answer, chunks, _) = answer::chunks("application/x-ndjson");
        if !self.is_asked(&asked) {
            return Ok(answer);
        }
        let mut export = Export {
            history: self.history.clone(),
            test: Test::new(asked.filter)?,
            left: asked.limit.unwrap_or(usize::MAX),
            unreadable: 0,
            cluster: self.cluster.clone(),
            limits: self.limits,
            grant,
            access: self.access.clone(),
            metrics: self.metrics.clone(),
            text: Vec::new(),
            chunks,
            stop: self.stop.clone(),
            _place: place,
        };
        // The first page is waited for, so that a question that cannot be answered is refused and not broken off.
        let first = match asked.oldest_first {
            true => {
                // What is journalled from here on is not part of it.
                let end = *self.history.head().borrow();
                let reading = async { self.history.read_from(Position(0), BATCH).await.map_err(storage) };
                First::Oldest(self.in_time(reading).await?, end)
            }
            false => First::Newest(self.in_time(self.history.search(export.search(None))).await?),
        };
        tokio::spawn(async move {
            let ended = match first {
                First::Newest(page) => export.newest_first(page).await,
                First::Oldest(entries, end) => export.oldest_first(entries, end).await,
            };
            let ended = match ended {
                Ok(()) | Err(End::Enough) => export.end().await,
                other => other,
            };
            if let Err(End::Broken(reason)) = ended {
                tracing::warn!(reason, "an export of the history was cut short");
                // Where its reader is gone, nobody is told.
                let _ = export.chunks.send(Err(Broken(reason))).await;
            }
        });
        Ok(answer)
    }
}

// === impl Export ===

impl<H: History + Journal> Export<H> {
    fn search(&self, after: Option<Mark>) -> Search {
        let limit = self.left.min(BATCH);
        Search { filter: self.test.filter().clone(), after, limit, deadline: self.limits.deadline }
    }

    async fn newest_first(&mut self, mut page: Page) -> Result<(), End> {
        loop {
            self.unreadable += page.unreadable;
            self.metrics.leave_out(page.unreadable, page.last);
            for found in &page.found {
                self.write(&found.entry, true).await?;
            }
            let (Some(after), true) = (page.last, page.has_more) else { return Ok(()) };
            if self.left == 0 {
                return Err(End::Enough);
            }
            self.judge()?;
            page = self.wait(self.history.search(self.search(Some(after)))).await?;
        }
    }

    async fn oldest_first(&mut self, mut entries: Vec<Entry>, end: Position) -> Result<(), End> {
        let mut position = Position(0);
        loop {
            for entry in entries.iter().take_while(|entry| entry.position <= end) {
                self.gap(position, entry.position.0)?;
                position = entry.position;
                self.write(entry, false).await?;
            }
            if entries.last().is_none_or(|last| last.position > end) {
                // Up to there the journal has no more.
                return self.gap(position, end.0 + 1);
            }
            if position == end {
                return Ok(());
            }
            self.judge()?;
            entries = self.wait(self.history.read_from(position, BATCH)).await?;
        }
    }

    /// Says which positions the journal does not have any more, if there are some between two.
    fn gap(&mut self, after: Position, next: u64) -> Result<(), End> {
        if next > after.0 + 1 {
            if self.left == 0 {
                return Err(End::Enough);
            }
            let said = format!("{{\"gap\":{{\"after\":{},\"next\":{next}}}}}\n", after.0);
            self.text.extend(said.into_bytes());
        }
        Ok(())
    }

    /// Writes an entry that the filter lets through, or surely does.
    async fn write(&mut self, entry: &Entry, surely: bool) -> Result<(), End> {
        if self.left == 0 {
            return Err(End::Enough);
        }
        let row = match surely {
            true => rows::of(entry, &self.cluster).map(Some),
            false => rows::matching(entry, &self.cluster, &self.test),
        };
        match row {
            Ok(None) => {}
            Ok(Some(row)) => {
                self.left -= 1;
                self.text.extend(row);
                self.text.push(b'\n');
            }
            Err(error) => {
                self.unreadable += 1;
                self.metrics.leave_out_one(entry.position, &error);
            }
        }
        if self.text.len() >= CHUNK { self.flush().await } else { self.look_up() }
    }

    /// Says at the end how many records should have been in it and are not.
    async fn end(&mut self) -> Result<(), End> {
        if self.unreadable > 0 {
            let said = format!("{{\"unreadable\":{}}}\n", self.unreadable);
            self.text.extend(said.into_bytes());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.text.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        tokio::select! {
            // A reader that takes nothing loses its connection, and with it this.
            sent = self.chunks.send(Ok(text.into())) => sent.map_err(|_| End::Gone),
            () = self.stop.cancelled() => self.look_up(),
        }
    }

    /// What is read in time, unless it is not wanted any more.
    async fn wait<T>(&self, reading: impl Future<Output = Result<T, impl Display>>) -> Result<T, End> {
        tokio::select! {
            read = tokio::time::timeout(self.limits.deadline + GRACE, reading) => match read {
                Ok(read) => read.map_err(|error| End::Broken(error.to_string())),
                Err(late) => Err(End::Broken(format!("the journal cannot be read: {late}"))),
            },
            () = self.chunks.closed() => Err(End::Gone),
            () = self.stop.cancelled() => Err(End::Broken(STOPS.to_owned())),
        }
    }

    /// Whether who asked for it may still read: an export may take hours.
    fn judge(&self) -> Result<(), End> {
        match self.access.still_grants(&self.grant, now_ns()) {
            true => Ok(()),
            false => Err(End::Broken("its token or client certificate is no longer good".to_owned())),
        }
    }

    /// Whether it is to go on, though nothing was sent for long.
    fn look_up(&self) -> Result<(), End> {
        if self.stop.is_cancelled() {
            return Err(End::Broken(STOPS.to_owned()));
        }
        if self.chunks.is_closed() { Err(End::Gone) } else { Ok(()) }
    }
}
