//! Whose way to the API server is good. Asked of agents while a watch fails, so that it goes to somebody who does better, and stays
//! where it is while nobody does: an API server that starts again is away for all.

use std::time::{Duration, Instant};

use super::super::nearness::Nearness;
use super::{Holder, Plan};
use nodetap_wire::{Reached, WatchState};

/// What is known of one agent's way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// The last question, and when it was asked.
    asked: Option<(u64, Instant)>,
    /// When the last question that was answered was asked, and whether the API server was reached.
    answered: Option<(Instant, bool)>,
    pub(super) nearness: Nearness,
    /// As it was last measured, in milliseconds; 0: never.
    pub(super) answer_ms: u32,
}

/// Asking.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Of the last question.
    number: u64,
    round: Option<Round>,
    /// Agents that were asked only to know how near they are.
    measured: usize,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    /// When the first question was asked since all was well.
    began: Instant,
    at: Instant,
    next: Instant,
    wait: Duration,
}

/// Agents that answered that they reach the API server.
#[derive(Debug, Default)]
pub(super) struct Reaching<'a> {
    /// The two that were asked last, with when: of any two, one is not the holder.
    any: [Option<(Instant, &'a str)>; 2],
    /// The same of those that are well.
    well: [Option<(Instant, &'a str)>; 2],
    /// When the last question that was answered at all was asked.
    answered: Option<Instant>,
}

/// Agents that are asked beside those that fail: one that answers is enough, and one may be cut off as well.
const OTHERS: usize = 3;

/// Failing agents that are asked at a time.
const FAILING: usize = 64;

/// Until it is asked again while nothing has changed.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The same after many times.
const LAST_WAIT: Duration = Duration::from_secs(15);

/// Between two rounds, whatever changes.
const BETWEEN: Duration = Duration::from_millis(500);

/// An answer takes a second where the API server is not reached; who was asked is not asked again before it can have come.
const ANSWERED: Duration = Duration::from_millis(1_500);

/// An answer also counts for a watch that failed so much later than the question was asked: the watches of an agent that is cut off
/// have connections of their own, and find that out one after the other.
const COUNTS: Duration = Duration::from_secs(2);

/// A new holder that has not said anything for so long may be cut off.
const SPEECHLESS: Duration = Duration::from_secs(1);

/// Agents that are asked how near they are though they hold nothing: enough to choose from, and no more however large the cluster is.
const MEASURED: usize = 32;

// === impl Plan ===

impl Plan {
    /// Whom to ask now whether the API server is reached, with the question's number.
    pub fn ask(&mut self, now: Instant) -> Vec<(String, u64)> {
        let mut asked = self.ask_of_failing(now);
        asked.extend(self.ask_of_unmeasured(now));
        asked
    }

    fn ask_of_failing(&mut self, now: Instant) -> Vec<(String, u64)> {
        let mut failing: Vec<(&str, Instant)> = Vec::new();
        for holder in self.seats.values().filter_map(|seat| seat.holder.as_ref()) {
            if let Some(since) = holder.trouble(now)
                && self.agents.contains_key(&holder.node)
            {
                failing.push((&holder.node, since));
            }
        }
        let Some(last) = failing.iter().map(|(_, since)| *since).max() else {
            self.asking.round = None;
            return Vec::new();
        };
        let wait = match self.asking.round {
            None => FIRST_WAIT,
            Some(round) if last > round.at && now >= round.at + BETWEEN => FIRST_WAIT,
            Some(round) if now >= round.next => (round.wait * 2).min(LAST_WAIT),
            Some(_) => return Vec::new(),
        };
        let began = self.asking.round.map_or(now, |round| round.began);
        self.asking.round = Some(Round { began, at: now, next: now + wait, wait });
        failing.sort_unstable();
        failing.dedup_by_key(|(node, _)| *node);
        let mut nodes: Vec<String> =
            failing.iter().take(FAILING).map(|(node, _)| (*node).to_owned()).collect();
        // First those that may take something, and of them those that were not asked for longest: each round asks others.
        let mut others: Vec<_> = self
            .agents
            .iter()
            .filter(|(node, agent)| {
                !agent.is_draining
                    && failing.binary_search_by(|(failing, _)| (*failing).cmp(node.as_str())).is_err()
            })
            .map(|(node, agent)| {
                let asked = agent.way.asked.map(|(_, at)| at);
                ((!self.is_well(agent, now), asked, u32::MAX - agent.way.nearness.weight()), node)
            })
            .collect();
        if others.len() > OTHERS {
            others.select_nth_unstable(OTHERS);
        }
        nodes.extend(others.into_iter().take(OTHERS).map(|(_, node)| node.clone()));
        self.question(now, nodes)
    }

    fn ask_of_unmeasured(&mut self, now: Instant) -> Vec<(String, u64)> {
        let unmeasured = std::mem::take(&mut self.unmeasured);
        let room = MEASURED.saturating_sub(self.asking.measured);
        let is_there = |node: &String| {
            let way = self.agents.get(node).map(|agent| agent.way);
            way.is_some_and(|way| way.asked.is_none() && way.answer_ms == 0)
        };
        let nodes: Vec<String> = unmeasured.into_iter().filter(is_there).take(room).collect();
        self.asking.measured += nodes.len();
        self.question(now, nodes)
    }

    fn question(&mut self, now: Instant, nodes: Vec<String>) -> Vec<(String, u64)> {
        let mut asked = Vec::with_capacity(nodes.len());
        for node in nodes {
            if let Some(agent) = self.agents.get_mut(&node).filter(|agent| !agent.way.is_awaited(now)) {
                self.asking.number += 1;
                agent.way.asked = Some((self.asking.number, now));
                asked.push((node, self.asking.number));
            }
        }
        asked
    }

    /// An agent answers. Whether something may have to be given to somebody for it.
    pub fn reached(&mut self, now: Instant, node: &str, answer: &Reached) -> bool {
        self.measured(now, node, answer.answer_ms);
        let Some(agent) = self.agents.get_mut(node) else { return false };
        // An answer to a question before the last one says less than the one to come.
        let Some((_, at)) = agent.way.asked.filter(|(number, _)| *number == answer.number) else {
            return false;
        };
        let before = agent.way.answered.replace((at, answer.reached));
        if answer.reached && before.is_some_and(|(_, was_reached)| !was_reached) {
            // It failed because it was cut off, and is back.
            agent.failed_at = None;
        }
        self.asking.round.is_some()
    }

    /// How soon an agent's API server answers, in milliseconds; 0: it was not measured.
    pub fn measured(&mut self, now: Instant, node: &str, answer_ms: u32) {
        let Some(agent) = self.agents.get_mut(node).filter(|_| answer_ms > 0) else { return };
        agent.way.answer_ms = answer_ms;
        let nearness = agent.way.nearness.after(answer_ms);
        if std::mem::replace(&mut agent.way.nearness, nearness) != nearness {
            self.unbalance(now);
        }
    }

    /// How many agents are near their API server, how many far from it, and how many were not measured.
    pub fn nearness(&self) -> (usize, usize, usize) {
        let count = |of: &dyn Fn(&Way) -> bool| self.agents.values().filter(|agent| of(&agent.way)).count();
        (
            count(&|way| way.nearness == Nearness::Near),
            count(&|way| way.nearness == Nearness::Far),
            count(&|way| way.answer_ms == 0),
        )
    }

    /// From when on an agent must have been asked for its answer to say something of a watch that fails since a time. Not from before
    /// anything failed: that the API server was reached then says nothing.
    pub(super) fn asked_from(&self, since: Instant) -> Instant {
        let earliest = since.checked_sub(COUNTS).unwrap_or(since);
        self.asking.round.map_or(since, |round| round.began.max(earliest).min(since))
    }

    pub(super) fn reaching(&self, now: Instant) -> Reaching<'_> {
        let mut reaching = Reaching::default();
        for (node, agent) in self.agents.iter().filter(|(_, agent)| !agent.is_draining) {
            let Some((at, is_reached)) = agent.way.answered else { continue };
            reaching.answered = reaching.answered.max(Some(at));
            if is_reached {
                note(&mut reaching.any, (at, node));
                if self.is_well(agent, now) {
                    note(&mut reaching.well, (at, node));
                }
            }
        }
        reaching
    }
}

/// Keeps the two latest.
fn note<'a>(latest: &mut [Option<(Instant, &'a str)>; 2], one: (Instant, &'a str)) {
    if Some(one.0) > latest[0].map(|(at, _)| at) {
        *latest = [Some(one), latest[0]];
    } else if Some(one.0) > latest[1].map(|(at, _)| at) {
        latest[1] = Some(one);
    }
}

// === impl Way ===

impl Way {
    /// Of a stream that has just begun: what was asked on another is not answered.
    pub(super) fn again(self) -> Self {
        Self { asked: self.asked.filter(|_| self.answered.is_some()), ..self }
    }

    /// Its answer to the last question may be on its way.
    fn is_awaited(&self, now: Instant) -> bool {
        let answered = self.answered.map(|(at, _)| at);
        self.asked.is_some_and(|(_, at)| answered.is_none_or(|answered| answered < at) && now < at + ANSWERED)
    }

    /// It was asked since then, and did not reach the API server.
    pub(super) fn is_cut_off(&self, since: Instant) -> bool {
        self.answered.is_some_and(|(at, is_reached)| at >= since && !is_reached)
    }

    /// It was asked since then, and reached the API server.
    pub(super) fn is_good(&self, since: Instant) -> bool {
        self.answered.is_some_and(|(at, is_reached)| at >= since && is_reached)
    }
}

// === impl Holder ===

impl Holder {
    /// Since when it has failed, where that may be for its way to the API server.
    pub(super) fn trouble(&self, now: Instant) -> Option<Instant> {
        let since = self.failing_since.filter(|_| self.away_since.is_none())?;
        match self.state {
            WatchState::BackingOff | WatchState::Released => Some(since),
            _ => (now >= since + SPEECHLESS).then_some(since),
        }
    }
}

// === impl Reaching ===

impl Reaching<'_> {
    /// Somebody else was asked since then and reaches it.
    pub(super) fn any_but(&self, holder: &str, since: Instant) -> bool {
        self.any.iter().flatten().any(|(at, node)| *at >= since && *node != holder)
    }

    /// The same of those that are well. Where nobody answered at all, as older agents do not, it is not known, and tried.
    pub(super) fn well_but(&self, holder: &str, since: Instant) -> bool {
        let answered = self.answered.is_some_and(|at| at >= since);
        !answered || self.well.iter().flatten().any(|(at, node)| *at >= since && *node != holder)
    }
}
