//! What the processes are given: certificates, a configuration, ports, and their flags.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use nodetap_wire::tls::Files;
use serde_json::json;
use tokio::process::Command;

use super::child::Child;
use crate::cluster::{Node, SimulatedCluster};
use crate::pki::{Authority, LeafFiles};

/// The folder of all certificates, and the name of the aggregator's in it.
const CERTIFICATES: &str = "certificates";
const AGGREGATOR: &str = "aggregator";

/// Files and addresses.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    folder: PathBuf,
    binaries: PathBuf,
    ca: PathBuf,
    configuration: PathBuf,
    authority: Arc<Authority>,
    /// Where the aggregator takes agents.
    pub(crate) agents: SocketAddr,
    /// Where agents look for it.
    pub(crate) by_way_of: SocketAddr,
    metrics: SocketAddr,
    history: SocketAddr,
    token: PathBuf,
    poll_seconds: u32,
    /// The journal's folder.
    pub(crate) journal: PathBuf,
    /// What the file sink writes.
    pub(crate) file: PathBuf,
    certificate: LeafFiles,
    wishes: Wishes,
}

/// An agent and what it looks at.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// Its node.
    pub(crate) node: String,
    pub(crate) kubeconfig: PathBuf,
    /// The kubelet's URL, and the CA of its certificate.
    pub(crate) kubelet: Option<(String, PathBuf)>,
    pub(crate) pod_logs: Option<PathBuf>,
    /// A network namespace of its own, and its address there.
    pub(crate) network: Option<(PathBuf, Ipv4Addr)>,
}

/// What a run wants of them.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    /// Where a webhook takes every record, beside the file.
    pub(crate) webhook: Option<String>,
    /// How often agents ask the kubelet, in seconds.
    pub(crate) poll_seconds: u32,
    /// Where the aggregator takes agents.
    pub(crate) address: Ipv4Addr,
    /// The `events` section.
    pub(crate) events: serde_json::Value,
}

/// Where an agent's metrics are in a network namespace of its own: the default.
const AGENT_METRICS: u16 = 9465;
/// Megabytes. More than any run writes: the file is what is counted, so it is not to be rotated.
const FILE_MAX_SIZE: u32 = 1 << 20;

// === impl Agent ===

impl Agent {
    /// One on a node of the simulated cluster.
    pub(crate) fn on(cluster: &SimulatedCluster, node: &Node) -> Self {
        Self {
            node: node.name.clone(),
            kubeconfig: node.kubeconfig.clone(),
            kubelet: Some((node.kubelet_url.clone(), cluster.ca_path().to_owned())),
            pod_logs: Some(node.pod_logs.clone()),
            network: None,
        }
    }

    /// One that does not run on the node that it speaks for: no kubelet, no logs.
    pub(crate) fn elsewhere(node: &str, kubeconfig: &Path) -> Self {
        Self {
            node: node.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            kubelet: None,
            pod_logs: None,
            network: None,
        }
    }
}

// === impl Wishes ===

impl Default for Wishes {
    fn default() -> Self {
        Self {
            webhook: None,
            poll_seconds: 10,
            address: Ipv4Addr::LOCALHOST,
            events: json!({"watch": "auto"}),
        }
    }
}

// === impl Setup ===

impl Setup {
    /// Makes certificates and the aggregator's configuration.
    pub(crate) fn write(
        folder: &Path,
        binaries: &Path,
        agents: &[Agent],
        wishes: &Wishes,
    ) -> anyhow::Result<Self> {
        let journal = folder.join("journal");
        std::fs::create_dir_all(&journal).with_context(|| format!("cannot make {}", journal.display()))?;
        let authority = Authority::new("nodetap-bench-ca")?;
        let ca = folder.join("ca.crt");
        std::fs::write(&ca, authority.pem()).with_context(|| format!("cannot write {}", ca.display()))?;
        let nodes = agents.iter().map(|agent| agent.node.as_str());
        let certificate = issue(&authority, folder, nodes)?;
        let token = folder.join("history-token");
        std::fs::write(&token, format!("{}\n", secret()?))
            .with_context(|| format!("cannot write {}", token.display()))?;
        let address = free_port(wishes.address)?;
        let setup = Self {
            authority: Arc::new(authority),
            folder: folder.to_owned(),
            binaries: binaries.to_owned(),
            ca,
            configuration: folder.join("config.yaml"),
            agents: address,
            by_way_of: address,
            metrics: free_port(Ipv4Addr::LOCALHOST)?,
            history: free_port(Ipv4Addr::LOCALHOST)?,
            token,
            journal,
            poll_seconds: wishes.poll_seconds,
            file: folder.join("records.json"),
            certificate,
            wishes: wishes.clone(),
        };
        setup.write_configuration()?;
        Ok(setup)
    }

    /// Writes another `events` section into the aggregator's configuration, which it follows while it runs.
    pub(crate) fn change_events(&mut self, events: serde_json::Value) -> anyhow::Result<()> {
        self.wishes.events = events;
        self.write_configuration()
    }

    /// In one step: whoever reads it meanwhile reads all of the old or all of the new.
    fn write_configuration(&self) -> anyhow::Result<()> {
        let new = self.configuration.with_extension("new");
        std::fs::write(&new, self.configuration_text())
            .and_then(|()| std::fs::rename(&new, &self.configuration))
            .with_context(|| format!("cannot write {}", self.configuration.display()))
    }

    /// The name in the aggregator's certificate.
    pub(crate) const AGGREGATOR_NAME: &str = "nodetap-aggregator";

    /// Where the aggregator takes agents.
    pub(crate) fn agents(&self) -> SocketAddr {
        self.agents
    }

    /// The files of an agent's mutual TLS.
    pub(crate) fn files(&self, node: &str) -> Files {
        let LeafFiles { certificate, key } = LeafFiles::of(&self.folder.join(CERTIFICATES), node);
        Files { ca: self.ca.clone(), certificate, key }
    }

    /// The folder of an agent's state.
    pub(crate) fn state(&self, node: &str) -> PathBuf {
        self.folder.join(format!("state-{node}"))
    }

    /// Issues all certificates anew, where the old ones are.
    pub(crate) fn renew(&self, nodes: &[String]) -> anyhow::Result<()> {
        issue(&self.authority, &self.folder, nodes.iter().map(String::as_str)).map(drop)
    }

    pub(crate) fn start_aggregator(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(self.binaries.join("nodetap-aggregator"));
        command.arg("--config").arg(&self.configuration);
        Child::start("the aggregator", command, &self.folder.join("aggregator.log"), self.metrics)
    }

    pub(crate) fn start_agent(&self, agent: &Agent) -> anyhow::Result<Child> {
        let binary = self.binaries.join("nodetap-agent");
        let files = self.files(&agent.node);
        let (mut command, listen) = match &agent.network {
            None => (Command::new(binary), free_port(Ipv4Addr::LOCALHOST)?),
            Some((namespace, address)) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(binary);
                (command, (*address, AGENT_METRICS).into())
            }
        };
        command
            .args(["--node-name", &agent.node, "--aggregator", &self.by_way_of.to_string()])
            .args([
                "--aggregator-name",
                "nodetap-aggregator",
                "--poll-interval",
                &self.poll_seconds.to_string(),
            ])
            .args(["--listen", &listen.to_string()])
            .arg("--tls-ca")
            .arg(files.ca)
            .arg("--tls-certificate")
            .arg(files.certificate)
            .arg("--tls-key")
            .arg(files.key)
            .arg("--kubeconfig")
            .arg(&agent.kubeconfig)
            .arg("--state")
            .arg(self.state(&agent.node))
            .arg("--pod-logs")
            .arg(agent.pod_logs.clone().unwrap_or_else(|| self.folder.join("no-pod-logs")));
        if let Some((url, ca)) = &agent.kubelet {
            command.args(["--kubelet", url]).arg("--kubelet-ca").arg(ca);
        }
        let log = self.folder.join(format!("agent-{}.log", agent.node));
        Child::start(&format!("the agent on {}", agent.node), command, &log, listen)
    }

    /// Where the history is, and a command that asks it.
    pub(crate) fn history(&self) -> String {
        let (address, ca, token) = (self.history, self.ca.display(), self.token.display());
        format!(
            "history: https://{address}/  token: {token}\n\
             curl --cacert {ca} -H \"Authorization: Bearer $(cat {token})\" 'https://{address}/api/v1/records?record=death&limit=3'"
        )
    }

    /// JSON, which is YAML too.
    fn configuration_text(&self) -> String {
        let Self { certificate, wishes, .. } = self;
        let mut receivers =
            vec![json!({"name": "file", "file": {"path": self.file, "maxsize": FILE_MAX_SIZE}})];
        if let Some(endpoint) = &wishes.webhook {
            receivers.push(json!({"name": "webhook", "webhook": {"endpoint": endpoint}}));
        }
        let matches: Vec<_> = receivers.iter().map(|one| json!({"receiver": one["name"]})).collect();
        let configuration = json!({
            "clusterName": "simulated",
            "listen": {
                "agents": self.agents.to_string(),
                "metrics": self.metrics.to_string(),
                "history": self.history.to_string(),
            },
            "history": {"tokenFiles": [self.token]},
            "tls": {"certFile": certificate.certificate, "keyFile": certificate.key, "caFile": self.ca},
            "journal": {"path": self.journal},
            "events": wishes.events,
            "route": {"routes": [{"match": matches}]},
            "receivers": receivers,
        });
        format!("{configuration:#}\n")
    }
}

/// Issues the certificates of the aggregator and of these nodes, and puts them where the old ones are in one step, as the kubelet does
/// with a Secret: who starts meanwhile reads no half of a file. Answers those of the aggregator.
fn issue<'a>(
    authority: &Authority,
    folder: &Path,
    nodes: impl Iterator<Item = &'a str>,
) -> anyhow::Result<LeafFiles> {
    let new = tempfile::Builder::new().prefix(&format!("{CERTIFICATES}-")).tempdir_in(folder)?.keep();
    authority.aggregator()?.write(&new, AGGREGATOR)?;
    for node in nodes {
        authority.agent(node)?.write(&new, node)?;
    }
    let link = folder.join(format!("{CERTIFICATES}.new"));
    symlink(&new, &link)
        .and_then(|()| std::fs::rename(&link, folder.join(CERTIFICATES)))
        .with_context(|| format!("cannot put the certificates of {} in place", new.display()))?;
    Ok(LeafFiles::of(&folder.join(CERTIFICATES), AGGREGATOR))
}

/// 64 hexadecimal digits that nobody can guess.
fn secret() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A port that was free a moment ago.
fn free_port(address: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?)
}
