//! Who is given which share, and when.

use std::collections::BTreeMap;
use std::time::Instant;

use nodetap_wire::shard::Share;
use nodetap_wire::{Shard, WatchState};

use super::super::choose::WATCHES_PER_AGENT;
use super::super::spread::{Candidate, Effort, Piece, spread};
use super::{Agent, Cause, Change, Holder, Leaving, Plan, Seat, Standing};

/// Which agents there are to choose from.
pub(super) struct Health {
    /// Some are well: nobody else takes more.
    any_well: bool,
}

impl Plan {
    /// Notes that shares may have to be moved.
    pub(super) fn unbalance(&mut self, now: Instant) {
        let first = self.unbalanced.map_or(now, |(first, _)| first);
        self.unbalanced = Some((first, now));
    }

    /// Whether shares are to be moved for balance.
    pub(super) fn balances(&self, now: Instant) -> bool {
        let is_time = |(first, last): (Instant, Instant)| {
            now >= last + self.patience.balance || now >= first + self.patience.balance_at_most
        };
        self.unbalanced.is_some_and(is_time) && !self.agents.is_empty() && !self.awaits_restart(now)
    }

    pub(super) fn health(&self, now: Instant) -> Health {
        Health { any_well: self.agents.values().any(|agent| self.is_well(agent, now)) }
    }

    fn is_well(&self, agent: &Agent, now: Instant) -> bool {
        let is_shunned = agent.failed_at.is_some_and(|at| now < at + self.patience.shunned);
        !agent.is_draining && !agent.is_cordoned && !is_shunned
    }

    pub(super) fn standing(&self, seat: &Seat, health: &Health, now: Instant) -> Standing {
        let Some(holder) = &seat.holder else {
            let from_before = seat.epoch > 0 && !seat.was_held;
            return match from_before && self.awaits_restart(now) {
                true => Standing::Waits,
                false => Standing::Open(Cause::Vacant),
            };
        };
        if let Some(since) = holder.away_since {
            return match now < since + self.patience.away {
                true => Standing::Waits,
                false => Standing::Open(Cause::Left),
            };
        }
        if seat.is_lost {
            return Standing::Open(Cause::Reset);
        }
        let agent = self.agents.get(&holder.node);
        if agent.is_some_and(|agent| agent.is_draining || (agent.is_cordoned && health.any_well)) {
            return Standing::Open(Cause::Draining);
        }
        let is_failing = holder.failing_since.is_some_and(|since| now >= since + self.patience.failing);
        let better =
            || self.agents.iter().any(|(node, agent)| *node != holder.node && self.is_well(agent, now));
        match is_failing && better() {
            true => Standing::Open(Cause::Failing),
            false => Standing::Settled,
        }
    }

    /// Remembers who failed, so that it is not given the same again.
    pub(super) fn shun_failing(&mut self, now: Instant) {
        let health = self.health(now);
        let failing: Vec<String> = self
            .seats
            .values()
            .filter(|seat| self.standing(seat, &health, now) == Standing::Open(Cause::Failing))
            .filter_map(|seat| seat.holder.as_ref().map(|holder| holder.node.clone()))
            .collect();
        for node in failing {
            if let Some(agent) = self.agents.get_mut(&node) {
                agent.failed_at = Some(now);
            }
        }
    }

    /// Who is to get what he does not have.
    pub(super) fn choose(&self, effort: Effort, now: Instant) -> Vec<(Shard, Option<String>, Cause)> {
        let health = self.health(now);
        let agents: Vec<(&String, &Agent)> = self.agents.iter().collect();
        let places: BTreeMap<&str, usize> =
            agents.iter().enumerate().map(|(at, (node, _))| (node.as_str(), at)).collect();
        let candidates: Vec<Candidate<'_>> = agents
            .iter()
            .map(|(node, agent)| {
                let goes = agent.is_draining || (agent.is_cordoned && health.any_well);
                let takes = if health.any_well { self.is_well(agent, now) } else { !agent.is_draining };
                Candidate { node, weight: u32::from(!goes), takes }
            })
            .collect();

        let mut answers = Vec::new();
        let mut shared: Vec<(&Shard, String, Option<usize>, Option<Cause>)> = Vec::new();
        for (shard, seat) in &self.seats {
            let cause = match self.standing(seat, &health, now) {
                Standing::Waits => continue,
                Standing::Settled => None,
                Standing::Open(cause) => Some(cause),
            };
            let holder = seat.holder.as_ref().map(|holder| holder.node.as_str());
            if let (Some(Cause::Reset), Some(node)) = (cause, holder) {
                answers.push((shard.clone(), Some(node.to_owned()), Cause::Reset));
                continue;
            }
            let at_home = match &shard.share {
                Some(Share::Host(host)) => places.get(host.as_str()).copied(),
                _ => None,
            };
            // Each node's own agent watches what names it.
            let at_home = at_home.filter(|at| candidates.get(*at).is_some_and(|home| home.takes));
            if let Some((node, _)) = at_home.and_then(|at| agents.get(at)) {
                let is_there = holder == Some(node.as_str()) && cause.is_none();
                if !is_there && (cause.is_some() || effort == Effort::Balance) {
                    answers.push((shard.clone(), Some((*node).clone()), cause.unwrap_or(Cause::Balance)));
                }
                continue;
            }
            let holder = holder.filter(|_| cause.is_none()).and_then(|node| places.get(node).copied());
            shared.push((shard, shard.name(), holder, cause));
        }
        if effort == Effort::Place && shared.iter().all(|(.., cause)| cause.is_none()) {
            return answers;
        }
        let pieces: Vec<Piece<'_>> = shared
            .iter()
            .map(|(shard, name, holder, _)| Piece {
                name,
                holder: *holder,
                is_hot: self.hot.contains(*shard),
            })
            .collect();
        let holders = spread(&candidates, &pieces, WATCHES_PER_AGENT, effort);
        for ((shard, _, before, cause), after) in shared.into_iter().zip(holders) {
            if cause.is_none() && before == after {
                continue;
            }
            let node = after.and_then(|at| agents.get(at)).map(|(node, _)| (*node).clone());
            answers.push((shard.clone(), node, cause.unwrap_or(Cause::Balance)));
        }
        answers
    }

    /// Gives a share to a node.
    pub(super) fn give(&mut self, now: Instant, shard: Shard, node: String, cause: Cause) -> Option<Change> {
        let from = self.known.covers(&shard, self.ranges).to_owned();
        let seat = self.seats.get_mut(&shard)?;
        let before = seat.epoch;
        let epoch = before.checked_add(1)?;
        (seat.epoch, seat.resource_version) = (epoch, from);
        (seat.was_held, seat.is_lost) = (true, false);
        if let Some(holder) = seat.holder.replace(Holder::new(&node, now)) {
            self.former.remember(&holder.node);
            let is_planned = matches!(cause, Cause::Draining | Cause::Balance);
            let watched = holder.state == WatchState::Watching || seat.leaving.is_none();
            if is_planned && watched && holder.node != node && self.agents.contains_key(&holder.node) {
                seat.leaving = Some(Leaving { node: holder.node, epoch: before, since: now });
            }
        }
        // Nobody holds a share twice.
        seat.leaving.take_if(|leaving| leaving.node == node);
        self.known.raise(&shard, epoch);
        self.version += 1;
        Some(Change { shard, epoch, node, cause })
    }
}
