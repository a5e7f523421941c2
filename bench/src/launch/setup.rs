//! What the processes are given: certificates, a configuration, ports, and their flags.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use tokio::process::Command;

use super::child::Child;
use crate::cluster::{Node, SimulatedCluster};
use crate::pki::{Authority, LeafFiles};

/// Files and addresses.
#[derive(Debug)]
pub(crate) struct Setup {
    folder: PathBuf,
    binaries: PathBuf,
    ca: PathBuf,
    configuration: PathBuf,
    authority: Authority,
    /// Where the aggregator takes agents.
    pub(crate) agents: SocketAddr,
    /// Where agents look for it.
    pub(crate) by_way_of: SocketAddr,
    metrics: SocketAddr,
    poll_seconds: u32,
    /// The journal's folder.
    pub(crate) journal: PathBuf,
    /// What the file sink writes.
    pub(crate) file: PathBuf,
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
}

/// What a run wants of them.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    /// Where a webhook takes every record, beside the file.
    pub(crate) webhook: Option<String>,
    /// How often agents ask the kubelet, in seconds.
    pub(crate) poll_seconds: u32,
}

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
        }
    }

    /// One that does not run on the node that it speaks for: no kubelet, no logs.
    pub(crate) fn elsewhere(node: &str, kubeconfig: &Path) -> Self {
        Self { node: node.to_owned(), kubeconfig: kubeconfig.to_owned(), kubelet: None, pod_logs: None }
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
        let address = free_port()?;
        let setup = Self {
            authority,
            folder: folder.to_owned(),
            binaries: binaries.to_owned(),
            ca,
            configuration: folder.join("config.yaml"),
            agents: address,
            by_way_of: address,
            metrics: free_port()?,
            journal,
            poll_seconds: wishes.poll_seconds,
            file: folder.join("records.json"),
        };
        let text = setup.configuration_text(&aggregator, wishes.webhook.as_deref());
        std::fs::write(&setup.configuration, text)
            .with_context(|| format!("cannot write {}", setup.configuration.display()))?;
        Ok(setup)
    }

    /// The folder of an agent's state.
    pub(crate) fn state(&self, node: &str) -> PathBuf {
        self.folder.join(format!("state-{node}"))
    }

    /// Issues all certificates anew, where the old ones are.
    pub(crate) fn renew(&self, nodes: &[String]) -> anyhow::Result<()> {
        let certificates = self.folder.join("certificates");
        self.authority.aggregator()?.write(&certificates, "aggregator")?;
        nodes.iter().try_for_each(|node| self.authority.agent(node)?.write(&certificates, node).map(drop))
    }

    pub(crate) fn start_aggregator(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(self.binaries.join("nodetap-aggregator"));
        command.arg("--config").arg(&self.configuration);
        Child::start("the aggregator", command, &self.folder.join("aggregator.log"), self.metrics)
    }

    pub(crate) fn start_agent(&self, agent: &Agent) -> anyhow::Result<Child> {
        let listen = free_port()?;
        let certificates = self.folder.join("certificates");
        let mut command = Command::new(self.binaries.join("nodetap-agent"));
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
            .arg(&self.ca)
            .arg("--tls-certificate")
            .arg(certificates.join(format!("{}.crt", agent.node)))
            .arg("--tls-key")
            .arg(certificates.join(format!("{}.key", agent.node)))
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

    /// JSON, which is YAML too.
    fn configuration_text(&self, certificate: &LeafFiles, webhook: Option<&str>) -> String {
        let mut receivers =
            vec![json!({"name": "file", "file": {"path": self.file, "maxsize": FILE_MAX_SIZE}})];
        if let Some(endpoint) = webhook {
            receivers.push(json!({"name": "webhook", "webhook": {"endpoint": endpoint}}));
        }
        let matches: Vec<_> = receivers.iter().map(|one| json!({"receiver": one["name"]})).collect();
        let configuration = json!({
            "clusterName": "simulated",
            "listen": {"agents": self.agents.to_string(), "metrics": self.metrics.to_string()},
            "tls": {"certFile": certificate.certificate, "keyFile": certificate.key, "caFile": self.ca},
            "journal": {"path": self.journal},
            "events": {"watch": "auto"},
            "route": {"routes": [{"match": matches}]},
            "receivers": receivers,
        });
        format!("{configuration:#}\n")
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
