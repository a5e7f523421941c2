//! Generated lives of a pod with containers of every kind, observed in every interleaving: by snapshots, by a watch that lags, by log
//! files, over restarts of the agent that lose what had not arrived, or do not: of one with a disk, and of one that goes on from what the
//! aggregator had committed. Each death is told once, or counted as missed, and never both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nodetap_wire::identity::Identity;
use nodetap_wire::{LedgerEntry, Source, record};
use proptest::prelude::*;

use super::*;
use crate::outbox;
use crate::tap::memory::{Memory, remade};
use crate::tap::metrics::Metrics;
use crate::tap::pods::{ContainerSpec, ContainerState, ContainerStatus, Running, Terminated, Waiting};

const BEGAN: i64 = 1_700_000_000_000_000_000;
const UID: &str = "8f0c8b1e-5d4b-4f6e-9d2e-0a1b2c3d4e5f";
const CONTAINERS: [&str; 4] = ["setup", "proxy", "app", "debugger"];

/// What happens to the pod, or to who observes it.
#[derive(Clone, Debug)]
enum Step {
    /// The container gets on: it starts, ends, waits in back-off or starts again.
    Next { container: usize, back_off: bool, exit: i32 },
    /// The runtime forgets the one that ended before.
    Forget(usize),
    /// The node boots, or the runtime loses its state: counts begin at 0.
    Reset(usize),
    /// A snapshot of now.
    Snapshot,
    /// The watch delivers the next state that it has.
    Watch,
    /// The watch was cut and lists again.
    Relist,
    /// The log folder tells of the newest instance's file.
    Log(usize),
    /// What was told up to here has arrived.
    Arrive,
    /// The ledger is saved though nothing was told.
    Save,
    /// The agent is killed: so much of what was told and was not known to have arrived has arrived, of 255.
    Kill { arrived: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Created,
    Running,
    Ended,
    BackOff,
}

/// What one container truly does.
#[derive(Clone, Debug)]
struct Life {
    phase: Phase,
    count: u32,
    /// Instances begun, over all resets.
    begun: u32,
    exit: i32,
    last: Option<Terminated>,
}

/// What the kubelet shows of the pod, and how many deaths of each container it tells of.
#[derive(Clone, Debug)]
struct State {
    pod: Pod,
    deaths: Vec<u32>,
    /// Instances of each container that have begun, over all falls of its count.
    begun: Vec<u32>,
    /// Had begun, and had not ended.
    alive: u64,
}

/// What has arrived at the aggregator, or was counted by an agent.
#[derive(Clone, Debug, Default)]
struct Heard {
    identities: BTreeSet<Identity>,
    /// By container: the deaths, by what is one and the same death.
    deaths: BTreeMap<String, Vec<(u32, String)>>,
    missed: u64,
}

/// Where the ledger is kept over the end of an agent, and what has been heard of it so far.
trait Keeper {
    /// `resets`: counts may fall.
    fn new(ledger: &mut Ledger, resets: bool) -> Self;

    /// Something was observed.
    fn tell(&mut self, ledger: &mut Ledger, told: Told) -> Result<(), String>;

    /// Nothing was told that has not arrived.
    fn arrive(&mut self);

    fn save(&mut self, ledger: &mut Ledger);

    /// The ledger of the agent that comes after.
    fn kill(&mut self, arrived: u8) -> Result<Ledger, String>;

    fn heard(&self) -> &Heard;
}

/// A disk: what is on it, what was told and is not known to have arrived, and what had arrived before that.
struct OnDisk {
    resets: bool,
    saved: Vec<u8>,
    untold: Vec<ContainerDied>,
    heard: Heard,
    arrived_before: Heard,
}

/// The aggregator: what it remembers, what it has heard, and the batches that are on their way to it, with what was counted in them.
struct AtAggregator {
    resets: bool,
    memory: Memory,
    remembered: BTreeMap<String, LedgerEntry>,
    committed: Heard,
    pending: VecDeque<(outbox::Told, u64)>,
    /// With what is on its way.
    heard: Heard,
}

fn step(resets: bool) -> impl Strategy<Value = Step> {
    let container = 0..CONTAINERS.len();
    prop_oneof![
        12 => (container.clone(), any::<bool>(), 0..3).prop_map(|(container, back_off, exit)| Step::Next { container, back_off, exit }),
        1 => container.clone().prop_map(Step::Forget),
        u32::from(resets) => container.clone().prop_map(Step::Reset),
        3 => Just(Step::Snapshot),
        4 => Just(Step::Watch),
        1 => Just(Step::Relist),
        2 => container.prop_map(Step::Log),
        2 => Just(Step::Arrive),
        1 => Just(Step::Save),
        1 => any::<u8>().prop_map(|arrived| Step::Kill { arrived }),
    ]
}

fn at(seconds: u32) -> String {
    nodetap_wire::time::format_ns(BEGAN + i64::from(seconds) * 1_000_000_000).unwrap()
}

// === impl Life ===

impl Life {
    fn new() -> Self {
        Self { phase: Phase::Created, count: 0, begun: 0, exit: 0, last: None }
    }

    fn id(&self, name: &str) -> String {
        format!("containerd://{name}-{}", self.begun)
    }

    fn ended(&self, name: &str) -> Terminated {
        Terminated {
            exit_code: self.exit,
            reason: if self.exit == 0 { "Completed" } else { "Error" }.into(),
            started_at: at(2 * self.begun),
            finished_at: at(2 * self.begun + 1),
            container_id: self.id(name),
            ..Terminated::default()
        }
    }

    fn next(&mut self, name: &str, back_off: bool, exit: i32) {
        self.phase = match self.phase {
            Phase::Created => Phase::Running,
            Phase::Running => {
                self.exit = exit;
                Phase::Ended
            }
            // An ephemeral container never starts again, and an init container not once it has succeeded.
            Phase::Ended if name == "debugger" || (name == "setup" && self.exit == 0) => Phase::Ended,
            Phase::Ended if back_off => Phase::BackOff,
            Phase::Ended | Phase::BackOff => {
                self.last = Some(self.ended(name));
                self.count += 1;
                self.begun += 1;
                Phase::Running
            }
        };
    }

    fn reset(&mut self, name: &str) {
        if self.phase != Phase::Created && name != "debugger" {
            self.last = (self.phase != Phase::Running).then(|| self.ended(name));
            self.begun += 1;
            self.count = 0;
            self.phase = Phase::Running;
        }
    }

    fn status(&self, name: &str) -> ContainerStatus {
        let mut status =
            ContainerStatus { name: name.into(), restart_count: self.count, ..ContainerStatus::default() };
        let waiting = |reason: &str| Some(Waiting { reason: reason.into(), message: String::new() });
        if self.phase == Phase::Created {
            status.state.waiting = waiting("ContainerCreating");
            return status;
        }
        status.container_id = self.id(name);
        status.last_state = ContainerState { terminated: self.last.clone(), ..ContainerState::default() };
        match self.phase {
            Phase::Created => {}
            Phase::Running => status.state.running = Some(Running { started_at: at(2 * self.begun) }),
            Phase::Ended => status.state.terminated = Some(self.ended(name)),
            Phase::BackOff => {
                status.state.waiting = waiting("CrashLoopBackOff");
                status.last_state.terminated = Some(self.ended(name));
            }
        }
        status
    }

    fn instances(&self) -> u32 {
        self.begun + u32::from(self.phase != Phase::Created)
    }

    fn deaths(&self) -> u32 {
        self.count + u32::from(matches!(self.phase, Phase::Ended | Phase::BackOff))
    }
}

// === impl State ===

impl State {
    fn of(lives: &[Life]) -> Self {
        let mut pod = Pod::default();
        pod.metadata.uid = UID.into();
        pod.metadata.name = "web-0".into();
        pod.metadata.creation_timestamp = at(0);
        pod.spec.init_containers = ["setup", "proxy"]
            .map(|name| ContainerSpec {
                name: name.into(),
                restart_policy: if name == "proxy" { "Always" } else { "" }.into(),
                ..ContainerSpec::default()
            })
            .into();
        let statuses = CONTAINERS.iter().zip(lives).map(|(name, life)| life.status(name));
        for (name, status) in CONTAINERS.iter().zip(statuses) {
            match *name {
                "app" => pod.status.container_statuses.push(status),
                "debugger" => pod.status.ephemeral_container_statuses.push(status),
                _ => pod.status.init_container_statuses.push(status),
            }
        }
        Self {
            pod,
            deaths: lives.iter().map(Life::deaths).collect(),
            begun: lives.iter().map(Life::instances).collect(),
            alive: lives.iter().filter(|life| life.phase == Phase::Running).count() as u64,
        }
    }

    /// The ids of all terminated states that it shows.
    fn shown(&self) -> Vec<String> {
        let status = &self.pod.status;
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
            .into_iter()
            .flatten()
            .flat_map(|status| [&status.state.terminated, &status.last_state.terminated])
            .flatten()
            .map(|terminated| terminated.container_id.clone())
            .collect()
    }
}

// === impl Heard ===

impl Heard {
    /// Whether none of the deaths was known under another name.
    fn hear(&mut self, told: Told, resets: bool) -> Result<(), String> {
        self.missed += told.missed;
        for death in told.deaths {
            if !self.identities.insert(Identity::of_death("c", &death)) {
                // Told again after a restart: the aggregator knows it.
                continue;
            }
            let known = self.deaths.entry(death.container.clone()).or_default();
            // Where counts fall, an ordinal is no name.
            let twice = |(ordinal, id): &(u32, String)| {
                if resets { !id.is_empty() && *id == death.container_id } else { *ordinal == death.ordinal }
            };
            if known.iter().any(twice) {
                return Err(format!("{death:?} was told before: {known:?}"));
            }
            known.push((death.ordinal, death.container_id));
        }
        Ok(())
    }

    fn count(&self) -> u64 {
        self.deaths.values().map(|deaths| deaths.len() as u64).sum()
    }
}

// === impl OnDisk ===

impl Keeper for OnDisk {
    fn new(ledger: &mut Ledger, resets: bool) -> Self {
        let heard = Heard::default();
        Self { resets, saved: ledger.save(&[]), untold: Vec::new(), arrived_before: heard.clone(), heard }
    }

    fn tell(&mut self, ledger: &mut Ledger, told: Told) -> Result<(), String> {
        // Before it is told it is on the disk.
        if !told.deaths.is_empty() || told.missed > 0 {
            self.untold.extend(told.deaths.iter().cloned());
            self.save(ledger);
        }
        self.heard.hear(told, self.resets)
    }

    fn arrive(&mut self) {
        self.untold.clear();
        self.arrived_before = self.heard.clone();
    }

    fn save(&mut self, ledger: &mut Ledger) {
        self.saved = ledger.save(&self.untold.iter().collect::<Vec<_>>());
    }

    fn kill(&mut self, arrived: u8) -> Result<Ledger, String> {
        let mut ledger = Ledger::restore("node-1", &self.saved).map_err(|error| error.to_string())?;
        if arrived < 128 {
            // What was counted was read from the agent.
            self.heard = Heard { missed: self.heard.missed, ..self.arrived_before.clone() };
        }
        self.untold = ledger.take_untold();
        let deaths = self.untold.clone();
        self.heard.hear(Told { deaths, ..Told::default() }, self.resets)?;
        Ok(ledger)
    }

    fn heard(&self) -> &Heard {
        &self.heard
    }
}

// === impl AtAggregator ===

impl AtAggregator {
    /// Some batches become durable, each whole.
    fn commit(&mut self, batches: usize) {
        for (outbox::Told { records, ledger, first }, missed) in self.pending.drain(..batches) {
            let deaths = records.into_iter().map(|record| match record.kind {
                Some(record::Kind::Death(death)) => *death,
                other => panic!("{other:?}"),
            });
            // What it says of those told twice was said when they were sent.
            let _ = self
                .committed
                .hear(Told { deaths: deaths.collect(), missed, ..Told::default() }, self.resets);
            if first {
                self.remembered.clear();
            }
            for entry in ledger {
                match entry.state.is_empty() {
                    true => self.remembered.remove(&entry.pod_uid),
                    false => self.remembered.insert(entry.pod_uid.clone(), entry),
                };
            }
        }
    }

    /// Hands over what there is to tell. What was counted is durable with the entry that calls it counted.
    fn send(&mut self, ledger: &mut Ledger, deaths: Vec<ContainerDied>, missed: u64) {
        let mut missed = missed;
        for told in self.memory.tell(ledger, deaths, &[]) {
            let counts = told.ledger.iter().any(|entry| entry.pod_uid == UID);
            self.pending.push_back((told, if counts { std::mem::take(&mut missed) } else { 0 }));
        }
        assert_eq!(missed, 0, "counted, and not to be remembered");
    }
}

impl Keeper for AtAggregator {
    fn new(ledger: &mut Ledger, resets: bool) -> Self {
        let memory = Memory::new(ledger, Metrics::default());
        let (committed, heard) = <(Heard, Heard)>::default();
        let mut keeper =
            Self { resets, memory, remembered: BTreeMap::new(), committed, pending: VecDeque::new(), heard };
        // A node that was not known before begins as every node does.
        keeper.save(ledger);
        keeper.arrive();
        keeper
    }

    fn tell(&mut self, ledger: &mut Ledger, told: Told) -> Result<(), String> {
        if !told.deaths.is_empty() || told.missed > 0 {
            self.send(ledger, told.deaths.clone(), told.missed);
        }
        self.heard.hear(told, self.resets)
    }

    fn arrive(&mut self) {
        self.commit(self.pending.len());
    }

    fn save(&mut self, ledger: &mut Ledger) {
        self.send(ledger, Vec::new(), 0);
    }

    fn kill(&mut self, arrived: u8) -> Result<Ledger, String> {
        self.commit(self.pending.len() * usize::from(arrived) / 255);
        self.pending.clear();
        self.heard = self.committed.clone();
        let entries: Vec<LedgerEntry> = self.remembered.values().cloned().collect();
        let mut ledger = remade("node-1", &entries, false, &Metrics::default());
        self.memory = Memory::new(&mut ledger, Metrics::default());
        let deaths = ledger.take_untold();
        self.send(&mut ledger, deaths.clone(), 0);
        self.heard.hear(Told { deaths, ..Told::default() }, self.resets)?;
        Ok(ledger)
    }

    fn heard(&self) -> &Heard {
        &self.heard
    }
}

fn see_log(ledger: &mut Ledger, container: usize, ordinal: u32) {
    let (pod_uid, container) = (UID.into(), CONTAINERS[container].into());
    ledger.log_seen(LogSeen { pod_uid, container, ordinal });
}

/// Lives through `steps`.
fn live<K: Keeper>(steps: Vec<Step>, resets: bool) -> Result<(), String> {
    let mut lives = CONTAINERS.map(|_| Life::new());
    let mut ledger = Ledger::new("node-1", BEGAN);
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    let mut keeper = K::new(&mut ledger, resets);
    // States that the watch has not delivered, and how far each source has come.
    let mut states = vec![State::of(&lives)];
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut newest: Option<usize> = None;
    // Of each container, the instances that log files told of, and the newest file: an agent that starts finds it again.
    let mut logged = [0; CONTAINERS.len()];
    let mut logs = [None; CONTAINERS.len()];
    for step in steps {
        let observed = match step {
            Step::Next { container, back_off, exit } => {
                lives[container].next(CONTAINERS[container], back_off, exit);
                None
            }
            Step::Forget(container) => {
                lives[container].last = None;
                None
            }
            Step::Reset(container) => {
                lives[container].reset(CONTAINERS[container]);
                // A file of before the fall cannot be told from one that comes after it: the folder is made anew.
                logs[container] = None;
                None
            }
            Step::Log(container) => {
                let life = &lives[container];
                if life.phase != Phase::Created {
                    logged[container] = life.instances();
                    logs[container] = Some(life.count);
                    see_log(&mut ledger, container, life.count);
                }
                continue;
            }
            Step::Snapshot => Some((states.len() - 1, Source::Kubelet)),
            Step::Watch => {
                // A state of before a fall that nobody saw cannot be told from one that comes after it: no source lags there.
                while resets && queue.front().zip(newest).is_some_and(|(state, newest)| *state < newest) {
                    queue.pop_front();
                }
                queue.pop_front().map(|state| (state, Source::PodWatch))
            }
            Step::Relist => {
                queue.clear();
                Some((states.len() - 1, Source::PodWatch))
            }
            Step::Arrive => {
                keeper.arrive();
                continue;
            }
            Step::Save => {
                keeper.save(&mut ledger);
                continue;
            }
            Step::Kill { arrived } => {
                ledger = keeper.kill(arrived)?;
                for (container, log) in logs.iter().enumerate() {
                    if let Some(ordinal) = log {
                        see_log(&mut ledger, container, *ordinal);
                    }
                }
                queue.clear();
                newest = None;
                continue;
            }
        };
        let Some((index, source)) = observed else {
            states.push(State::of(&lives));
            queue.push_back(states.len() - 1);
            continue;
        };
        let state = &states[index];
        for again in [false, true] {
            let told = ledger.observe(&state.pod, Seen { at_ns: BEGAN, source });
            let stale = newest.is_some_and(|newest| index < newest);
            if (again || stale) && !(told.deaths.is_empty() && told.missed == 0) {
                return Err(format!("what was seen before told {told:?}"));
            }
            keeper.tell(&mut ledger, told)?;
        }
        if newest.is_some_and(|newest| index < newest) {
            continue;
        }
        newest = Some(index);
        let heard = keeper.heard();
        let total = heard.count() + heard.missed;
        let deaths: u64 = state.deaths.iter().map(|deaths| u64::from(*deaths)).sum();
        if !resets && total != deaths {
            return Err(format!("{deaths} deaths, {} told, {} missed", heard.count(), heard.missed));
        }
        for id in state.shown() {
            if !heard.deaths.values().flatten().any(|(_, known)| *known == id) {
                // Found by its log file before it was shown: known under its ordinal.
                let by_log = heard.deaths.values().flatten().any(|(_, known)| known.is_empty());
                if !by_log {
                    return Err(format!("{id} was shown and not told"));
                }
            }
        }
    }
    // The pod is gone: what had begun, as far as was seen, and was not told of, has ended, and nobody saw how.
    if let Some(newest) = newest {
        let state = &states[newest];
        ledger.gone(UID, BEGAN);
        let unseen: u64 = ledger.settle(BEGAN + 3_600_000_000_000).iter().map(|unseen| unseen.ends).sum();
        let heard = keeper.heard();
        let told = heard.count() + heard.missed;
        let begun: u64 =
            state.begun.iter().zip(logged).map(|(begun, logged)| u64::from(logged.max(*begun))).sum();
        // Instances before a fall that nobody saw are not known of.
        let right =
            if resets { unseen >= state.alive && told + unseen <= begun } else { told + unseen == begun };
        if !right {
            return Err(format!(
                "{begun} have begun, {told} told, {unseen} unseen ends, {} alive",
                state.alive
            ));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn over_restarts_and_in_any_interleaving_each_death_is_told_once_or_counted(steps in prop::collection::vec(step(false), 1..60)) {
        prop_assert_eq!(live::<OnDisk>(steps, false), Ok(()));
    }

    #[test]
    fn without_a_disk_and_from_what_the_aggregator_had_committed_each_death_is_told_once_or_counted(
        steps in prop::collection::vec(step(false), 1..60)
    ) {
        prop_assert_eq!(live::<AtAggregator>(steps, false), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn where_counts_fall_each_death_that_is_shown_is_told_once(steps in prop::collection::vec(step(true), 1..60)) {
        prop_assert_eq!(live::<OnDisk>(steps, true), Ok(()));
    }

    #[test]
    fn where_counts_fall_each_death_that_is_shown_is_told_once_without_a_disk(steps in prop::collection::vec(step(true), 1..60)) {
        prop_assert_eq!(live::<AtAggregator>(steps, true), Ok(()));
    }
}
