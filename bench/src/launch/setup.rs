//! What the processes are given: certificates, a configuration, ports, and their flags.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nodetap_wire::tls::Files;
use serde_json::json;
use tokio::process::Command;

use super::child::Child;
use crate::cluster::{Node, SimulatedCluster};
use crate::pki::{Authority, LeafFiles};

/// Files and addresses.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    folder: PathBuf,
    binaries: PathBuf,
    ca: PathBuf,
    configuration: PathBuf,
    agents: SocketAddr,
    metrics: SocketAddr,
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
        let certificates = folder.join("certificates");
        let journal = folder.join("journal");
        for made in [&certificates, &journal] {
            std::fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
        }
        let authority = Authority::new("nodetap-bench-ca")?;
        let ca = certificates.join("ca.crt");
        std::fs::write(&ca, authority.pem()).with_context(|| format!("cannot write {}", ca.display()))?;
        let aggregator = authority.aggregator()?.write(&certificates, "aggregator")?;
        for agent in agents {
            authority.agent(&agent.node)?.write(&certificates, &agent.node)?;
        }
        let setup = Self {
            folder: folder.to_owned(),
            binaries: binaries.to_owned(),
            ca,
            configuration: folder.join("config.yaml"),
            agents: free_port(wishes.address)?,
            metrics: free_port(Ipv4Addr::LOCALHOST)?,
            journal,
            poll_seconds: wishes.poll_seconds,
            file: folder.join("records.json"),
            certificate: aggregator,
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
        let certificates = self.folder.join("certificates");
        Files {
            ca: self.ca.clone(),
            certificate: certificates.join(format!("{node}.crt")),
            key: certificates.join(format!("{node}.key")),
        }
    }

    pub(crate) fn start_aggregator(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(self.binaries.join("nodetap-aggregator"));
        command.arg("--config").arg(&self.configuration);
        Child::start("the aggregator", command, &self.folder.join("aggregator.log"), self.metrics)
    }

    pub(crate) fn start_agent(&self, agent: &Agent) -> anyhow::Result<Child> {
        let binary = self.binaries.join("nodetap-agent");
        let certificates = self.folder.join("certificates");
        let (mut command, listen) = match &agent.network {
            None => (Command::new(binary), free_port(Ipv4Addr::LOCALHOST)?),
            Some((namespace, address)) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(binary);
                (command, (*address, AGENT_METRICS).into())
            }
        };
        command
            .args(["--node-name", &agent.node, "--aggregator", &self.agents.to_string()])
            .args([
                "--aggregator-name",
                "nodetap-aggregator",
                "--poll-interval",
                &self.poll_seconds.to_string(),
            ])
            .args(["--listen", &listen.to_string()])
            .arg("--tls-ca")
            .arg(&self.ca)
            .arg("--tls-certificate")
            .arg(certificates.join(format!("{}.crt", agent.node)))
            .arg("--tls-key")
            .arg(certificates.join(format!("{}.key", agent.node)))
            .arg("--kubeconfig")
            .arg(&agent.kubeconfig)
            .arg("--pod-logs")
            .arg(agent.pod_logs.clone().unwrap_or_else(|| self.folder.join("no-pod-logs")));
        if let Some((url, ca)) = &agent.kubelet {
            command.args(["--kubelet", url]).arg("--kubelet-ca").arg(ca);
        }
        let log = self.folder.join(format!("agent-{}.log", agent.node));
        Child::start(&format!("the agent on {}", agent.node), command, &log, listen)
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
            "listen": {"agents": self.agents.to_string(), "metrics": self.metrics.to_string()},
            "tls": {"certFile": certificate.certificate, "keyFile": certificate.key, "caFile": self.ca},
            "journal": {"path": self.journal},
            "events": wishes.events,
            "route": {"routes": [{"match": matches}]},
            "receivers": receivers,
        });
        format!("{configuration:#}\n")
    }
}

/// A port that was free a moment ago.
fn free_port(address: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?)
}
