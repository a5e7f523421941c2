//! Who is given which share, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use nodetap_wire::shard::Share;
use nodetap_wire::{Shard, WatchState};

use super::super::choose::WATCHES_PER_AGENT;
use super::super::spread::{Candidate, Effort, Piece, spread};
use super::way::Reaching;
use super::{Agent, Cause, Change, Holder, Leaving, Plan, Seat, Standing};

/// Which agents there are to choose from.
pub(super) struct Health<'a> {
    /// Some are well: nobody else takes more.
    any_well: bool,
    reaching: Reaching<'a>,
}

/// A share whose holder fails.
struct Failing<'a> {
    shard: &'a Shard,
    holder: &'a str,
    since: Instant,
    /// Its holder does not reach the API server, and somebody else does.
    is_cut_off: bool,
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

    pub(super) fn health(&self, now: Instant) -> Health<'_> {
        Health {
            any_well: self.agents.values().any(|agent| self.is_well(agent, now)),
            reaching: self.reaching(now),
        }
    }

    pub(super) fn is_well(&self, agent: &Agent, now: Instant) -> bool {
        let is_shunned = agent.failed_at.is_some_and(|at| now < at + self.patience.shunned);
        !agent.is_draining && !agent.is_cordoned && !is_shunned
    }

    pub(super) fn standing(&self, seat: &Seat, health: &Health<'_>, now: Instant) -> Standing {
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
        let Some(since) = holder.failing_since else { return Standing::Settled };
        if self.is_cut_off(holder, health, now) {
            return Standing::Open(Cause::Failing);
        }
        let rests = seat.failed_at.is_some_and(|at| now < at + self.patience.rests);
        let better = || {
            health.reaching.well_but(&holder.node, since)
                && self.agents.iter().any(|(node, agent)| *node != holder.node && self.is_well(agent, now))
        };
        match now >= since + self.patience.failing && !rests && better() {
            true => Standing::Open(Cause::Failing),
            false => Standing::Settled,
        }
    }

    /// Whether a holder whose watch fails does not reach the API server while somebody else does.
    fn is_cut_off(&self, holder: &Holder, health: &Health<'_>, now: Instant) -> bool {
        holder.trouble(now).map(|since| self.asked_from(since)).is_some_and(|since| {
            self.agents.get(&holder.node).is_some_and(|agent| agent.way.is_cut_off(since))
                && health.reaching.any_but(&holder.node, since)
        })
    }

    /// Remembers who failed, so that it is not given the same again.
    pub(super) fn shun_failing(&mut self, now: Instant) {
        let health = self.health(now);
        let failing: Vec<String> =
            self.failing(&health, now).map(|failing| failing.holder.to_owned()).collect();
        for node in failing {
            if let Some(agent) = self.agents.get_mut(&node) {
                agent.failed_at = Some(now);
            }
        }
    }

    /// The shares that are to be taken from holders that fail.
    fn failing<'a>(&'a self, health: &'a Health<'_>, now: Instant) -> impl Iterator<Item = Failing<'a>> {
        self.seats.iter().filter_map(move |(shard, seat)| {
            let is_failing = self.standing(seat, health, now) == Standing::Open(Cause::Failing);
            let holder = seat.holder.as_ref().filter(|_| is_failing)?;
            Some(Failing {
                shard,
                holder: &holder.node,
                since: holder.failing_since?,
                is_cut_off: self.is_cut_off(holder, health, now),
            })
        })
    }

    /// Who is to get what holders that fail have: first of all those who have just reached the API server. Where nobody has room, it
    /// stays where it is.
    pub(super) fn choose_for_failing(&self, now: Instant) -> Vec<(Shard, Option<String>, Cause)> {
        let health = self.health(now);
        let failing: Vec<Failing<'_>> = self.failing(&health, now).collect();
        let Some(since) = failing.iter().map(|failing| failing.since).min() else { return Vec::new() };
        let since = self.asked_from(since);
        let holders: BTreeSet<&str> = failing.iter().map(|failing| failing.holder).collect();
        let fails = |node: &str| holders.contains(node);
        let agents: Vec<(&String, &Agent)> = self.agents.iter().collect();
        let places: BTreeMap<&str, usize> =
            agents.iter().enumerate().map(|(at, (node, _))| (node.as_str(), at)).collect();
        let is_given: BTreeSet<&Shard> = failing.iter().map(|failing| failing.shard).collect();
        let mut pieces: Vec<(&Shard, String, Option<usize>)> = Vec::new();
        for (shard, seat) in &self.seats {
            let holder = seat.holder.as_ref().map(|holder| holder.node.as_str());
            let at = holder.filter(|node| !fails(node)).and_then(|node| places.get(node).copied());
            if is_given.contains(shard) {
                pieces.push((shard, shard.name(), None));
            } else if at.is_some() {
                pieces.push((shard, shard.name(), at));
            }
        }
        let all_cut_off = failing.iter().all(|failing| failing.is_cut_off);
        let tries: [&dyn Fn(&Agent) -> bool; 3] = [
            &|agent| all_cut_off && agent.way.is_good(since),
            &|agent| self.is_well(agent, now) && agent.way.is_good(since),
            &|agent| self.is_well(agent, now) && !agent.way.is_cut_off(since),
        ];
        for may_take in tries {
            let candidates: Vec<Candidate<'_>> = agents
                .iter()
                .map(|(node, agent)| {
                    let goes = fails(node) || agent.is_draining || (agent.is_cordoned && health.any_well);
                    let weight = if goes { 0 } else { agent.way.nearness.weight() };
                    Candidate { node, weight, takes: may_take(agent) }
                })
                .collect();
            let named: Vec<Piece<'_>> = pieces
                .iter()
                .map(|(shard, name, holder)| Piece {
                    name,
                    holder: *holder,
                    is_hot: self.hot.contains(*shard),
                })
                .collect();
            let holders = spread(&candidates, &named, WATCHES_PER_AGENT, Effort::Place);
            for ((.., holder), given) in pieces.iter_mut().zip(holders) {
                *holder = holder.or(given);
            }
        }
        let given = pieces.into_iter().filter(|(shard, ..)| is_given.contains(shard));
        let given = given.filter_map(|(shard, _, at)| {
            let (node, _) = agents.get(at?)?;
            Some((shard.clone(), Some((*node).clone()), Cause::Failing))
        });
        given.collect()
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
                let weight = if goes { 0 } else { agent.way.nearness.weight() };
                Candidate { node, weight, takes }
            })
            .collect();

        let mut answers = Vec::new();
        let mut shared: Vec<(&Shard, String, Option<usize>, Option<Cause>)> = Vec::new();
        for (shard, seat) in &self.seats {
            let cause = match self.standing(seat, &health, now) {
                Standing::Waits => continue,
                // Those that fail have a choice of their own.
                Standing::Settled | Standing::Open(Cause::Failing) => None,
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
        if seat.is_lost {
            seat.lost_before = epoch;
        }
        (seat.was_held, seat.is_lost) = (true, false);
        if cause == Cause::Failing {
            seat.failed_at = Some(now);
        }
        if let Some(holder) = seat.holder.replace(Holder::new(&node, now)) {
            self.former.remember(&holder.node);
            // One that fails goes on trying meanwhile: it may be back before the next one watches.
            let is_planned = matches!(cause, Cause::Draining | Cause::Balance | Cause::Failing);
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
