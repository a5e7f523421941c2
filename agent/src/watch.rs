//! The event watches that this agent holds: list, watch, resume.
//!
//! Holds exactly the shards that it is assigned, each in a task of its own; what the API server sends goes to the outbox
//! in the order it came, and a checkpoint only after every record it covers. A watch that fails is tried again for ever.

pub mod backoff;
pub mod frame;
pub mod lines;
pub mod machine;
pub mod metrics;
pub mod names;
pub mod negotiate;
pub mod progress;
pub mod reach;
pub mod request;
pub mod tally;

mod exchange;
mod reports;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kube::Client;
use nodetap_wire::{AssignedWatch, Assignment, WatchReport};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use self::metrics::Metrics;
use self::names::Names;
use self::progress::Progress;
use self::reach::Reach;
use self::reports::Reports;
use self::request::Target;
use self::tally::Tally;
use self::worker::{Shared, Worker};
use crate::outbox::{Closed, Intake};

/// Most watches of one agent: more namespaces than that are an aggregator gone wrong.
const MAX_WATCHES: usize = 1_024;

/// A fault that comes back at once must not become a list a second.
const FAULT_WAIT: Duration = Duration::from_secs(30);

/// What the watches are wired to.
#[derive(Debug)]
pub struct Wiring {
    /// The whole of what is to be watched, each time it changes.
    pub assignments: watch::Receiver<Assignment>,
    /// Where records and checkpoints go.
    pub intake: Intake,
    /// Where reports go; a full channel holds up no watch, and gets the newest report of each shard.
    pub reports: mpsc::Sender<WatchReport>,
    /// What the watches took, for those who ask now and then.
    pub tally: Tally,
    /// The names of namespaces, where this agent watches them.
    pub names: Names,
    /// How soon the API server answers.
    pub reach: Reach,
    /// What is counted.
    pub metrics: Metrics,
    /// What `/livez` and `/readyz` answer from.
    pub progress: Progress,
}

/// Tasks of the shards that are held.
struct Runner {
    client: Client,
    shared: Shared,
    shards: HashMap<String, Held>,
    tasks: JoinSet<Result<(), Closed>>,
    cancel: CancellationToken,
}

/// A shard that is held.
struct Held {
    assigned: watch::Sender<AssignedWatch>,
    cancel: CancellationToken,
    /// Cancelled once the task is at its end.
    ended: CancellationToken,
    task: Id,
}

/// Watches what is assigned until cancelled, or until the outbox has ended.
pub async fn run(client: Client, wiring: Wiring, cancel: CancellationToken) {
    let Wiring { mut assignments, intake, reports, tally, names, reach, metrics, progress } = wiring;
    let shared = Shared { intake, metrics, progress, reports: Reports::default(), tally, names, reach };
    let mut runner = Runner {
        client,
        shared: shared.clone(),
        shards: HashMap::new(),
        tasks: JoinSet::new(),
        cancel: cancel.child_token(),
    };
    let serve = async {
        loop {
            let assignment = assignments.borrow_and_update().clone();
            runner.hold(&assignment).await;
            loop {
                tokio::select! {
                    changed = assignments.changed() => match changed {
                        Ok(()) => break,
                        // The link has ended: so does the agent.
                        Err(_) => return,
                    },
                    Some(ended) = runner.tasks.join_next_with_id() => if let Err(closed) = runner.ended(ended) {
                        debug!(%closed, "the event watches end with the outbox");
                        return;
                    },
                }
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = serve => {}
        () = shared.reports.forward(&reports) => {}
    }
    runner.cancel.cancel();
    while runner.tasks.join_next().await.is_some() {}
    shared.reports.flush(&reports);
}

// === impl Runner ===

impl Runner {
    /// Lets go of what is not named any more, and takes up what is.
    async fn hold(&mut self, assignment: &Assignment) {
        let named = named(assignment);
        let gone: Vec<_> = self.shards.extract_if(|name, _| !named.contains_key(name)).collect();
        for (_, held) in &gone {
            held.cancel.cancel();
        }
        // Given back soon after, a shard is not to be released by the task that had it before.
        for (_, held) in &gone {
            held.ended.cancelled().await;
        }
        for (name, (target, watch)) in named {
            match self.shards.get(&name) {
                Some(held) => {
                    held.assigned.send_if_modified(|held| {
                        let newer = *held != watch;
                        if newer {
                            *held = watch;
                        }
                        newer
                    });
                }
                None => self.start(name, target, watch, Duration::ZERO),
            }
        }
    }

    fn start(&mut self, name: String, target: Target, watch: AssignedWatch, after: Duration) {
        let cancel = self.cancel.child_token();
        let ended = CancellationToken::new();
        let (assigned, receiver) = watch::channel(watch);
        let client = self.client.clone();
        let worker =
            Worker::new(client, name.clone(), target, receiver, backoff::seed(), self.shared.clone());
        let task = hold_one(worker, after, cancel.clone(), ended.clone());
        let task = self.tasks.spawn(task.instrument(info_span!("watch", shard = name))).id();
        self.shards.insert(name, Held { assigned, cancel, ended, task });
    }

    /// Takes note of a task that has ended.
    fn ended(&mut self, ended: Result<(Id, Result<(), Closed>), JoinError>) -> Result<(), Closed> {
        let error = match ended {
            Ok((_, ended)) => return ended,
            Err(error) => error,
        };
        let task = error.id();
        let Some((name, held)) = self.shards.extract_if(|_, held| held.task == task).next() else {
            return Ok(());
        };
        // A fault of ours in one watch: the others go on. How far it had come is lost with it, so that it must not say
        // of anything that it is new.
        error!(%error, shard = name, "an event watch ended by a fault and is started again from a list");
        let watch = AssignedWatch { resource_version: String::new(), ..held.assigned.borrow().clone() };
        if let Some(target) = watch.shard.as_ref().and_then(Target::of) {
            self.start(name, target, watch, FAULT_WAIT);
        }
        Ok(())
    }
}

/// Drives one shard until it is let go of, and releases it.
async fn hold_one(
    worker: Worker,
    after: Duration,
    cancel: CancellationToken,
    ended: CancellationToken,
) -> Result<(), Closed> {
    // Dropped after the worker: who waits for the end finds the shard released.
    let _ended = ended.drop_guard();
    let mut worker = worker;
    let drive = async {
        sleep(after).await;
        worker.run().await
    };
    match cancel.run_until_cancelled(drive).await {
        Some(Err(closed)) => Err(closed),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// The shards of an assignment that can be watched, by name, with where they are; of one that stands twice, the newest.
fn named(assignment: &Assignment) -> BTreeMap<String, (Target, AssignedWatch)> {
    let mut named: BTreeMap<String, (Target, AssignedWatch)> = BTreeMap::new();
    for watch in &assignment.watches {
        let Some((name, target)) =
            watch.shard.as_ref().and_then(|shard| Some((shard.name(), Target::of(shard)?)))
        else {
            warn!(
                epoch = watch.epoch,
                "an assigned watch was refused: its share is not known, or no namespace"
            );
            continue;
        };
        if named.get(&name).is_some_and(|(_, known)| known.epoch >= watch.epoch) {
            continue;
        }
        if named.len() >= MAX_WATCHES && !named.contains_key(&name) {
            warn!(assigned = assignment.watches.len(), most = MAX_WATCHES, "too many watches are assigned");
            break;
        }
        named.insert(name, (target, watch.clone()));
    }
    named
}

#[cfg(test)]
mod tests;
