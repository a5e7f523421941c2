//! The aggregator's command line. kubernetes-event-exporter's flags are taken as it spells them, with one dash or two.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::admin::Which;

/// Takes what agents send, keeps it, counts it and delivers it
#[derive(Clone, Debug, Parser)]
#[command(name = "nodetap-aggregator", version)]
pub struct Arguments {
    /// Configuration: kubernetes-event-exporter's, with sections of our own
    #[arg(
        long,
        visible_alias = "conf",
        env = "NODETAP_CONFIG",
        value_name = "FILE",
        default_value = "config.yaml"
    )]
    pub config: PathBuf,
    /// Where /metrics, /livez and /readyz are served, such as :2112 [default: listen.metrics of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub metrics_address: Option<SocketAddr>,
    /// Without effect: the agents reach the API server, the aggregator never does
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// What to do, if not to run
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else it does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Tells every problem of a configuration, and opens nothing
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Tells who watches what, of an aggregator that runs
    Status {
        /// Where its metrics are
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2112")]
        address: String,
        /// As JSON, with every share
        #[arg(long)]
        json: bool,
    },
    /// Shows what became of everything since the aggregator started, as JSON; exit 1 where it does not add up
    Reconcile,
    /// Reads a journal's folder, also beside an aggregator that runs; writes nothing
    Journal {
        /// What to do with it
        #[command(subcommand)]
        action: Journal,
    },
    /// Shows, delivers again or drops what receivers refused; asks the aggregator that runs with the same --config
    DeadLetters {
        /// What to do with them
        #[command(subcommand)]
        action: DeadLetters,
    },
}

/// What to do with a journal.
#[derive(Clone, Debug, Subcommand)]
pub enum Journal {
    /// Reads every page, record and index, and tells what is wrong
    Verify {
        /// The folder: journal.path of the configuration
        folder: PathBuf,
    },
    /// Tells what each file holds
    Stat {
        /// The folder: journal.path of the configuration
        folder: PathBuf,
    },
    /// Prints the records as JSON, one a line
    Export {
        /// The folder: journal.path of the configuration
        folder: PathBuf,
        /// clusterName of the configuration, which the records' ids have in them
        #[arg(long, value_name = "NAME", default_value = "")]
        cluster: String,
        /// Only those after this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: u64,
        /// Each in an object with its position and when it was taken
        #[arg(long)]
        positions: bool,
    },
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetters {
    /// Shows them: receiver, position in the journal, when, and why
    List {
        /// Which of them
        #[command(flatten)]
        which: WhichLetters,
        /// As JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Delivers them again through the same receiver, with the same id; what is refused again stays
    Replay {
        /// Which of them
        #[command(flatten)]
        which: WhichLetters,
        /// All of them, where nothing says which
        #[arg(long)]
        all: bool,
    },
    /// Forgets them; the journal keeps their records as long as any
    Drop {
        /// Which of them
        #[command(flatten)]
        which: WhichLetters,
        /// All of them, where nothing says which
        #[arg(long)]
        all: bool,
    },
}

/// Which dead letters; all that is said must hold.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WhichLetters {
    /// Of this receiver
    #[arg(long, value_name = "RECEIVER")]
    pub sink: Option<String>,
    /// Of the record at this position in the journal
    #[arg(long, value_name = "POSITION")]
    pub position: Option<u64>,
    /// With this text in their reason
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Flags that kubernetes-event-exporter's users write with one dash, as Go's `flag` takes them.
const ONE_DASH: [&str; 3] = ["-conf", "-metrics-address", "-kubeconfig"];

// === impl DeadLetters ===

impl DeadLetters {
    /// Which are meant; none: it is to be said that all are.
    pub fn which(&self) -> Option<Which> {
        let (which, all) = match self {
            Self::List { which, .. } => (which, true),
            Self::Replay { which, all } | Self::Drop { which, all } => (which, *all),
        };
        let WhichLetters { sink, position, reason } = which.clone();
        let says = sink.is_some() || position.is_some() || reason.is_some();
        (says || all).then_some(Which { sink, position, reason, after: None })
    }
}

// === impl Arguments ===

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    /// What clap finds wrong, or help and version where they are asked for.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(words.into_iter().map(two_dashes))
    }
}

fn two_dashes(word: OsString) -> OsString {
    let is_one_dash = word.to_str().is_some_and(|word| {
        ONE_DASH
            .iter()
            .any(|flag| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    });
    if !is_one_dash {
        return word;
    }
    let mut longer = OsString::from("-");
    longer.push(word);
    longer
}

/// `:2112` is every address, as Go spells it.
fn address(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    whole.parse().map_err(|_| "not ADDRESS:PORT".to_owned())
}

#[cfg(test)]
mod tests;
