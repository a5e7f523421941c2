//! Sinks that write lines: `stdout` and `file`.
//!
//! Writing blocks, on a full pipe or a slow disk, so each such sink has a thread of its own, which lives as long as the sink.

use std::io;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use nodetap_wire::SharedStr;
use tokio::sync::oneshot;

use super::{Delivery, Failure, FailureClass, Limits, Outcome, Report, Sink};

/// One line to be written.
#[derive(Clone, Debug)]
pub struct Line {
    /// The record's identity.
    pub id: SharedStr,
    /// Its JSON, without a newline.
    pub body: Bytes,
}

/// Where lines go.
pub trait WriteLines: Send + 'static {
    /// Writes all of the lines, to where they survive what this sink promises to survive; or fails, and is asked for the rest again,
    /// perhaps after others.
    ///
    /// # Errors
    /// As the disk or pipe does.
    fn write(&mut self, lines: &[Line]) -> Result<(), Failed>;
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// So many of the lines, from the first on, are where they belong all the same.
    pub written: usize,
    /// Why the others are not.
    #[source]
    pub error: io::Error,
}

/// Hands lines to a writer on a thread of its own.
#[derive(Debug)]
pub struct LineSink {
    limits: Limits,
    jobs: Sender<Job>,
}

struct Job {
    lines: Vec<Line>,
    done: oneshot::Sender<Result<(), Failed>>,
}

// === impl LineSink ===

impl LineSink {
    /// Starts the writer's thread for the receiver called `name`.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn new(name: &str, limits: Limits, writer: impl WriteLines) -> io::Result<Self> {
        // One batch at a time: the loop waits for each.
        let (jobs, todo) = bounded(1);
        thread::Builder::new().name(format!("sink {name}")).spawn(move || work(writer, &todo))?;
        Ok(Self { limits, jobs })
    }
}

impl From<io::Error> for Failed {
    /// Of which no line is where it belongs.
    fn from(error: io::Error) -> Self {
        Self { written: 0, error }
    }
}

fn work(mut writer: impl WriteLines, todo: &Receiver<Job>) {
    for Job { lines, done } in todo {
        // Nobody waits for it any more where the loop was stopped meanwhile.
        let _ = done.send(writer.write(&lines));
    }
}

impl Sink for LineSink {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn deliver(&mut self, batch: &[Delivery], report: &mut Report) {
        let lines = batch
            .iter()
            .map(|delivery| Line { id: delivery.id.clone(), body: delivery.body.clone() })
            .collect();
        let (done, written) = oneshot::channel();
        let sent = self.jobs.try_send(Job { lines, done });
        let result = match sent {
            Ok(()) => written
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the writer's thread has ended").into())),
            Err(error) => Err(io::Error::other(error.to_string()).into()),
        };
        let written = result.as_ref().map_or_else(|failed| failed.written, |()| batch.len());
        let failure = result.err().map(|Failed { error, .. }| {
            Outcome::Retry(Failure { class: FailureClass::Write, reason: error.to_string(), after: None })
        });
        for index in 0..batch.len() {
            let failed = failure.clone().filter(|_| index >= written);
            report.set(index, failed.unwrap_or(Outcome::Delivered));
        }
    }
}

/// What comes within a moment: writing has a price for each batch, the syncs of the disk and of the cursor above all, and hardly
/// one for each line. With half as many, a file fell behind what the journal has in memory, and everything was read and unpacked
/// again for it.
pub const LIMITS: Limits = Limits { records: 2048, bytes: 3 << 20, wait: Duration::from_millis(20) };
