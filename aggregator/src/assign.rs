//! Which agent watches what; epochs and checkpoints.
//!
//! One task owns the plan. Streams join it and get a receiver of their assignment; a receiver that is closed means that another
//! stream of the same node took the place.

pub mod metrics;
pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nodetap_wire::time::now_ns;
use nodetap_wire::{Assignment, HeldWatch, WatchReport, WatchState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::metrics::{ChangeLabels, Metrics, ReportLabels, StateLabel};
use self::plan::{Holdings, Plan};
use crate::journal::{Journal, JournalError};

/// What streams say that is not yet heard: each waits for its turn, so this only smooths a restart with all agents at once.
const INPUTS: usize = 1_024;

/// How often what depends on time alone is looked at.
const TICK: Duration = Duration::from_millis(250);

/// For reading the checkpoints; without them a shard is given out again at the next tick.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where streams join.
#[derive(Clone, Debug)]
pub struct Assigner {
    inputs: mpsc::Sender<Input>,
    holdings: watch::Receiver<Arc<Holdings>>,
}

/// One stream's place. Dropping it is leaving.
#[derive(Debug)]
pub struct Membership {
    node: String,
    stream: u64,
    /// What the agent is to watch. Closed: another stream of the node took the place, or the aggregator stops.
    pub assignments: watch::Receiver<Assignment>,
    /// The node held a shard before, or says so.
    pub has_held: bool,
    assigner: Assigner,
}

/// Assigning has ended: the aggregator is stopping.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the aggregator is stopping")]
pub struct Stopped;

#[derive(Debug)]
enum Input {
    Joined {
        node: String,
        stream: u64,
        held: Vec<HeldWatch>,
        answer: oneshot::Sender<(watch::Receiver<Assignment>, bool)>,
    },
    Left {
        node: String,
        stream: u64,
    },
    Reported {
        node: String,
        report: WatchReport,
    },
}

/// The task that owns the plan.
#[derive(Debug)]
pub struct Driver<J> {
    plan: Plan,
    journal: J,
    inputs: mpsc::Receiver<Input>,
    members: BTreeMap<String, Member>,
    holdings: watch::Sender<Arc<Holdings>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Member {
    stream: u64,
    assignment: watch::Sender<Assignment>,
}

/// The plan's task and the way to it. Reads the journal's checkpoints first, so that no epoch is given twice.
///
/// # Errors
/// Where the journal cannot say what its checkpoints are.
pub async fn assign<J: Journal>(
    mut plan: Plan,
    journal: J,
    metrics: Metrics,
) -> Result<(Assigner, Driver<J>), JournalError> {
    plan.known(&journal.checkpoints().await?);
    let (inputs, receiver) = mpsc::channel(INPUTS);
    let (holdings, published) = watch::channel(Arc::new(plan.holdings()));
    let driver = Driver { plan, journal, inputs: receiver, members: BTreeMap::new(), holdings, metrics };
    driver.publish();
    Ok((Assigner { inputs, holdings: published }, driver))
}

// === impl Assigner ===

impl Assigner {
    /// A node's agent said hello on a stream. `stream` must be greater than that of any stream before.
    ///
    /// # Errors
    /// When the aggregator stops.
    pub async fn join(&self, node: &str, stream: u64, held: Vec<HeldWatch>) -> Result<Membership, Stopped> {
        let (answer, answered) = oneshot::channel();
        let input = Input::Joined { node: node.to_owned(), stream, held, answer };
        self.inputs.send(input).await.map_err(|_| Stopped)?;
        let (assignments, has_held) = answered.await.map_err(|_| Stopped)?;
        Ok(Membership { node: node.to_owned(), stream, assignments, has_held, assigner: self.clone() })
    }

    /// Who holds what now.
    pub fn holdings(&self) -> Arc<Holdings> {
        self.holdings.borrow().clone()
    }
}

// === impl Membership ===

impl Membership {
    /// A watch reported its state.
    ///
    /// # Errors
    /// When the aggregator stops.
    pub async fn report(&self, report: WatchReport) -> Result<(), Stopped> {
        let input = Input::Reported { node: self.node.clone(), report };
        self.assigner.inputs.send(input).await.map_err(|_| Stopped)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let input = Input::Left { node: std::mem::take(&mut self.node), stream: self.stream };
        // Where there is no room, the next tick finds the closed receiver.
        let _ = self.assigner.inputs.try_send(input);
    }
}

// === impl Driver ===

impl<J: Journal> Driver<J> {
    /// Runs until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input).await,
                    None => return,
                },
                _ = tick.tick() => {
                    self.sweep();
                    self.settle().await;
                }
            }
        }
    }

    async fn take(&mut self, input: Input) {
        let now = Instant::now().into_std();
        match input {
            Input::Joined { node, stream, held, answer } => {
                self.plan.joined(now, &node, stream, &held);
                self.settle().await;
                let (assignment, receiver) = watch::channel(self.plan.assignment(&node));
                let has_held = self.plan.has_held(&node);
                // The sender that this drops is what tells an older stream that it was replaced.
                self.members.insert(node, Member { stream, assignment });
                // Where the stream is gone already, its receiver is dropped here and swept up at the next tick.
                let _ = answer.send((receiver, has_held));
            }
            Input::Left { node, stream } => self.left(&node, stream),
            Input::Reported { node, report } => {
                let state = state(&report);
                tracing::info!(
                    node,
                    epoch = report.epoch,
                    ?state,
                    failure = report.failure,
                    "watch reported its state"
                );
                self.metrics.reports.get_or_create_owned(&ReportLabels { state }).inc();
                let seconds = now_ns().div_euclid(1_000_000_000);
                self.metrics.last_report.get_or_create_owned(&ReportLabels { state }).set(seconds);
                self.plan.reported(now, &node, &report);
            }
        }
    }

    fn left(&mut self, node: &str, stream: u64) {
        if self.members.get(node).is_some_and(|member| member.stream == stream) {
            self.members.remove(node);
        }
        self.plan.left(Instant::now().into_std(), node, stream);
    }

    fn sweep(&mut self) {
        let gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.assignment.is_closed())
            .map(|(node, member)| (node.clone(), member.stream))
            .collect();
        for (node, stream) in gone {
            self.left(&node, stream);
        }
    }

    async fn settle(&mut self) {
        if self.plan.is_due(Instant::now().into_std()) {
            match tokio::time::timeout(CHECKPOINT_TIMEOUT, self.journal.checkpoints()).await {
                Ok(Ok(checkpoints)) => self.plan.known(&checkpoints),
                Ok(Err(error)) => return self.without_checkpoints(&error),
                Err(error) => return self.without_checkpoints(&error),
            }
            for change in self.plan.settle(Instant::now().into_std()) {
                tracing::info!(node = change.node, epoch = change.epoch, shard = ?change.shard.share, cause = ?change.cause, "watch given to an agent");
                self.metrics.changes.get_or_create_owned(&ChangeLabels { cause: change.cause.into() }).inc();
            }
        }
        self.publish();
    }

    /// Without them the new holder would list everything anew: better at the next tick with them.
    fn without_checkpoints(&self, error: &dyn std::fmt::Display) {
        self.metrics.checkpoint_failures.inc();
        tracing::warn!(%error, "no checkpoints from the journal, so no watch is given out now");
    }

    fn publish(&self) {
        let holdings = self.plan.holdings();
        let vacant = holdings.iter().filter(|holding| holding.node.is_none()).count();
        self.metrics.vacant.set(i64::try_from(vacant).unwrap_or(i64::MAX));
        let epoch = holdings.iter().map(|holding| holding.epoch).max().unwrap_or(0);
        self.metrics.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        // First, so that a holder's first checkpoint is already known to be its own.
        let changed = self.holdings.send_if_modified(|current| {
            let changed = **current != holdings;
            if changed {
                *current = Arc::new(holdings);
            }
            changed
        });
        if !changed {
            return;
        }
        for (node, member) in &self.members {
            member.assignment.send_if_modified(|current| {
                let assignment = self.plan.assignment(node);
                // The resourceVersion alone moves all the time and matters only to whoever starts.
                let key = |assignment: &Assignment| -> Vec<_> {
                    assignment.watches.iter().map(|watch| (watch.shard.clone(), watch.epoch)).collect()
                };
                let changed = key(current) != key(&assignment);
                if changed {
                    *current = assignment;
                }
                changed
            });
        }
    }
}

fn state(report: &WatchReport) -> StateLabel {
    match report.state() {
        WatchState::Unspecified => StateLabel::unknown,
        WatchState::Listing => StateLabel::listing,
        WatchState::Watching => StateLabel::watching,
        WatchState::BackingOff => StateLabel::backing_off,
        WatchState::Released => StateLabel::released,
    }
}
