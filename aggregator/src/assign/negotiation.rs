//! What the API server accepts: whom to ask, when, and what was answered.
//!
//! It is asked once, and again after a watch came back from a failure: nothing else shows that another version answers now, and
//! nothing is asked while the watches simply go on.

use std::time::{Duration, Instant};

use nodetap_wire::Findings;

/// The state of asking.
#[derive(Debug)]
pub struct Negotiation {
    /// What was found last; `None`: nothing yet.
    findings: Option<Findings>,
    /// Who found it, and when in nanoseconds since 1970.
    found: (String, i64),
    /// When to ask again; `None`: there is no need.
    due: Option<Instant>,
    asked: Option<(String, Instant)>,
}

/// For an answer: five requests with a bound each.
const ANSWER: Duration = Duration::from_secs(90);

/// After an answer that says nothing.
const AGAIN: Duration = Duration::from_secs(30);

/// Between two failures of watches after which it is asked: an API server that starts fails many.
const QUIET: Duration = Duration::from_secs(60);

// === impl Negotiation ===

impl Negotiation {
    /// To be asked as soon as somebody is there.
    pub fn new(now: Instant) -> Self {
        Self { findings: None, found: (String::new(), 0), due: Some(now), asked: None }
    }

    /// Whether somebody is to be asked now.
    pub fn is_due(&self, now: Instant) -> bool {
        let waits = self.asked.as_ref().is_some_and(|(_, since)| now < *since + ANSWER);
        !waits && (self.asked.is_some() || self.due.is_some_and(|due| now >= due))
    }

    /// Somebody is asked.
    pub fn ask(&mut self, now: Instant, node: &str) {
        (self.asked, self.due) = (Some((node.to_owned(), now)), None);
    }

    /// An agent answers. Whether that is news; what nobody asked for is none.
    pub fn answer(&mut self, now: Instant, now_ns: i64, node: &str, findings: Findings) -> bool {
        if self.asked.take_if(|(asked, _)| asked == node).is_none() {
            return false;
        }
        if findings.version.is_empty() {
            self.due = Some(now + AGAIN);
            return false;
        }
        let is_news = self.findings.as_ref().is_none_or(|before| {
            let strip = |findings: &Findings| Findings { answer_ms: 0, ..findings.clone() };
            strip(before) != strip(&findings)
        });
        self.findings = Some(findings);
        self.found = (node.to_owned(), now_ns);
        is_news
    }

    /// An agent says what was found before this process began. Whether that is news.
    pub fn recall(&mut self, now_ns: i64, node: &str, findings: Findings) -> bool {
        if self.findings.is_some() || findings.version.is_empty() {
            return false;
        }
        (self.findings, self.due) = (Some(findings), None);
        self.found = (node.to_owned(), now_ns);
        true
    }

    /// An agent is gone; it may be the one that was asked.
    pub fn left(&mut self, now: Instant, node: &str) {
        if self.asked.take_if(|(asked, _)| asked == node).is_some() {
            self.due = Some(now);
        }
    }

    /// A watch came back from a failure: there may be another version now.
    pub fn disturbed(&mut self, now: Instant) {
        self.due.get_or_insert(now + QUIET);
    }

    /// What was found, by whom, and when in nanoseconds since 1970.
    pub fn findings(&self) -> Option<(&Findings, &str, i64)> {
        self.findings.as_ref().map(|findings| (findings, self.found.0.as_str(), self.found.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(version: &str) -> Findings {
        Findings { version: version.to_owned(), ..Findings::default() }
    }

    #[test]
    fn it_is_asked_once_and_again_only_after_a_watch_failed() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(now);
        assert!(negotiation.is_due(now));
        negotiation.ask(now, "a");
        assert!(!negotiation.is_due(now));
        assert!(!negotiation.answer(now, 1, "b", findings("v1")), "nobody asked b");
        assert!(negotiation.answer(now, 1, "a", findings("v1")));
        assert!(!negotiation.is_due(now + Duration::from_secs(86_400)));
        negotiation.disturbed(now);
        negotiation.disturbed(now + Duration::from_secs(30));
        assert!(!negotiation.is_due(now + Duration::from_secs(59)));
        assert!(negotiation.is_due(now + QUIET));
        negotiation.ask(now + QUIET, "b");
        assert!(!negotiation.answer(now + QUIET, 2, "b", findings("v1")), "the same is no news");
        assert_eq!(negotiation.findings().map(|found| found.1), Some("b"));
    }

    #[test]
    fn who_does_not_answer_or_goes_away_is_asked_for_by_another() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(now);
        negotiation.ask(now, "a");
        assert!(negotiation.is_due(now + ANSWER));
        negotiation.left(now, "a");
        assert!(negotiation.is_due(now));
        negotiation.ask(now, "b");
        assert!(!negotiation.answer(now, 1, "b", findings("")), "it could not find out");
        assert!(!negotiation.is_due(now) && negotiation.is_due(now + AGAIN));
    }

    #[test]
    fn what_was_found_before_a_restart_is_not_asked_again() {
        let now = Instant::now();
        let mut negotiation = Negotiation::new(now);
        assert!(negotiation.recall(1, "a", findings("v1")));
        assert!(!negotiation.recall(1, "b", findings("v2")));
        assert!(!negotiation.is_due(now));
    }
}
