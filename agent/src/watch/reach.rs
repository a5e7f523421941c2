//! Whether the API server answers this agent, and how soon.
//!
//! How soon is measured by what is asked of it anyway. Whether is asked when the aggregator wants to know it, as it does while a watch
//! fails somewhere, to give it to somebody who does better; an agent that has never asked anything is asked once how near it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use nodetap_wire::Reached;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::exchange::{Answer, Failure};
use super::metrics::Metrics;

/// For an answer, with the connection that it may need: a handover has 5 s in all, of which a dead connection takes 3 to be noticed.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Of so many times the shortest counts: what a busy moment adds is not distance. A watch is asked for every five minutes.
const TIMES: usize = 8;

/// Serves health alone, needs no permission of its own, and reads nothing from the storage of events.
const PATH: &str = "/readyz";

/// Shared by the watches, which measure, and the link, which asks and tells.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// In milliseconds, at least 1.
    times: Mutex<VecDeque<u32>>,
    /// The number of the last question.
    asked: watch::Sender<u64>,
    answers: watch::Sender<Option<Reached>>,
    /// How often the API server was reached.
    reached: watch::Sender<u64>,
}

// === impl Reach ===

impl Reach {
    /// The aggregator asks.
    pub fn ask(&self, number: u64) {
        self.0.asked.send_replace(number);
    }

    /// The number of the last question.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.0.asked.subscribe()
    }

    /// Answers.
    pub fn answer(&self, answer: Reached) {
        self.0.answers.send_replace(Some(answer));
    }

    /// What is answered.
    pub fn answers(&self) -> watch::Receiver<Option<Reached>> {
        self.0.answers.subscribe()
    }

    /// How soon the API server answers, in milliseconds; 0: not measured.
    pub fn answer_ms(&self) -> u32 {
        let times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().min().copied().unwrap_or(0)
    }

    /// An answer began so long after it was asked for.
    pub(super) fn took(&self, took: Duration) {
        let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX).max(1);
        let mut times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.push_back(took);
        if times.len() > TIMES {
            times.pop_front();
        }
    }

    /// Changes each time that the API server turns out to be there: what waits to ask it again need not.
    pub(super) fn reached(&self) -> watch::Receiver<u64> {
        self.0.reached.subscribe()
    }
}

/// Answers each question of the aggregator; the last one where several came meanwhile.
pub async fn run(client: Client, reach: Reach, metrics: Metrics, cancel: CancellationToken) {
    let mut asked = reach.asked();
    let serve = async {
        while asked.changed().await.is_ok() {
            let number = *asked.borrow_and_update();
            let failure = ask(&client, &reach, &metrics).await.err().unwrap_or_default();
            let reached = failure.is_empty();
            if reached {
                reach.0.reached.send_modify(|times| *times += 1);
            } else {
                tracing::warn!(failure, "the API server cannot be reached");
            }
            reach.answer(Reached { number, reached, answer_ms: reach.answer_ms(), failure });
        }
    };
    cancel.run_until_cancelled(serve).await;
}

/// Asks once. Who is refused has reached it; who is told that it is not ready has not.
async fn ask(client: &Client, reach: &Reach, metrics: &Metrics) -> Result<(), String> {
    let started = Instant::now();
    let asking = async {
        let answer = Answer::to(client, PATH, "*/*").await?;
        let took = started.elapsed();
        // Read to its end, the connection can be used again.
        answer.page().await.map(|_| took)
    };
    let answer = timeout(TIMEOUT, asking).await;
    let code = match &answer {
        Ok(Ok(_)) => Some(200),
        Ok(Err(failure)) => failure.code(),
        Err(_) => None,
    };
    metrics.requests.count("get", "readyz", code);
    match answer {
        Ok(Ok(took)) => {
            reach.took(took);
            Ok(())
        }
        Ok(Err(Failure::Refused { code, .. })) if code < 500 => Ok(()),
        Ok(Err(failure)) => Err(failure.words().to_owned()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}
