//! Who holds which share of the events: a state machine, without a clock or a network of its own.
//!
//! Promises: at most one holder of a share has its current epoch; the epoch grows with every holder; one that was only away for
//! a moment keeps what it has; a share is given out with the last checkpoint that covers it; whoever gives one away goes on
//! until the next one watches.

mod giving;
mod known;
mod seating;
mod way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use nodetap_wire::shard::Share;
use nodetap_wire::{AssignedWatch, Assignment, Checkpoint, HeldWatch, Shard, WatchReport, WatchState};

use self::known::Known;
use self::way::{Asking, Way};
use super::choose::Partition;
use super::spread::Effort;

/// How long things may take before a share goes to somebody else.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a holder whose stream was cut to come back.
    pub away: Duration,
    /// After a start, without another agent that comes, for the holders from before to say that they still hold.
    pub restart: Duration,
    /// The same, however many come.
    pub restart_at_most: Duration,
    /// For a holder that fails, or that never reported, though it reaches the API server as others do. One that does not, while others
    /// do, loses its watches at once.
    pub failing: Duration,
    /// Until a share that was taken from a holder for failing is taken from the next one for no more than that.
    pub rests: Duration,
    /// Until an agent that failed is asked again while others are there.
    pub shunned: Duration,
    /// Without another change, until shares are moved for balance alone.
    pub balance: Duration,
    /// The same, however much changes.
    pub balance_at_most: Duration,
    /// For the next holder to watch, while the one before goes on.
    pub handover: Duration,
    /// The same where all shares change.
    pub changeover: Duration,
    /// Until a node whose agent went away has no share of its own any more, and until a share that there is no more is forgotten.
    pub gone: Duration,
}

/// The state of all assignments.
#[derive(Debug)]
pub struct Plan {
    patience: Patience,
    started: Instant,
    last_joined: Instant,
    partition: Partition,
    /// Into how many ranges the uids were last divided; 0: never.
    ranges: u32,
    /// What agents hold from before a start may say what the partition was.
    may_adopt: bool,
    /// The partition was changed since the start: nobody from before is waited for.
    was_changed: bool,
    seats: BTreeMap<Shard, Seat>,
    /// Watches of the partition before, until those of this one watch.
    outgoing: BTreeMap<Shard, Holding>,
    outgoing_since: Instant,
    agents: BTreeMap<String, Agent>,
    former: Former,
    known: Known,
    /// The namespaces; `None`: not known yet.
    namespaces: Option<BTreeSet<String>>,
    /// Nodes with an agent, and when they were last seen without one.
    hosts: BTreeMap<String, Option<Instant>>,
    /// Those of them whose events are left out of the share of events that name no node.
    apart: Vec<String>,
    hot: BTreeSet<Shard>,
    /// Nodes on which no pods are to be put, whether their agents are there or not.
    cordoned: BTreeSet<String>,
    asking: Asking,
    /// Agents that came, and have not measured how near they are.
    unmeasured: Vec<String>,
    /// Since when, and when last, something changed for which shares may have to be moved.
    unbalanced: Option<(Instant, Instant)>,
    /// All agents hold as much as they can, and there is more.
    is_full: bool,
    /// The journal lost its end: what is held from before is beyond what it has.
    is_rewound: bool,
    version: u64,
}

/// One share and its holder.
#[derive(Debug)]
struct Seat {
    epoch: u64,
    resource_version: String,
    holder: Option<Holder>,
    /// Who goes on until the holder watches.
    leaving: Option<Leaving>,
    /// It was held since the start: there is nobody from before to wait for.
    was_held: bool,
    /// What the journal had of it is lost: its holder has to begin again.
    is_lost: bool,
    /// The epoch that was given for that last: who has held it under an earlier one goes back.
    lost_before: u64,
    /// When it was last taken from a holder for failing.
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Holder {
    node: String,
    since: Instant,
    /// When its stream was cut; `None` while it is connected.
    away_since: Option<Instant>,
    /// Since when it has been failing, or has not reported.
    failing_since: Option<Instant>,
    state: WatchState,
    failure: String,
}

#[derive(Debug)]
struct Leaving {
    node: String,
    epoch: u64,
    since: Instant,
}

#[derive(Debug)]
struct Agent {
    /// The stream that speaks for the node.
    stream: u64,
    failed_at: Option<Instant>,
    /// It has been told to end.
    is_draining: bool,
    /// No pods are to be put on its node.
    is_cordoned: bool,
    way: Way,
}

/// Nodes that held something and no longer do: their last records may still come.
#[derive(Debug, Default)]
struct Former {
    nodes: BTreeSet<String>,
    order: VecDeque<String>,
}

/// Where a share stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Settled,
    /// For somebody to come back.
    Waits,
    Open(Cause),
}

/// A share has a new holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub shard: Shard,
    /// Its epoch from now on.
    pub epoch: u64,
    /// Who holds it.
    pub node: String,
    /// Why it was given.
    pub cause: Cause,
}

/// Why a share was given to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody held it.
    Vacant,
    /// Its holder went away.
    Left,
    /// Its holder failed, or said nothing.
    Failing,
    /// Its holder is to end, or its node is.
    Draining,
    /// Its holder held more than others, or than it should beside a hot share.
    Balance,
    /// The journal lost what it had of it.
    Reset,
}

/// What an agent may say about a share's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It moves the checkpoint.
    Accepted,
    /// Its epoch is over: the records are data, the checkpoint is not.
    OldEpoch,
    /// No such epoch was given to this agent.
    NotHolder,
}

/// Who holds what, for those who check checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings(BTreeMap<Shard, Holding>);

/// Who holds one share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its epoch.
    pub epoch: u64,
    /// The holder's node; `None`: nobody.
    pub node: Option<String>,
}

/// How one share fares.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Which.
    pub shard: &'a Shard,
    /// Its epoch.
    pub epoch: u64,
    /// The holder's node.
    pub node: Option<&'a str>,
    /// For how long it has held it.
    pub held_for: Duration,
    /// What it last reported.
    pub state: WatchState,
    /// The last failure in words.
    pub failure: &'a str,
    /// Its stream is cut.
    pub is_away: bool,
    /// Who goes on until the holder watches.
    pub leaving: Option<&'a str>,
    /// How soon its API server answers the holder, in milliseconds; 0: not measured.
    pub answer_ms: u32,
}

/// Former holders that are remembered: as many as agents are admitted.
const FORMER: usize = 15_000;

/// An epoch that no number of hand-overs comes to: an agent that says it holds a later one is wrong.
const LAST_EPOCH: u64 = 1 << 48;

/// Nodes with a share of their own: more than any cluster for which that is chosen.
const MAX_HOSTS: usize = 15_000;

// === impl Patience ===

impl Default for Patience {
    fn default() -> Self {
        Self {
            away: Duration::from_secs(1),
            restart: Duration::from_secs(3),
            restart_at_most: Duration::from_secs(30),
            failing: Duration::from_secs(10),
            rests: Duration::from_secs(60),
            shunned: Duration::from_secs(300),
            balance: Duration::from_secs(10),
            balance_at_most: Duration::from_secs(60),
            handover: Duration::from_secs(30),
            changeover: Duration::from_secs(120),
            gone: Duration::from_secs(3_600),
        }
    }
}

// === impl Plan ===

impl Plan {
    /// One share that is the whole cluster.
    pub fn cluster(now: Instant, patience: Patience) -> Self {
        let mut plan = Self {
            patience,
            started: now,
            last_joined: now,
            partition: Partition::Cluster,
            ranges: 0,
            may_adopt: true,
            was_changed: false,
            seats: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            outgoing_since: now,
            agents: BTreeMap::new(),
            former: Former::default(),
            known: Known::default(),
            namespaces: None,
            hosts: BTreeMap::new(),
            apart: Vec::new(),
            hot: BTreeSet::new(),
            cordoned: BTreeSet::new(),
            asking: Asking::default(),
            unmeasured: Vec::new(),
            unbalanced: None,
            is_full: false,
            is_rewound: false,
            version: 1,
        };
        plan.seat(now);
        plan
    }

    /// What the journal has. An epoch never goes back; a resourceVersion is whatever is stored.
    pub fn known(&mut self, checkpoints: &[Checkpoint]) {
        for checkpoint in checkpoints {
            let Some(shard) = &checkpoint.shard else { continue };
            self.known.store(shard, checkpoint.epoch.min(LAST_EPOCH), &checkpoint.resource_version);
        }
        // The watch of the names stores no checkpoint of its own. Where namespaces were watched, somebody held it too, and may
        // still come.
        let of_a_namespace = |checkpoint: &&Checkpoint| {
            let share = checkpoint.shard.as_ref().and_then(|shard| shard.share.as_ref());
            matches!(share, Some(Share::Namespace(_)))
        };
        if self.known.epoch(&Shard::namespaces()) == 0 {
            let epochs = checkpoints.iter().filter(of_a_namespace).map(|checkpoint| checkpoint.epoch);
            self.known.raise(&Shard::namespaces(), epochs.max().unwrap_or(0).min(LAST_EPOCH));
        }
        for (shard, seat) in &mut self.seats {
            seat.epoch = seat.epoch.max(self.known.epoch(shard));
            if !seat.was_held {
                // Of a process before this one: it may have been given for a loss that its holder has not heard of.
                seat.lost_before = seat.epoch;
            }
        }
    }

    /// How the events are shared out.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Grows when a share has another holder, another epoch, or is another share.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether holders from before the start may still come.
    pub fn awaits_restart(&self, now: Instant) -> bool {
        now < self.last_joined + self.patience.restart && now < self.started + self.patience.restart_at_most
    }

    /// Shares the events out in another way. The watches there are go on until the new ones watch.
    pub fn change(&mut self, now: Instant, partition: Partition) {
        if partition == self.partition {
            return;
        }
        self.may_adopt = false;
        self.was_changed = true;
        self.partition = partition;
        for (shard, seat) in std::mem::take(&mut self.seats) {
            let holder = seat.holder.filter(|holder| holder.away_since.is_none());
            let node = holder.filter(|_| shard != Shard::namespaces()).map(|holder| holder.node);
            if let Some(node) = node {
                self.outgoing.insert(shard, Holding { epoch: seat.epoch, node: Some(node) });
            }
        }
        self.outgoing_since = now;
        if partition != Partition::Namespaces {
            // Nobody watches them any more.
            self.namespaces = None;
        }
        self.seat(now);
    }

    /// All namespaces that there are.
    pub fn namespaces(&mut self, now: Instant, namespaces: BTreeSet<String>) {
        if self.partition != Partition::Namespaces || self.namespaces.as_ref() == Some(&namespaces) {
            return;
        }
        self.namespaces = Some(namespaces);
        self.seat(now);
    }

    /// How many namespaces there are, where somebody watches them.
    pub fn namespace_count(&self) -> Option<usize> {
        self.namespaces.as_ref().map(BTreeSet::len)
    }

    /// The shares that make as much work as many others together.
    pub fn hot(&mut self, now: Instant, hot: BTreeSet<Shard>) {
        if self.hot != hot {
            self.hot = hot;
            self.unbalance(now);
        }
    }

    /// A node's agent has a new stream, and says what it holds.
    pub fn joined(&mut self, now: Instant, node: &str, stream: u64, held: &[HeldWatch]) {
        let before = self.agents.get(node);
        let failed_at = before.and_then(|agent| agent.failed_at);
        let way = before.map(|agent| agent.way.again()).unwrap_or_default();
        let is_cordoned = self.cordoned.contains(node);
        let agent = Agent { stream, failed_at, is_draining: false, is_cordoned, way };
        self.agents.insert(node.to_owned(), agent);
        if way.answer_ms == 0 {
            self.unmeasured.push(node.to_owned());
        }
        self.adopt(now, held);
        self.last_joined = now;
        self.is_full = false;
        self.unbalance(now);
        if self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(node) {
            let is_new = self.hosts.insert(node.to_owned(), None).is_none();
            if is_new && self.partition == Partition::Host {
                self.seat(now);
            }
        }
        // What was never given says nothing: such an agent has no events to send.
        let claims: BTreeMap<&Shard, u64> = held
            .iter()
            .filter(|held| (1..=LAST_EPOCH).contains(&held.epoch))
            .filter_map(|held| Some((held.shard.as_ref()?, held.epoch)))
            .collect();
        if claims.iter().any(|(shard, epoch)| *epoch <= self.known.epoch(shard)) {
            self.former.remember(node);
        }
        for (shard, seat) in &mut self.seats {
            let claim = claims.get(shard).copied().unwrap_or(0);
            let is_holder = seat.holder.as_ref().is_some_and(|holder| holder.node == node);
            let somebody_else = seat.holder.is_some() && !is_holder;
            if claim > 0 && claim >= seat.epoch && !somebody_else {
                self.version += u64::from(seat.epoch != claim || !is_holder);
                seat.epoch = claim;
                seat.is_lost |= self.is_rewound && !seat.was_held;
                seat.was_held = true;
                let mut holder = seat.holder.take().unwrap_or_else(|| Holder::new(node, now));
                holder.away_since = None;
                seat.holder = Some(holder);
            } else {
                // The next holder's epoch must be above any that was ever given.
                seat.epoch = seat.epoch.max(claim);
                if is_holder {
                    // It started again, or never heard of it.
                    seat.holder = None;
                    self.version += 1;
                    self.former.remember(node);
                }
            }
            self.known.raise(shard, seat.epoch);
            if seat.leaving.as_ref().is_some_and(|leaving| leaving.node == node && leaving.epoch != claim) {
                seat.leaving = None;
                self.version += 1;
            }
        }
        self.outgoing.retain(|shard, outgoing| {
            let stays = outgoing.node.as_deref() != Some(node) || claims.get(shard) == Some(&outgoing.epoch);
            self.version += u64::from(!stays);
            stays
        });
    }

    /// Takes over what an agent holds from before the start, where the plan has no place for it.
    fn adopt(&mut self, now: Instant, held: &[HeldWatch]) {
        if !self.awaits_restart(now) && !self.awaits_changeover() {
            return;
        }
        let nobody_held = self.seats.values().all(|seat| !seat.was_held);
        if self.may_adopt && nobody_held {
            let partition = held
                .iter()
                .filter(|held| (1..=LAST_EPOCH).contains(&held.epoch))
                .find_map(|held| seating::partition_of(held.shard.as_ref()?));
            if let Some(partition) = partition.filter(|partition| *partition != self.partition) {
                self.partition = partition;
                self.seats.clear();
                self.seat(now);
            }
        }
        for held in held {
            let Some(shard) = &held.shard else { continue };
            if self.seats.contains_key(shard) || self.outgoing.contains_key(shard) {
                continue;
            }
            match (&shard.share, self.partition) {
                // Which there are will be known soon.
                (Some(Share::Namespace(_)), Partition::Namespaces) if self.namespaces.is_none() => {
                    let epoch = self.known.epoch(shard);
                    self.seats.insert(shard.clone(), Seat::vacant(epoch, false));
                }
                (Some(Share::Host(host)), Partition::Host) if self.hosts.len() < MAX_HOSTS => {
                    self.hosts.insert(host.clone(), Some(now));
                    self.seat(now);
                }
                _ => {}
            }
        }
    }

    /// A stream ended. One that was replaced before does not matter.
    pub fn left(&mut self, now: Instant, node: &str, stream: u64) {
        if self.agents.get(node).is_none_or(|agent| agent.stream != stream) {
            return;
        }
        let was_draining = self.agents.remove(node).is_some_and(|agent| agent.is_draining);
        self.unbalance(now);
        if let Some(seen) = self.hosts.get_mut(node) {
            *seen = Some(now);
        }
        for seat in self.seats.values_mut() {
            if let Some(holder) = seat.holder.as_mut().filter(|holder| holder.node == node) {
                // One that said it would go does not come back.
                let since = if was_draining { now.checked_sub(self.patience.away) } else { None };
                holder.away_since.get_or_insert(since.unwrap_or(now));
            }
            if seat.leaving.as_ref().is_some_and(|leaving| leaving.node == node) {
                seat.leaving = None;
                self.version += 1;
            }
        }
    }

    /// An agent has been told to end.
    pub fn draining(&mut self, node: &str) {
        if let Some(agent) = self.agents.get_mut(node) {
            agent.is_draining = true;
        }
    }

    /// No pods are to be put on a node any more, or they are again.
    pub fn cordoned(&mut self, now: Instant, node: &str, is_cordoned: bool) {
        if !is_cordoned {
            self.cordoned.remove(node);
        } else if self.cordoned.len() < MAX_HOSTS {
            self.cordoned.insert(node.to_owned());
        }
        if let Some(agent) = self.agents.get_mut(node)
            && std::mem::replace(&mut agent.is_cordoned, is_cordoned) != is_cordoned
        {
            self.is_full = false;
            self.unbalance(now);
        }
    }

    /// The journal lost what its checkpoints say that it has: everything is to be listed again.
    pub fn reset(&mut self) {
        self.known.forget();
        self.rewind();
    }

    /// The journal lost the newest of what it had, and the checkpoints with it: whoever holds a watch may be beyond those that are
    /// left, and is to go on from there; so is whoever is yet to say that it holds one from before.
    pub fn rewind(&mut self) {
        self.is_rewound = true;
        for seat in self.seats.values_mut() {
            seat.is_lost = true;
        }
    }

    /// How a watch fares.
    pub fn reported(&mut self, now: Instant, node: &str, report: &WatchReport) {
        let Some(seat) = report.shard.as_ref().and_then(|shard| self.seats.get_mut(shard)) else { return };
        if report.epoch != seat.epoch {
            return;
        }
        let Some(holder) = seat.holder.as_mut().filter(|holder| holder.node == node) else { return };
        holder.state = report.state();
        let answer_ms = report.answer_ms;
        if !report.failure.is_empty() || holder.state == WatchState::Watching {
            holder.failure.clone_from(&report.failure);
        }
        match report.state() {
            WatchState::Listing | WatchState::Watching => {
                holder.failing_since = None;
                if let Some(agent) = self.agents.get_mut(node) {
                    agent.failed_at = None;
                }
            }
            WatchState::BackingOff | WatchState::Released => {
                holder.failing_since.get_or_insert(now);
            }
            WatchState::Unspecified => {}
        }
        if report.state() == WatchState::Watching && seat.leaving.take().is_some() {
            self.version += 1;
        }
        self.measured(now, node, answer_ms);
    }

    /// Lets go of those who went on for others that watch by now.
    pub fn expire(&mut self, now: Instant) {
        let handover = self.patience.handover;
        for seat in self.seats.values_mut() {
            if seat.leaving.as_ref().is_some_and(|leaving| now >= leaving.since + handover) {
                seat.leaving = None;
                self.version += 1;
            }
        }
        if self.awaits_changeover() && self.is_changed_over(now) {
            for holding in std::mem::take(&mut self.outgoing).into_values() {
                holding.node.iter().for_each(|node| self.former.remember(node));
            }
            self.version += 1;
        }
        let gone = self.patience.gone;
        let hosts = self.hosts.len();
        self.hosts.retain(|_, seen| seen.is_none_or(|seen| now < seen + gone));
        if self.hosts.len() != hosts && self.partition == Partition::Host {
            self.seat(now);
        }
        // Not with each agent that comes: the list is as long as there are nodes, and its holder is told of every other one. Until
        // then it takes what a new node's own watch takes too.
        self.part(now);
    }

    /// Notes whose events are left out of the share of events that name no node. A node's are taken in again before its own share
    /// ends, so that none falls between.
    fn part(&mut self, now: Instant) {
        if self.partition != Partition::Host {
            self.apart.clear();
            return;
        }
        let stays = self.patience.gone.saturating_sub(self.patience.handover);
        let is_apart = |seen: &Option<Instant>| seen.is_none_or(|seen| now < seen + stays);
        let apart = || self.hosts.iter().filter(|(_, seen)| is_apart(seen)).map(|(host, _)| host);
        if !apart().eq(&self.apart) {
            self.apart = apart().cloned().collect();
            self.version += 1;
        }
    }

    /// Forgets shares that there have not been for long, and answers which. Costs a look at each, so that it is not for every tick.
    pub fn forget_unused(&mut self, now: Instant) -> Vec<Shard> {
        let (seats, outgoing) = (&self.seats, &self.outgoing);
        let is_used = |shard: &Shard| seats.contains_key(shard) || outgoing.contains_key(shard);
        self.known.forget_unused(now, self.patience.gone, is_used)
    }

    /// What is to be durable before somebody hears of these changes: the epochs, and where each goes on from.
    pub fn notes(&self, changes: &[Change]) -> Vec<Checkpoint> {
        let note = |change: &Change| {
            let seat = self.seats.get(&change.shard).filter(|seat| seat.epoch == change.epoch)?;
            Some(Checkpoint {
                shard: Some(change.shard.clone()),
                epoch: seat.epoch,
                resource_version: seat.resource_version.clone(),
            })
        };
        changes.iter().filter_map(note).collect()
    }

    /// Whether watches of the partition before are still there.
    pub fn awaits_changeover(&self) -> bool {
        !self.outgoing.is_empty()
    }

    fn is_changed_over(&self, now: Instant) -> bool {
        // Without the names, it is not known what there is to watch.
        if self.partition == Partition::Namespaces && self.namespaces.is_none() {
            return false;
        }
        let watch =
            |seat: &Seat| seat.holder.as_ref().is_some_and(|holder| holder.state == WatchState::Watching);
        let is_late = now >= self.outgoing_since + self.patience.changeover;
        self.seats.values().all(|seat| watch(seat) || (is_late && seat.holder.is_some()))
    }

    /// Whether [`settle`](Self::settle) would give a share to somebody now. To be asked first, so that the checkpoints can be
    /// read before.
    pub fn is_due(&self, now: Instant) -> bool {
        let health = self.health(now);
        let is_open = |seat: &Seat| match self.standing(seat, &health, now) {
            Standing::Open(Cause::Vacant) => !self.agents.is_empty() && !self.is_full,
            Standing::Open(Cause::Left) => !self.agents.is_empty(),
            Standing::Open(_) => true,
            Standing::Settled | Standing::Waits => false,
        };
        self.seats.values().any(is_open) || self.balances(now)
    }

    /// Gives out what is to be given out.
    pub fn settle(&mut self, now: Instant) -> Vec<Change> {
        if self.agents.is_empty() {
            return Vec::new();
        }
        let effort = if self.balances(now) { Effort::Balance } else { Effort::Place };
        if effort == Effort::Balance {
            self.unbalanced = None;
        }
        self.shun_failing(now);
        let mut changes = Vec::new();
        let choices = self.choose(effort, now);
        self.hand_out(now, choices, &mut changes);
        let choices = self.choose_for_failing(now);
        self.hand_out(now, choices, &mut changes);
        changes
    }

    fn hand_out(
        &mut self,
        now: Instant,
        choices: Vec<(Shard, Option<String>, Cause)>,
        changes: &mut Vec<Change>,
    ) {
        for (shard, node, cause) in choices {
            match node {
                Some(node) => changes.extend(self.give(now, shard, node, cause)),
                // It waits to be let go, and there is nobody else.
                None if cause == Cause::Draining => {
                    if let Some(holder) = self.seats.get_mut(&shard).and_then(|seat| seat.holder.take()) {
                        self.former.remember(&holder.node);
                        self.version += 1;
                    }
                }
                None => self.is_full |= cause == Cause::Vacant,
            }
        }
    }

    /// All that a node is to watch.
    pub fn assignment(&self, node: &str) -> Assignment {
        let mut watches = Vec::new();
        self.watches(|holder, watch| {
            if holder == node {
                watches.push(watch());
            }
        });
        Assignment { watches }
    }

    /// All that each node is to watch that is to watch anything.
    pub fn assignments(&self) -> BTreeMap<&str, Assignment> {
        let mut assignments: BTreeMap<&str, Assignment> = BTreeMap::new();
        self.watches(|node, watch| assignments.entry(node).or_default().watches.push(watch()));
        assignments
    }

    /// Every watch that somebody is to hold, and who.
    fn watches<'a>(&'a self, mut each: impl FnMut(&'a str, &dyn Fn() -> AssignedWatch)) {
        let assigned = |shard: &Shard, epoch, resource_version: &str, lost_before| AssignedWatch {
            shard: Some(shard.clone()),
            epoch,
            lost_before,
            resource_version: resource_version.to_owned(),
            other_hosts: match &shard.share {
                Some(Share::NoHost(_)) => self.apart.clone(),
                _ => Vec::new(),
            },
        };
        for (shard, seat) in &self.seats {
            if let Some(holder) = &seat.holder {
                each(&holder.node, &|| assigned(shard, seat.epoch, &seat.resource_version, seat.lost_before));
            }
            if let Some(leaving) = &seat.leaving {
                each(&leaving.node, &|| assigned(shard, leaving.epoch, &seat.resource_version, 0));
            }
        }
        for (shard, outgoing) in &self.outgoing {
            if let Some(node) = &outgoing.node {
                each(node, &|| assigned(shard, outgoing.epoch, self.known.resource_version(shard), 0));
            }
        }
    }

    /// Whether a node held a share that it no longer holds: the last of its events may still come.
    pub fn held_before(&self, node: &str) -> bool {
        self.former.nodes.contains(node)
    }

    /// Whether a node holds a share or did: only such an agent has events to send.
    pub fn has_held(&self, node: &str) -> bool {
        let mut holds = self.held_before(node);
        self.watches(|holder, _| holds |= holder == node);
        holds
    }

    /// Who holds what.
    pub fn holdings(&self) -> Holdings {
        let holding = |(shard, seat): (&Shard, &Seat)| {
            let node = seat.holder.as_ref().map(|holder| holder.node.clone());
            (shard.clone(), Holding { epoch: seat.epoch, node })
        };
        let mut holdings: BTreeMap<_, _> = self.seats.iter().map(holding).collect();
        holdings.extend(self.outgoing.iter().map(|(shard, holding)| (shard.clone(), holding.clone())));
        Holdings(holdings)
    }

    /// How each share fares.
    pub fn rows(&self, now: Instant) -> impl Iterator<Item = Row<'_>> {
        self.seats.iter().map(move |(shard, seat)| {
            let holder = seat.holder.as_ref();
            Row {
                shard,
                epoch: seat.epoch,
                node: holder.map(|holder| holder.node.as_str()),
                held_for: holder.map_or(Duration::ZERO, |holder| now.saturating_duration_since(holder.since)),
                state: holder.map_or(WatchState::Unspecified, |holder| holder.state),
                failure: holder.map_or("", |holder| &holder.failure),
                is_away: holder.is_some_and(|holder| holder.away_since.is_some()),
                leaving: seat.leaving.as_ref().map(|leaving| leaving.node.as_str()),
                answer_ms: holder
                    .and_then(|holder| self.agents.get(&holder.node))
                    .map_or(0, |agent| agent.way.answer_ms),
            }
        })
    }

    /// The nodes of agents that take nothing more, as they or their nodes are to end.
    pub fn going(&self) -> impl Iterator<Item = &str> {
        let going = self.agents.iter().filter(|(_, agent)| agent.is_draining || agent.is_cordoned);
        going.map(|(node, _)| node.as_str())
    }

    /// How many shares there are, and how many of them nobody holds.
    pub fn counts(&self) -> (usize, usize) {
        (self.seats.len(), self.seats.values().filter(|seat| seat.holder.is_none()).count())
    }

    /// Whether a node holds a share under an epoch.
    pub fn is_held_by(&self, node: &str, shard: &Shard, epoch: u64) -> bool {
        let seat = self.seats.get(shard).filter(|seat| seat.epoch == epoch);
        seat.and_then(|seat| seat.holder.as_ref()).is_some_and(|holder| holder.node == node)
    }

    /// Any node that holds something, or else any that is connected.
    pub fn any_node(&self) -> Option<&str> {
        let holders = self.seats.values().filter_map(|seat| seat.holder.as_ref());
        let there = holders.map(|holder| holder.node.as_str()).find(|node| self.agents.contains_key(*node));
        there.or_else(|| self.agents.keys().next().map(String::as_str))
    }

    /// The highest epoch of any share.
    pub fn epoch(&self) -> u64 {
        self.seats.values().map(|seat| seat.epoch).max().unwrap_or(0)
    }

    /// How many agents are connected.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }
}

// === impl Seat ===

impl Seat {
    fn vacant(epoch: u64, was_held: bool) -> Self {
        Self {
            epoch,
            resource_version: String::new(),
            holder: None,
            leaving: None,
            was_held,
            is_lost: false,
            lost_before: epoch,
            failed_at: None,
        }
    }
}

// === impl Holder ===

impl Holder {
    /// It has as long to report as one that fails has to recover.
    fn new(node: &str, now: Instant) -> Self {
        Self {
            node: node.to_owned(),
            since: now,
            away_since: None,
            failing_since: Some(now),
            state: WatchState::Unspecified,
            failure: String::new(),
        }
    }
}

// === impl Former ===

impl Former {
    fn remember(&mut self, node: &str) {
        if !self.nodes.insert(node.to_owned()) {
            return;
        }
        self.order.push_back(node.to_owned());
        if self.order.len() > FORMER
            && let Some(oldest) = self.order.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }
}

// === impl Holdings ===

impl Holdings {
    /// Whether a node's checkpoint counts.
    pub fn judge(&self, node: &str, checkpoint: &Checkpoint) -> Verdict {
        let Some(holding) = checkpoint.shard.as_ref().and_then(|shard| self.0.get(shard)) else {
            return Verdict::NotHolder;
        };
        if checkpoint.epoch < holding.epoch {
            return Verdict::OldEpoch;
        }
        if checkpoint.epoch > holding.epoch || holding.node.as_deref() != Some(node) {
            return Verdict::NotHolder;
        }
        Verdict::Accepted
    }

    /// Whether one of these watches may have been given: the shards may be others by now, the epochs only grow.
    pub fn were_given(&self, watches: &[HeldWatch]) -> bool {
        let last = self.0.values().map(|holding| holding.epoch).max().unwrap_or(0);
        watches.iter().any(|watch| (1..=last).contains(&watch.epoch))
    }

    /// Who holds a share.
    pub fn get(&self, shard: &Shard) -> Option<&Holding> {
        self.0.get(shard)
    }

    /// Each share's.
    pub fn iter(&self) -> impl Iterator<Item = (&Shard, &Holding)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests;
