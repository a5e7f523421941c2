//! What the processes of the demo are given: certificates, a configuration, ports, and their flags.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use tokio::process::Command;

use super::child::Child;
use crate::pki::{Authority, LeafFiles};

/// Files and addresses.
#[derive(Debug)]
pub(super) struct Setup {
    folder: PathBuf,
    binaries: PathBuf,
    ca: PathBuf,
    configuration: PathBuf,
    agents: SocketAddr,
    metrics: SocketAddr,
    /// The journal's folder.
    pub(super) journal: PathBuf,
    /// What the file sink writes.
    pub(super) file: PathBuf,
}

/// An agent and what it looks at.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    /// Its node.
    pub(super) node: String,
    pub(super) kubeconfig: PathBuf,
    /// The kubelet's URL, and the CA of its certificate.
    pub(super) kubelet: Option<(String, PathBuf)>,
    pub(super) pod_logs: Option<PathBuf>,
}

/// Seconds. Short, so that the demo's deaths are seen before the next ones hide them.
const POLL: &str = "1";

// === impl Agent ===

impl Agent {
    /// One that does not run on the node that it speaks for: no kubelet, no logs.
    pub(super) fn elsewhere(node: &str, kubeconfig: &Path) -> Self {
        Self { node: node.to_owned(), kubeconfig: kubeconfig.to_owned(), kubelet: None, pod_logs: None }
    }
}

// === impl Setup ===

impl Setup {
    /// Makes certificates and the aggregator's configuration.
    pub(super) fn write(
        folder: &Path,
        binaries: &Path,
        agents: &[Agent],
        webhook: &str,
    ) -> anyhow::Result<Self> {
        let certificates = folder.join("certificates");
        let journal = folder.join("journal");
        for made in [&certificates, &journal] {
            std::fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
        }
        let authority = Authority::new("nodetap-demo-ca")?;
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
            agents: free_port()?,
            metrics: free_port()?,
            journal,
            file: folder.join("records.json"),
        };
        let text = setup.configuration_text(&aggregator, webhook);
        std::fs::write(&setup.configuration, text)
            .with_context(|| format!("cannot write {}", setup.configuration.display()))?;
        Ok(setup)
    }

    pub(super) fn start_aggregator(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(self.binaries.join("nodetap-aggregator"));
        command.arg("--config").arg(&self.configuration);
        Child::start("the aggregator", command, &self.folder.join("aggregator.log"), self.metrics)
    }

    pub(super) fn start_agent(&self, agent: &Agent) -> anyhow::Result<Child> {
        let listen = free_port()?;
        let certificates = self.folder.join("certificates");
        let mut command = Command::new(self.binaries.join("nodetap-agent"));
        command
            .args(["--node-name", &agent.node, "--aggregator", &self.agents.to_string()])
            .args(["--aggregator-name", "nodetap-aggregator", "--poll-interval", POLL])
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
    fn configuration_text(&self, certificate: &LeafFiles, webhook: &str) -> String {
        let configuration = json!({
            "clusterName": "demo",
            "listen": {"agents": self.agents.to_string(), "metrics": self.metrics.to_string()},
            "tls": {"certFile": certificate.certificate, "keyFile": certificate.key, "caFile": self.ca},
            "journal": {"path": self.journal},
            "events": {"watch": "auto"},
            "route": {"routes": [{"match": [{"receiver": "file"}, {"receiver": "webhook"}]}]},
            "receivers": [
                {"name": "file", "file": {"path": self.file}},
                {"name": "webhook", "webhook": {"endpoint": webhook}},
            ],
        });
        format!("{configuration:#}\n")
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
