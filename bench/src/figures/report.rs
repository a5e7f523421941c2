//! How figures are told: a table of the phases for people, and a line a figure for programs.

use std::time::Duration;

use super::process::Taken;
use crate::say;

/// What both processes took in a phase.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// As in the names of its figures.
    pub(super) name: &'static str,
    /// Records delivered in it.
    pub(super) records: usize,
    pub(super) agent: Taken,
    pub(super) aggregator: Taken,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    bar: Option<Bar>,
}

/// The most that a figure may be.
#[derive(Clone, Copy, Debug)]
enum Bar {
    /// More is a failure.
    Limit(f64),
    /// More is told.
    Aim(f64),
}

// === impl Phase ===

impl Phase {
    pub(super) fn seconds(&self) -> f64 {
        self.agent.elapsed.as_secs_f64()
    }

    /// CPU of both for each record, in microseconds; `None` without records.
    pub(super) fn cpu_per_record(&self) -> Option<f64> {
        let cpu: Duration = self.agent.cpu + self.aggregator.cpu;
        (self.records > 0).then(|| cpu.as_secs_f64() * 1e6 / count(self.records))
    }

    pub(super) fn rate(&self) -> f64 {
        count(self.records) / self.seconds()
    }

    /// What it is beside the figures that have a bar.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let name = self.name;
        let figures = [
            (format!("agent-rss-{name}"), megabytes(self.agent.rss), "MB"),
            (format!("agent-cpu-{name}"), self.agent.percent(), "%"),
            (format!("aggregator-rss-{name}"), megabytes(self.aggregator.rss), "MB"),
            (format!("aggregator-cpu-{name}"), self.aggregator.percent(), "%"),
        ];
        let per_record = self.cpu_per_record();
        figures
            .into_iter()
            .chain(per_record.map(|cpu| (format!("cpu-per-event-{name}"), cpu, "us")))
            .map(|(name, value, unit)| Figure::new(name, value, unit))
            .collect()
    }
}

/// Shows the phases.
pub(super) fn table(phases: &[Phase]) {
    say("");
    say(
        "phase      events  seconds  events/s   agent MB  CPU %   aggregator MB  CPU %   us/event  agent + aggregator",
    );
    for phase in phases {
        let per_record = |cpu: Duration| cpu.as_secs_f64() * 1e6 / count(phase.records);
        let each = phase.cpu_per_record().map_or_else(
            || format!("{:>9}", "-"),
            |both| {
                format!(
                    "{both:>9.1}  {:.1} + {:.1}",
                    per_record(phase.agent.cpu),
                    per_record(phase.aggregator.cpu)
                )
            },
        );
        say(&format!(
            "{:<8} {:>8}  {:>7.1}  {:>8.0}  {:>9.1}  {:>5.2}  {:>14.1}  {:>5.2}  {each}",
            phase.name,
            phase.records,
            phase.seconds(),
            phase.rate(),
            megabytes(phase.agent.rss),
            phase.agent.percent(),
            megabytes(phase.aggregator.rss),
            phase.aggregator.percent(),
        ));
    }
    say("");
}

// === impl Figure ===

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, bar: None }
    }

    /// At most so much.
    pub(crate) fn limit(self, bar: f64) -> Self {
        Self { bar: Some(Bar::Limit(bar)), ..self }
    }

    /// At most so much is aimed at.
    pub(super) fn aim(self, bar: f64) -> Self {
        Self { bar: Some(Bar::Aim(bar)), ..self }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.bar, Some(Bar::Limit(bar)) if self.value > bar)
    }

    /// `figure NAME VALUE UNIT bar BAR ok|short`, without the bar where it has none, with `aim` at the end where it is one.
    pub(crate) fn line(&self) -> String {
        let Self { name, value, unit, .. } = self;
        let start = format!("figure {name} {value:.3} {unit}");
        match self.bar {
            None => start,
            Some(Bar::Limit(bar)) => format!("{start} bar {bar} {}", verdict(*value, bar)),
            Some(Bar::Aim(bar)) => format!("{start} bar {bar} {} aim", verdict(*value, bar)),
        }
    }
}

fn verdict(value: f64, bar: f64) -> &'static str {
    if value > bar { "short" } else { "ok" }
}

/// Millions of bytes.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "no process has 2^53 bytes")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// Exact below 2^53.
pub(crate) fn count(number: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "nobody counts that far")]
    let number = number as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_bar_and_whether_it_is_met() {
        let figure = Figure::new("ready-agent", 0.25, "s");
        assert_eq!(figure.line(), "figure ready-agent 0.250 s");
        assert_eq!(figure.clone().limit(1.0).line(), "figure ready-agent 0.250 s bar 1 ok");
        assert_eq!(figure.clone().limit(0.2).line(), "figure ready-agent 0.250 s bar 0.2 short");
        assert!(figure.clone().limit(0.2).is_failure() && !figure.clone().limit(0.25).is_failure());
        assert_eq!(figure.clone().aim(0.2).line(), "figure ready-agent 0.250 s bar 0.2 short aim");
        assert!(!figure.aim(0.2).is_failure());
    }
}
