//! Who holds which shard: a state machine, without a clock or a network of its own.
//!
//! Promises: at most one holder of a shard has its current epoch; the epoch grows with every holder; one that was only away for
//! a moment keeps what it has; a shard is given out with the last checkpoint that is known.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use nodetap_wire::shard::Share;
use nodetap_wire::{
    AssignedWatch, Assignment, Checkpoint, HeldWatch, Shard, WatchReport, WatchState, WholeCluster,
};

/// How long things may take before a shard goes to somebody else.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a holder whose stream was cut to come back.
    pub away: Duration,
    /// After a start, for the holder from before to say that it still holds.
    pub restart: Duration,
    /// For a holder that fails, or that never reported, while others could do better.
    pub failing: Duration,
    /// Until an agent that failed is asked again while others are there.
    pub shunned: Duration,
}

/// The state of all assignments.
#[derive(Debug)]
pub struct Plan {
    patience: Patience,
    started: Instant,
    shards: Vec<Seat>,
    agents: BTreeMap<String, Agent>,
    /// Nodes that held something and no longer do: their last records may still come.
    former: VecDeque<String>,
}

/// One shard and its holder.
#[derive(Debug)]
struct Seat {
    shard: Shard,
    epoch: u64,
    resource_version: String,
    holder: Option<Holder>,
    /// It was held since the start: there is nobody from before to wait for.
    was_held: bool,
}

#[derive(Debug)]
struct Holder {
    node: String,
    /// When its stream was cut; `None` while it is connected.
    away_since: Option<Instant>,
    /// Since when it has been failing, or has not reported.
    failing_since: Option<Instant>,
}

#[derive(Debug)]
struct Agent {
    /// The stream that speaks for the node.
    stream: u64,
    failed_at: Option<Instant>,
}

/// A shard has a new holder, or none.
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

/// Why a shard was given to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody held it.
    Vacant,
    /// Its holder went away.
    Left,
    /// Its holder failed, or said nothing.
    Failing,
}

/// What an agent may say about a shard's checkpoint.
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
pub struct Holdings(Vec<Holding>);

/// Who holds one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub shard: Shard,
    /// Its epoch.
    pub epoch: u64,
    /// The holder's node; `None`: nobody.
    pub node: Option<String>,
}

/// Former holders that are remembered: one a minute for a day.
const FORMER: usize = 1_440;

/// An epoch that no number of hand-overs comes to: an agent that says it holds a later one is wrong.
const LAST_EPOCH: u64 = 1 << 48;

// === impl Patience ===

impl Default for Patience {
    fn default() -> Self {
        Self {
            away: Duration::from_secs(1),
            restart: Duration::from_secs(3),
            failing: Duration::from_secs(30),
            shunned: Duration::from_secs(300),
        }
    }
}

// === impl Plan ===

impl Plan {
    /// One shard that is the whole cluster.
    pub fn cluster(now: Instant, patience: Patience) -> Self {
        let shard = Shard { share: Some(Share::Cluster(WholeCluster {})) };
        Self::of(now, patience, vec![shard])
    }

    fn of(now: Instant, patience: Patience, shards: Vec<Shard>) -> Self {
        let vacant =
            |shard| Seat { shard, epoch: 0, resource_version: String::new(), holder: None, was_held: false };
        Self {
            patience,
            started: now,
            shards: shards.into_iter().map(vacant).collect(),
            agents: BTreeMap::new(),
            former: VecDeque::new(),
        }
    }

    /// What the journal has. An epoch never goes back; a resourceVersion is whatever is stored.
    pub fn known(&mut self, checkpoints: &[Checkpoint]) {
        for share in &mut self.shards {
            let of_shard = checkpoints.iter().filter(|known| known.shard.as_ref() == Some(&share.shard));
            if let Some(last) = of_shard.max_by_key(|known| known.epoch) {
                share.epoch = share.epoch.max(last.epoch.min(LAST_EPOCH));
                share.resource_version.clone_from(&last.resource_version);
            }
        }
    }

    /// A node's agent has a new stream, and says what it holds.
    pub fn joined(&mut self, now: Instant, node: &str, stream: u64, held: &[HeldWatch]) {
        let failed_at = self.agents.get(node).and_then(|agent| agent.failed_at);
        self.agents.insert(node.to_owned(), Agent { stream, failed_at });
        // What was never given says nothing: such an agent has no events to send.
        let was_given = |held: &HeldWatch| {
            let share = self.shards.iter().find(|share| held.shard.as_ref() == Some(&share.shard));
            share.is_some_and(|share| (1..=share.epoch).contains(&held.epoch))
        };
        if held.iter().any(was_given) {
            self.remember(node.to_owned());
        }
        let mut former = Vec::new();
        for share in &mut self.shards {
            let claim =
                held.iter().filter(|held| held.shard.as_ref() == Some(&share.shard)).map(|held| held.epoch);
            let claim = claim.filter(|epoch| (1..=LAST_EPOCH).contains(epoch)).max().unwrap_or(0);
            let is_holder = share.holder.as_ref().is_some_and(|holder| holder.node == node);
            let somebody_else = share.holder.as_ref().is_some_and(|holder| holder.node != node);
            if claim > 0 && claim >= share.epoch && !somebody_else {
                share.epoch = claim;
                share.was_held = true;
                let failing_since = share.holder.take().map_or(Some(now), |holder| holder.failing_since);
                share.holder = Some(Holder { node: node.to_owned(), away_since: None, failing_since });
            } else {
                // The next holder's epoch must be above any that was ever given.
                share.epoch = share.epoch.max(claim);
                if is_holder {
                    // It started again, or never heard of it.
                    former.extend(share.holder.take().map(|holder| holder.node));
                }
            }
        }
        former.into_iter().for_each(|node| self.remember(node));
    }

    /// A stream ended. One that was replaced before does not matter.
    pub fn left(&mut self, now: Instant, node: &str, stream: u64) {
        if self.agents.get(node).is_none_or(|agent| agent.stream != stream) {
            return;
        }
        self.agents.remove(node);
        for share in &mut self.shards {
            if let Some(holder) = share.holder.as_mut().filter(|holder| holder.node == node) {
                holder.away_since.get_or_insert(now);
            }
        }
    }

    /// How a watch fares.
    pub fn reported(&mut self, now: Instant, node: &str, report: &WatchReport) {
        for share in &mut self.shards {
            if report.shard.as_ref() != Some(&share.shard) || report.epoch != share.epoch {
                continue;
            }
            let Some(holder) = share.holder.as_mut().filter(|holder| holder.node == node) else { continue };
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
        }
    }

    /// Whether [`settle`](Self::settle) would give a shard to somebody now. To be asked first, so that the checkpoints can be
    /// read before.
    pub fn is_due(&self, now: Instant) -> bool {
        self.shards.iter().any(|share| self.next_holder(share, now).is_some())
    }

    /// Gives out what is to be given out.
    pub fn settle(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for at in 0..self.shards.len() {
            let Some(share) = self.shards.get(at) else { break };
            let Some((node, cause)) = self.next_holder(share, now) else { continue };
            let Some(share) = self.shards.get_mut(at) else { break };
            let Some(epoch) = share.epoch.checked_add(1) else { continue };
            share.epoch = epoch;
            share.was_held = true;
            // It has as long to report as one that fails has to recover.
            let holder = Holder { node: node.clone(), away_since: None, failing_since: Some(now) };
            let before = share.holder.replace(holder);
            changes.push(Change { shard: share.shard.clone(), epoch, node, cause });
            if let Some(before) = before {
                if let Some(agent) = self.agents.get_mut(&before.node).filter(|_| cause == Cause::Failing) {
                    agent.failed_at = Some(now);
                }
                self.remember(before.node);
            }
        }
        changes
    }

    /// All that a node is to watch.
    pub fn assignment(&self, node: &str) -> Assignment {
        let holds = |share: &&Seat| share.holder.as_ref().is_some_and(|holder| holder.node == node);
        let watch = |share: &Seat| AssignedWatch {
            shard: Some(share.shard.clone()),
            epoch: share.epoch,
            resource_version: share.resource_version.clone(),
        };
        Assignment { watches: self.shards.iter().filter(holds).map(watch).collect() }
    }

    /// Whether a node holds a shard or did: only such an agent has events to send.
    pub fn has_held(&self, node: &str) -> bool {
        self.former.iter().any(|former| former == node)
            || self.shards.iter().any(|share| share.holder.as_ref().is_some_and(|holder| holder.node == node))
    }

    /// Who holds what.
    pub fn holdings(&self) -> Holdings {
        let holding = |share: &Seat| Holding {
            shard: share.shard.clone(),
            epoch: share.epoch,
            node: share.holder.as_ref().map(|holder| holder.node.clone()),
        };
        Holdings(self.shards.iter().map(holding).collect())
    }

    /// How many agents are connected.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    fn next_holder(&self, share: &Seat, now: Instant) -> Option<(String, Cause)> {
        let (cause, except) = match &share.holder {
            None if share.epoch > 0 && !share.was_held && now < self.started + self.patience.restart => {
                return None;
            }
            None => (Cause::Vacant, None),
            Some(Holder { away_since: Some(since), .. }) => {
                if now < *since + self.patience.away {
                    return None;
                }
                (Cause::Left, None)
            }
            Some(Holder { failing_since: Some(since), node, .. }) => {
                if now < *since + self.patience.failing {
                    return None;
                }
                (Cause::Failing, Some(node))
            }
            Some(_) => return None,
        };
        let healthy = |agent: &Agent| agent.failed_at.is_none_or(|at| now >= at + self.patience.shunned);
        let best = |wanted: &dyn Fn(&Agent) -> bool| {
            let candidates =
                self.agents.iter().filter(|(node, agent)| Some(*node) != except && wanted(agent));
            candidates.map(|(node, _)| node).max_by_key(|node| (weight(node, &share.shard), *node)).cloned()
        };
        let chosen = best(&healthy);
        // A holder that fails is only replaced by one that may do better; an empty place is filled by anybody.
        let chosen = if cause == Cause::Failing { chosen } else { chosen.or_else(|| best(&|_| true)) };
        chosen.map(|node| (node, cause))
    }

    fn remember(&mut self, node: String) {
        if self.former.contains(&node) {
            return;
        }
        if self.former.len() >= FORMER {
            self.former.pop_front();
        }
        self.former.push_back(node);
    }
}

// === impl Holdings ===

impl Holdings {
    /// Whether a node's checkpoint counts.
    pub fn judge(&self, node: &str, checkpoint: &Checkpoint) -> Verdict {
        let Some(holding) = self.0.iter().find(|holding| checkpoint.shard.as_ref() == Some(&holding.shard))
        else {
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
        let last = self.0.iter().map(|holding| holding.epoch).max().unwrap_or(0);
        watches.iter().any(|watch| (1..=last).contains(&watch.epoch))
    }

    /// Each shard's.
    pub fn iter(&self) -> impl Iterator<Item = &Holding> {
        self.0.iter()
    }
}

/// Rendezvous hashing: the node with the greatest weight holds the shard, so that one more or less node moves nothing else.
/// Must not differ between builds: FNV-1a, mixed once more because names of nodes differ in their last letters alone.
fn weight(node: &str, shard: &Shard) -> u64 {
    let share: &[u8] = match &shard.share {
        Some(Share::Namespace(namespace)) => namespace.as_bytes(),
        Some(Share::Cluster(WholeCluster {})) | None => b"",
    };
    let bytes = node.as_bytes().iter().chain(b"/").chain(share);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;
