//! Who watches what since when, at what rate, how far behind, and what failed last: for people, and as JSON.

use std::fmt::Write;

use nodetap_wire::{Finding, Findings, WatchState};
use serde::{Deserialize, Serialize};

/// The state of the watch plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// How the events are shared out: `host`, `cluster`, `namespaces` or `shards`.
    pub partition: String,
    /// Why.
    pub why: String,
    /// Watches of the partition before go on until those of this one watch.
    pub is_changing: bool,
    /// Agents that are connected.
    pub agents: usize,
    /// Agents that are near their API server, and are given more.
    pub near: usize,
    /// Agents that are far from it, and are given less.
    pub far: usize,
    /// Agents whose API server's answer was not measured, which counts for nothing.
    pub unmeasured: usize,
    /// Nodes whose agents take nothing more, as they are to end or are cordoned.
    pub going: Vec<String>,
    /// Events a second over the last minute; none until there was one.
    pub events_per_second: Option<f64>,
    /// What the API server was found to accept.
    pub api_server: Option<ApiServer>,
    /// Shares that nobody holds.
    pub vacant: usize,
    /// How often the journal was found to have lost something since it was opened.
    pub losses: u64,
    /// Each share.
    pub watches: Vec<Watch>,
}

/// What an API server was found to accept.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiServer {
    /// gitVersion.
    pub version: String,
    /// Whether it selects events by spec.source.host; none: not known.
    pub host_selector: Option<bool>,
    /// Whether it shards lists and watches (KEP-5866).
    pub shard_selector: Option<bool>,
    /// Whether it streams lists (KEP-3157).
    pub send_initial_events: Option<bool>,
    /// How many there are; 0: not known.
    pub servers: u32,
    /// Its shortest answer.
    pub answer_ms: u32,
    /// What could not be found out.
    pub failure: String,
    /// The node whose agent asked.
    pub asked_by: String,
    /// When, RFC 3339.
    pub asked_at: String,
}

/// One share and its holder.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Watch {
    /// Its name.
    pub shard: String,
    /// The holder's node; none: nobody.
    pub node: Option<String>,
    /// Grows with each holder.
    pub epoch: u64,
    /// For how long it has been held.
    pub held_for_seconds: u64,
    /// `listing`, `watching`, `backing off`, `away` (its stream is cut), `waiting` (not reported yet) or `vacant`.
    pub state: String,
    /// Over the last minute.
    pub events_per_second: f64,
    /// How long after it happened the last event was taken; none: none was.
    pub behind_seconds: Option<f64>,
    /// When the last event was taken, RFC 3339; empty: none was.
    pub last_event: String,
    /// The last failure since it last watched.
    pub failure: String,
    /// Who goes on until the holder watches.
    pub leaving: Option<String>,
    /// How soon its API server answers the holder; 0: not measured.
    pub answer_ms: u32,
}

/// Shares in the text before the rest is only counted.
const LINES: usize = 200;

// === impl Status ===

impl Status {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "shared out by  {}: {}", self.partition, self.why)?;
        if self.is_changing {
            writeln!(text, "               the watches from before go on until these watch")?;
        }
        match &self.api_server {
            None => writeln!(text, "API server     not asked yet")?,
            Some(server) => server.write(text)?,
        }
        write!(
            text,
            "agents         {} connected ({} near the API server, {} far, {} not measured)",
            self.agents, self.near, self.far, self.unmeasured
        )?;
        match self.going.as_slice() {
            [] => writeln!(text)?,
            going => writeln!(text, ", going: {}", going.join(", "))?,
        }
        match self.events_per_second {
            Some(rate) => writeln!(text, "events         {rate:.1}/s over the last minute")?,
            None => writeln!(text, "events         not measured yet")?,
        }
        if self.losses > 0 {
            writeln!(
                text,
                "journal        lost records that were durable, {} times: see its log",
                self.losses
            )?;
        }
        writeln!(text, "watches        {}, {} of them held by nobody\n", self.watches.len(), self.vacant)?;
        let width = |of: &dyn Fn(&Watch) -> usize, least: usize| {
            self.watches.iter().take(LINES).map(of).max().unwrap_or(0).max(least)
        };
        let shard = width(&|watch| watch.shard.len(), 5);
        let node = width(&|watch| watch.node.as_ref().map_or(1, String::len), 4);
        writeln!(
            text,
            "{:<shard$}  {:<node$}  {:>5}  {:>9}  {:<11}  {:>8}  {:>7}  {:>7}  LAST FAILURE",
            "SHARE", "NODE", "EPOCH", "HELD FOR", "STATE", "EVENTS/S", "BEHIND", "ANSWERS"
        )?;
        // Those in trouble first.
        let mut watches: Vec<&Watch> = self.watches.iter().collect();
        watches.sort_by_key(|watch| watch.state == "watching");
        for watch in watches.iter().take(LINES) {
            let behind = watch.behind_seconds.map_or("-".to_owned(), |behind| format!("{behind:.1}s"));
            let answers = match watch.answer_ms {
                0 => "-".to_owned(),
                answer_ms => format!("{answer_ms}ms"),
            };
            let leaving = watch.leaving.as_ref().map(|node| format!(" ({node} goes on until it watches)"));
            writeln!(
                text,
                "{:<shard$}  {:<node$}  {:>5}  {:>9}  {:<11}  {:>8.1}  {:>7}  {:>7}  {}{}",
                watch.shard,
                watch.node.as_deref().unwrap_or("-"),
                watch.epoch,
                duration(watch.held_for_seconds),
                watch.state,
                watch.events_per_second,
                behind,
                answers,
                watch.failure,
                leaving.unwrap_or_default(),
            )?;
        }
        if watches.len() > LINES {
            writeln!(text, "and {} more; --json has them all", watches.len() - LINES)?;
        }
        Ok(())
    }
}

// === impl ApiServer ===

impl ApiServer {
    pub(super) fn of(findings: &Findings, node: &str, at: String) -> Self {
        let known = |finding: Finding| match finding {
            Finding::Unspecified => None,
            Finding::Accepted => Some(true),
            Finding::Refused => Some(false),
        };
        Self {
            version: findings.version.clone(),
            host_selector: known(findings.host_selector()),
            shard_selector: known(findings.shard_selector()),
            send_initial_events: known(findings.send_initial_events()),
            servers: findings.api_servers,
            answer_ms: findings.answer_ms,
            failure: findings.failure.clone(),
            asked_by: node.to_owned(),
            asked_at: at,
        }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let word = |known: Option<bool>| match known {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        let servers = match self.servers {
            0 => "not known how many".to_owned(),
            1 => "one".to_owned(),
            many => format!("{many} of them"),
        };
        writeln!(
            text,
            "API server     {}, {servers}, answers in {} ms; selects by host: {}, shards: {}, streams lists: {} (asked by {} at {})",
            self.version,
            self.answer_ms,
            word(self.host_selector),
            word(self.shard_selector),
            word(self.send_initial_events),
            self.asked_by,
            self.asked_at,
        )?;
        if !self.failure.is_empty() {
            writeln!(text, "               not found out: {}", self.failure)?;
        }
        Ok(())
    }
}

/// The state of a share in a word.
pub(super) fn word(row: &super::plan::Row<'_>) -> &'static str {
    match row.state {
        _ if row.node.is_none() => "vacant",
        _ if row.is_away => "away",
        WatchState::Listing => "listing",
        WatchState::Watching => "watching",
        WatchState::BackingOff => "backing off",
        WatchState::Unspecified | WatchState::Released => "waiting",
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_who_watches_what_and_those_in_trouble_first() {
        let watch = |shard: &str, state: &str, failure: &str| Watch {
            shard: shard.to_owned(),
            node: Some("node-1".to_owned()),
            epoch: 3,
            held_for_seconds: 3_725,
            state: state.to_owned(),
            events_per_second: 12.34,
            behind_seconds: Some(0.25),
            failure: failure.to_owned(),
            ..Watch::default()
        };
        let status = Status {
            partition: "namespaces".to_owned(),
            why: "configured".to_owned(),
            agents: 3,
            watches: vec![
                watch("namespace/a", "watching", ""),
                watch("namespace/b", "backing off", "500 no"),
            ],
            ..Status::default()
        };
        let text = status.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "shared out by  namespaces: configured");
        let at = |what: &str| lines.iter().position(|line| line.starts_with(what)).unwrap_or(usize::MAX);
        assert!(at("namespace/b") < at("namespace/a"), "{text}");
        assert!(lines[at("namespace/b")].ends_with("500 no"), "{text}");
        assert!(
            lines[at("namespace/a")].contains("1h02m") && lines[at("namespace/a")].contains("12.3"),
            "{text}"
        );
        let json = serde_json::to_string(&status).unwrap_or_default();
        let read: Status = serde_json::from_str(&json).unwrap_or_default();
        assert_eq!(read.text(), text);
    }
}
