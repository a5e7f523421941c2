//! Dead letters on their way to their sink again. They stay where they are kept until they are delivered, so that nothing is
//! lost when the process ends on the way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nodetap_wire::time;

use super::backoff::Backoff;
use crate::journal::{DeadLetter, Letters, Position};
use crate::sinks::{Delivery, Failure, Limits, Outcome};

/// Failures in a row after which a letter goes back to the others, as it is: why it was refused says more than that the sink was down.
const TRIES: u32 = 3;

/// What was asked for and is not settled.
#[derive(Debug)]
pub struct Replays {
    consumer: String,
    /// Bounded by who asks: few, and each is a person.
    asked: VecDeque<Letters>,
    /// Bounded by what is looked up at once.
    found: VecDeque<Delivery>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// What is delivered, and no dead letter any more.
    pub delivered: Vec<Position>,
    /// What stays one, and why.
    pub refused: Vec<DeadLetter>,
    /// What stays one as it is, since the sink fails; and how it does.
    pub put_back: Option<DeadLetter>,
    /// How long the sink asked to be left alone.
    pub asked: Option<Duration>,
}

// === impl Replays ===

impl Replays {
    /// Of the letters of a consumer.
    pub fn new(consumer: String) -> Self {
        Self {
            consumer,
            asked: VecDeque::new(),
            found: VecDeque::new(),
            backoff: Backoff::default(),
            not_before: None,
        }
    }

    /// Takes an order. What is refused again is not part of it any more.
    pub fn begin(&mut self, letters: Letters) {
        let before_ns = letters.before_ns.or_else(|| Some(time::now_ns()));
        self.asked.push_back(Letters { consumer: Some(self.consumer.clone()), before_ns, ..letters });
    }

    /// Whether there is something to do now.
    pub fn is_due(&self, now: Instant) -> bool {
        (!self.asked.is_empty() || !self.found.is_empty()) && self.not_before.is_none_or(|at| now >= at)
    }

    /// When there is, if there is.
    pub fn wake(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.asked.is_empty() || !self.found.is_empty())
    }

    /// Which letters to look up next; none: there are deliveries, or nothing was asked for.
    pub fn wants(&self) -> Option<Letters> {
        self.asked.front().filter(|_| self.found.is_empty()).cloned()
    }

    /// What was looked up, and the last letter of it; none: there were no more.
    pub fn found(&mut self, deliveries: Vec<Delivery>, last: Option<Position>) {
        self.found.extend(deliveries);
        match (self.asked.front_mut(), last) {
            (Some(letters), Some(last)) => letters.after = Some((self.consumer.clone(), last)),
            _ => drop(self.asked.pop_front()),
        }
    }

    /// What to try next.
    pub fn batch(&self, limits: Limits) -> Vec<Delivery> {
        let mut bytes = 0_usize;
        let fits = |delivery: &&Delivery| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(delivery.body.len().max(1));
            first || bytes <= limits.bytes
        };
        self.found.iter().take(limits.records.max(1)).take_while(fits).cloned().collect()
    }

    /// Takes what became of the first of them.
    pub fn settle(&mut self, outcomes: Vec<Option<Outcome>>, now: Instant, jitter: f64) -> Settled {
        let mut settled = Settled::default();
        let mut failure: Option<Failure> = None;
        let rest = self.found.split_off(outcomes.len().min(self.found.len()));
        let tried = std::mem::replace(&mut self.found, VecDeque::with_capacity(rest.len()));
        for (delivery, outcome) in tried.into_iter().zip(outcomes) {
            let position = delivery.position;
            match outcome {
                Some(Outcome::Delivered) => settled.delivered.push(position),
                Some(Outcome::Refused(reason)) => settled.refused.push(DeadLetter { position, reason }),
                Some(Outcome::Retry(why)) => {
                    match &mut failure {
                        None => failure = Some(why),
                        Some(first) => first.after = first.after.max(why.after),
                    }
                    self.found.push_back(delivery);
                }
                None => self.found.push_back(delivery),
            }
        }
        self.found.extend(rest);
        let progress = !settled.delivered.is_empty() || !settled.refused.is_empty();
        if progress {
            self.backoff.reset();
        }
        self.not_before = None;
        let failure = failure.or_else(|| (!progress).then(Failure::interrupted));
        if let Some(Failure { reason, after, .. }) = failure {
            let wait: Duration = self.backoff.next(after, jitter);
            self.not_before = Some(now + wait);
            settled.asked = after.map(|_| wait);
            if self.backoff.failures() >= TRIES
                && let Some(first) = self.found.pop_front()
            {
                self.backoff.reset();
                settled.put_back = Some(DeadLetter { position: first.position, reason });
            }
        }
        settled
    }
}
