//! The agent's settings: flags and environment, checked as a whole before anything is opened.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use http::Uri;
use nodetap_wire::tls::Files;

use crate::outbox::queue::Bounds;
use crate::outbox::spool;
use crate::tap::node::LogLines;
use crate::tap::redact::named::{Named, NamedError};
use crate::tap::{self, kubelet};

/// Keeps, explains and delivers what happens on this node: holds event watches, taps the kubelet.
#[derive(Clone, Debug, Parser)]
#[command(name = "nodetap-agent", version)]
pub struct Arguments {
    /// Name of the node that this agent runs on, as `kubectl get nodes` shows it
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where the aggregator takes agents
    #[arg(long, env = "NODETAP_AGGREGATOR", value_name = "HOST:PORT")]
    pub aggregator: Option<String>,
    /// Name that the aggregator's certificate must carry [default: HOST of --aggregator]
    #[arg(long, env = "NODETAP_AGGREGATOR_NAME", value_name = "NAME")]
    pub aggregator_name: Option<String>,
    /// Certificates that sign the aggregator's, in PEM
    #[arg(long, env = "NODETAP_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This agent's certificate, which names its node, in PEM
    #[arg(long, env = "NODETAP_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(long, env = "NODETAP_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Where /metrics, /livez and /readyz are served
    #[arg(long, env = "NODETAP_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9465")]
    pub listen: String,
    /// How to reach the API server [default: as a pod does]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubelet of this node, such as https://10.0.0.1:10250 [default: taps by a pod watch instead]
    #[arg(long, env = "NODETAP_KUBELET", value_name = "URL")]
    pub kubelet: Option<String>,
    /// Certificates that sign the kubelet's, in PEM [default: those of the cluster]
    #[arg(long, env = "NODETAP_KUBELET_CA", value_name = "FILE")]
    pub kubelet_ca: Option<PathBuf>,
    /// Take whatever certificate the kubelet shows. Whoever can stand between the two can then read the agent's token
    #[arg(long, env = "NODETAP_KUBELET_INSECURE_SKIP_VERIFY")]
    pub kubelet_insecure_skip_verify: bool,
    /// Where the kubelet keeps the logs of pods
    #[arg(long, env = "NODETAP_POD_LOGS", value_name = "FOLDER", default_value = "/var/log/pods")]
    pub pod_logs: PathBuf,
    /// Ask the API server for the log of a container that died where the folder does not give it. Needs `get` on `pods` and on
    /// `pods/log`, which is to read the logs of every pod of the cluster
    #[arg(long, env = "NODETAP_POD_LOGS_FROM_API_SERVER")]
    pub pod_logs_from_api_server: bool,
    /// How often the kubelet is asked when nothing stirs
    #[arg(long, env = "NODETAP_POLL_INTERVAL", value_name = "SECONDS", default_value = "10")]
    pub poll_interval: String,
    /// Namespaces whose containers' last log lines are not to be taken
    #[arg(long, env = "NODETAP_LOG_LINES_SKIP_NAMESPACES", value_name = "A,B", value_delimiter = ',')]
    pub log_lines_skip_namespaces: Vec<String>,
    /// Whose last log lines are taken: `opt-out`: all but of pods annotated `nodetap.io/log-lines: "false"`; `opt-in`: only of pods
    /// annotated `"true"`
    #[arg(long, env = "NODETAP_LOG_LINES", value_name = "MODE", default_value = "opt-out")]
    pub log_lines: String,
    /// Patterns of secrets beyond our own: a line `NAME REGEX` each, its group `secret` is what is replaced
    #[arg(long, env = "NODETAP_REDACT_PATTERNS", value_name = "FILE", global = true)]
    pub redact_patterns: Option<PathBuf>,
    /// Folder for what the agent has to remember: its ledger, and what waits to be sent; may be lost, but then what was not sent is lost with it [default: memory only; the ledger goes on from what the aggregator remembers]
    #[arg(long, env = "NODETAP_STATE", value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// Most bytes of what waits to be sent, on the disk; an eighth of them is kept for deaths
    #[arg(long, env = "NODETAP_OUTBOX_BYTES", value_name = "BYTES", default_value = "256Mi")]
    pub outbox_bytes: String,
    /// Something else than to run.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the agent's program does beside running.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Show what redaction would make of a file, and how many secrets of each kind are in it
    Redact {
        /// A container's log or plain text; `-`: standard input
        file: PathBuf,
    },
}

/// Settings that were checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// `HOST:PORT` of the aggregator.
    pub aggregator: String,
    /// The name that its certificate must carry.
    pub aggregator_name: String,
    /// Files of the mutual TLS.
    pub tls: Files,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// The API server's; none: as a pod does.
    pub kubeconfig: Option<PathBuf>,
    /// The outbox.
    pub outbox: spool::Settings,
    /// The tap's.
    pub tap: tap::Config,
}

/// One thing wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The flag.
    pub flag: &'static str,
    /// What is wrong and the way out.
    pub message: String,
}

/// Shorter, and the kubelet would feel it; longer, and a node without its log folder would miss deaths.
const POLL_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=300.0;

/// Less than the largest batches, and nothing would fit; more than a disk has, and the bound would be none.
const OUTBOX_BYTES: std::ops::RangeInclusive<usize> = (16 << 20)..=(1 << 40);

// === impl Arguments ===

impl Arguments {
    /// Checks everything.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn check(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let node = required(
            self.node_name,
            "--node-name",
            "the node's name, or NODE_NAME in its environment",
            &mut problems,
        );
        let aggregator =
            required(self.aggregator, "--aggregator", "HOST:PORT of the aggregator", &mut problems);
        let host = match aggregator.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
                host.to_owned()
            }
            _ => {
                if !aggregator.is_empty() {
                    problems.push(Problem::new("--aggregator", format!("`{aggregator}` is not HOST:PORT")));
                }
                String::new()
            }
        };
        let aggregator_name =
            self.aggregator_name.unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
        let mut file = |path: Option<PathBuf>, flag, what| {
            let path = required(path.map(|path| path.display().to_string()), flag, what, &mut problems);
            readable(PathBuf::from(path), flag, &mut problems)
        };
        let tls = Files {
            ca: file(self.tls_ca, "--tls-ca", "the file that signs the aggregator's certificate"),
            certificate: file(
                self.tls_certificate,
                "--tls-certificate",
                "the file of this agent's certificate",
            ),
            key: file(self.tls_key, "--tls-key", "the file of its key"),
        };
        let kubeconfig = self.kubeconfig.filter(|path| !path.as_os_str().is_empty());
        let kubeconfig = kubeconfig.map(|path| readable(path, "--kubeconfig", &mut problems));
        let kubelet_ca = self.kubelet_ca.filter(|path| !path.as_os_str().is_empty());
        let kubelet_ca = kubelet_ca.map(|path| readable(path, "--kubelet-ca", &mut problems));
        let listen = self.listen.parse().unwrap_or_else(|_| {
            problems.push(Problem::new("--listen", format!("`{}` is not ADDRESS:PORT", self.listen)));
            SocketAddr::from(([0, 0, 0, 0], 0))
        });
        let kubelet =
            self.kubelet.filter(|url| !url.is_empty()).and_then(|url| match bracketed(&url).parse::<Uri>() {
                Ok(uri) if uri.scheme_str() == Some("https") && uri.host().is_some() => Some(uri),
                _ => {
                    problems.push(Problem::new("--kubelet", format!("`{url}` is not https://HOST:PORT")));
                    None
                }
            });
        let log_lines = match self.log_lines.as_str() {
            "opt-out" | "" => LogLines::OptOut,
            "opt-in" => LogLines::OptIn,
            other => {
                problems
                    .push(Problem::new("--log-lines", format!("`{other}` is neither opt-out nor opt-in")));
                LogLines::OptOut
            }
        };
        let redact = named(self.redact_patterns.as_deref()).unwrap_or_else(|error| {
            problems.push(Problem::new("--redact-patterns", error.to_string()));
            Named::default()
        });
        let poll_interval = match self.poll_interval.parse::<f64>() {
            Ok(seconds) if POLL_SECONDS.contains(&seconds) => Duration::from_secs_f64(seconds),
            _ => {
                let (least, most) = (POLL_SECONDS.start(), POLL_SECONDS.end());
                let message =
                    format!("`{}` is not a number of seconds from {least} to {most}", self.poll_interval);
                problems.push(Problem::new("--poll-interval", message));
                Duration::ZERO
            }
        };
        let outbox_bytes = match bytes(&self.outbox_bytes) {
            Some(bytes) if OUTBOX_BYTES.contains(&bytes) => bytes,
            _ => {
                let message = format!("`{}` is not a number of bytes from 16Mi to 1024Gi", self.outbox_bytes);
                problems.push(Problem::new("--outbox-bytes", message));
                0
            }
        };
        let state = self.state.filter(|path| !path.as_os_str().is_empty());
        if !problems.is_empty() {
            return Err(problems);
        }
        let outbox = spool::Settings {
            folder: state.as_deref().map(|state| state.join("outbox")),
            bounds: Bounds::on_disk(outbox_bytes),
        };
        let tap = tap::Config {
            node: node.clone(),
            kubelet: kubelet.map(|url| kubelet::Address {
                url,
                ca: kubelet_ca,
                skip_verify: self.kubelet_insecure_skip_verify,
            }),
            pod_logs: self.pod_logs,
            poll_interval,
            skip_namespaces: self
                .log_lines_skip_namespaces
                .into_iter()
                .filter(|name| !name.is_empty())
                .collect(),
            log_lines,
            api_log: self.pod_logs_from_api_server,
            redact,
            state,
        };
        Ok(Config { node, aggregator, aggregator_name, tls, listen, kubeconfig, outbox, tap })
    }
}

// === impl Problem ===

impl Problem {
    fn new(flag: &'static str, message: String) -> Self {
        Self { flag, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.flag, self.message)
    }
}

/// The patterns of secrets in a file, where one is given.
///
/// # Errors
/// Where it cannot be read or used.
pub fn named(file: Option<&Path>) -> Result<Named, NamedError> {
    match file.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Named::read(path),
        None => Ok(Named::default()),
    }
}

/// Puts an IPv6 address into the brackets that a manifest cannot give `https://$(HOST_IP):10250`.
fn bracketed(url: &str) -> Cow<'_, str> {
    let Some((host, port)) = url.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')) else {
        return Cow::Borrowed(url);
    };
    match host.parse::<Ipv6Addr>() {
        Ok(address) => Cow::Owned(format!("https://[{address}]:{port}")),
        Err(_) => Cow::Borrowed(url),
    }
}

/// A number with `Ki`, `Mi`, `Gi` or nothing behind it.
fn bytes(text: &str) -> Option<usize> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn required(value: Option<String>, flag: &'static str, what: &str, problems: &mut Vec<Problem>) -> String {
    let value = value.unwrap_or_default();
    if value.is_empty() {
        problems.push(Problem::new(flag, format!("missing: give {what}")));
    }
    value
}

fn readable(path: PathBuf, flag: &'static str, problems: &mut Vec<Problem>) -> PathBuf {
    if !path.as_os_str().is_empty()
        && let Err(error) = std::fs::File::open(&path)
    {
        problems.push(Problem::new(flag, format!("cannot read {}: {error}", path.display())));
    }
    path
}

#[cfg(test)]
mod tests;
