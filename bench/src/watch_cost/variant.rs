//! What is compared with what.

use clap::ValueEnum;
use serde_json::{Value, json};

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Variant {
    /// One plain watch of all events.
    Bare,
    /// Agents as the aggregator plans by default: one of them watches.
    Auto,
    /// Agents that share out the namespaces.
    Namespaces,
    /// Agents that share out the uid hash range, at an API server that has no watch cache of events.
    ShardsUncached,
    /// A plain watch an agent: what a DaemonSet does that is not planned.
    Naive,
    /// One plain watch, with events in the watch cache.
    BareCached,
    /// Agents that share out the uid hash range, with events in the watch cache.
    Shards,
}

/// The variants that are asked for, all where none is, and what they are compared with.
pub(super) fn chosen(only: &[Variant]) -> Vec<Variant> {
    let all = Variant::value_variants();
    let wanted = |variant: &&Variant| {
        only.is_empty() || only.contains(variant) || only.iter().any(|one| one.bare() == **variant)
    };
    all.iter().filter(wanted).copied().collect()
}

// === impl Variant ===

impl Variant {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Auto => "auto",
            Self::Namespaces => "namespaces",
            Self::ShardsUncached => "shards-uncached",
            Self::Naive => "naive",
            Self::BareCached => "bare-cached",
            Self::Shards => "shards",
        }
    }

    /// The API server has events in its watch cache.
    pub(super) fn is_cached(self) -> bool {
        matches!(self, Self::BareCached | Self::Shards)
    }

    /// The one watch that it is compared with, of the same API server.
    pub(super) fn bare(self) -> Self {
        if self.is_cached() { Self::BareCached } else { Self::Bare }
    }

    /// The most that it may cost, in bare watches.
    pub(super) fn bar(self) -> Option<f64> {
        match self {
            Self::Auto | Self::Namespaces => Some(1.05),
            Self::Shards => Some(1.5),
            Self::Bare | Self::BareCached | Self::ShardsUncached | Self::Naive => None,
        }
    }

    /// How many plain watches there are; `None`: agents watch.
    pub(super) fn plain_watches(self, agents: usize) -> Option<usize> {
        match self {
            Self::Bare | Self::BareCached => Some(1),
            Self::Naive => Some(agents),
            Self::Auto | Self::Namespaces | Self::ShardsUncached | Self::Shards => None,
        }
    }

    /// The aggregator's `events` section.
    ///
    /// `shards`: ranges of uids.
    pub(super) fn section(self, shards: usize) -> Value {
        match self {
            Self::Namespaces => json!({"watch": "namespaces"}),
            Self::Shards | Self::ShardsUncached => json!({"watch": "shards", "shards": {"count": shards}}),
            Self::Bare | Self::BareCached | Self::Naive | Self::Auto => json!({"watch": "auto"}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_comes_with_what_it_is_compared_with() {
        assert_eq!(chosen(&[Variant::Shards]), [Variant::BareCached, Variant::Shards]);
        assert_eq!(chosen(&[Variant::Naive, Variant::Auto]), [Variant::Bare, Variant::Auto, Variant::Naive]);
        assert_eq!(chosen(&[]).len(), 7);
    }
}
