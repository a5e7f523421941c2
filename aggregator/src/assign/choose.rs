//! Which way of sharing out the watches is taken: from what is configured, what the API server accepts, and how much happens.
//!
//! Pure. A way that the API server was not found to accept is never taken, whoever asks for it.

use nodetap_wire::{Finding, Findings};

/// `events` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `events.watch`
    pub watch: Watch,
    /// `events.hostWatchMaxNodes`: with more nodes, a watch a node is not taken by `auto`.
    pub host_watch_max_nodes: usize,
    /// `events.maxEventsPerWatch`, a second: with more, `auto` takes more than one watch.
    pub max_events_per_watch: u32,
    /// `events.shards.allow`: `auto` may take ranges of uids. Worth it only where events are in the API server's watch cache, which
    /// nobody but its administrator knows.
    pub allow_shards: bool,
    /// `events.shards.count`
    pub shards: u32,
}

/// `events.watch`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// As the cluster allows. The default.
    #[default]
    Auto,
    /// A watch a node, and one for the events that name none.
    Host,
    /// One watch of all events, held by one agent.
    Cluster,
    /// A watch a namespace.
    Namespaces,
    /// A watch a range of uids.
    Shards,
}

/// How the events are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// By the node that they name.
    Host,
    /// Not at all.
    Cluster,
    /// By namespace.
    Namespaces,
    /// By the hash of the uid, in so many ranges.
    Ranges(u32),
}

/// What is known of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What the API server accepts; `None`: not asked yet.
    pub findings: Option<&'a Findings>,
    /// Agents that are connected.
    pub agents: usize,
    /// Namespaces; `None`: not counted, as nobody watches them.
    pub namespaces: Option<usize>,
    /// Events a second, over the last minute; `None`: not measured for so long.
    pub events_per_second: Option<f64>,
    /// What is taken now.
    pub current: Partition,
}

/// What is taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What.
    pub partition: Partition,
    /// In words, for people.
    pub why: String,
}

/// Watches of one agent: each is a connection of its own to the API server.
pub const WATCHES_PER_AGENT: usize = 256;

/// What was taken for its rate is given up below this part of it, so that it does not go to and fro.
const BACK_BELOW: f64 = 0.5;

// === impl Wish ===

impl Default for Wish {
    fn default() -> Self {
        Self {
            watch: Watch::Auto,
            host_watch_max_nodes: 50,
            max_events_per_watch: 1_000,
            allow_shards: false,
            shards: 8,
        }
    }
}

impl Wish {
    /// What to take.
    pub fn choose(&self, known: &Known<'_>) -> Choice {
        let say = |partition, why: String| Choice { partition, why };
        match self.watch {
            Watch::Auto => self.auto(known),
            Watch::Cluster => say(Partition::Cluster, "configured".to_owned()),
            Watch::Namespaces => match known.too_many_namespaces() {
                Some(why) => say(Partition::Cluster, why),
                None => say(Partition::Namespaces, "configured".to_owned()),
            },
            Watch::Host => match known.host_selector() {
                Finding::Accepted => say(Partition::Host, "configured, and accepted".to_owned()),
                Finding::Refused => {
                    let why = "configured: host; the API server does not select events by spec.source.host";
                    say(Partition::Cluster, why.to_owned())
                }
                Finding::Unspecified => say(known.meanwhile(Partition::Host), known.not_known("host")),
            },
            Watch::Shards => match known.shard_selector() {
                Finding::Accepted => {
                    say(Partition::Ranges(self.shards), "configured, and accepted".to_owned())
                }
                Finding::Refused => {
                    let why =
                        "configured: shards; the API server does not answer a shardSelector with shardInfo";
                    say(Partition::Cluster, why.to_owned())
                }
                Finding::Unspecified => {
                    say(known.meanwhile(Partition::Ranges(self.shards)), known.not_known("shards"))
                }
            },
        }
    }

    fn auto(&self, known: &Known<'_>) -> Choice {
        let Self { host_watch_max_nodes: nodes, max_events_per_watch: most, .. } = *self;
        if known.host_selector() == Finding::Accepted && known.agents <= nodes {
            let why = format!(
                "the API server selects events by spec.source.host, and {} agents are at most {nodes}",
                known.agents
            );
            return Choice { partition: Partition::Host, why };
        }
        let is_shared = matches!(known.current, Partition::Namespaces | Partition::Ranges(_));
        let Some(rate) = known.events_per_second else {
            let partition = if is_shared { known.current } else { Partition::Cluster };
            return Choice { partition, why: "how much happens was not measured for long enough".to_owned() };
        };
        let limit = if is_shared { f64::from(most) * BACK_BELOW } else { f64::from(most) };
        if rate <= limit {
            let why = format!("{rate:.0} events a second are at most {limit:.0}: one watch bears them");
            return Choice { partition: Partition::Cluster, why };
        }
        if self.allow_shards && known.shard_selector() == Finding::Accepted {
            let why = format!(
                "{rate:.0} events a second are more than {limit:.0}, and the API server shards watches"
            );
            return Choice { partition: Partition::Ranges(self.shards), why };
        }
        if let Some(why) = known.too_many_namespaces() {
            return Choice { partition: Partition::Cluster, why };
        }
        let why = format!("{rate:.0} events a second are more than {limit:.0}: one watch a namespace");
        Choice { partition: Partition::Namespaces, why }
    }
}

// === impl Known ===

impl Known<'_> {
    fn host_selector(&self) -> Finding {
        self.findings.map_or(Finding::Unspecified, Findings::host_selector)
    }

    fn shard_selector(&self) -> Finding {
        self.findings.map_or(Finding::Unspecified, Findings::shard_selector)
    }

    /// What is held is not let go of only because nobody has asked the API server yet.
    fn meanwhile(&self, wanted: Partition) -> Partition {
        if self.findings.is_none() && self.current == wanted { wanted } else { Partition::Cluster }
    }

    fn not_known(&self, wanted: &str) -> String {
        match self.findings {
            None => format!("configured: {wanted}; the API server was not asked yet whether it accepts that"),
            Some(findings) => format!(
                "configured: {wanted}; it could not be found out whether the API server accepts that: {}",
                findings.failure
            ),
        }
    }

    fn too_many_namespaces(&self) -> Option<String> {
        let namespaces = self.namespaces?;
        let bearable = self.agents.saturating_mul(WATCHES_PER_AGENT);
        // While agents come back, those that are there cannot be told from those that there are.
        (self.current != Partition::Namespaces && namespaces > bearable).then(|| {
            format!(
                "{namespaces} namespaces are too many for {} agents with {WATCHES_PER_AGENT} watches each",
                self.agents
            )
        })
    }
}

// === impl Partition ===

impl Partition {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Cluster => "cluster",
            Self::Namespaces => "namespaces",
            Self::Ranges(_) => "shards",
        }
    }
}

#[cfg(test)]
mod tests;
