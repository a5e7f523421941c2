//! A network namespace for each agent, plugged into the cluster's bridge, in which packets can be dropped.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::process::Command;

use crate::control_plane::{ADDRESS, ControlPlane};
use crate::launch::Agent;

/// The namespaces; removed with the cluster.
#[derive(Debug)]
pub(super) struct Nodes(Vec<Node>);

#[derive(Clone, Debug)]
pub(super) struct Node {
    name: String,
    namespace: PathBuf,
    address: Ipv4Addr,
}

/// Above those of the cluster's own nodes.
const FIRST: usize = 101;

// === impl Nodes ===

impl Nodes {
    /// Makes so many, and takes those away that an earlier run left.
    ///
    /// # Errors
    /// `ip` does not do it.
    pub(super) async fn make(plane: &ControlPlane, count: usize) -> anyhow::Result<Self> {
        let cluster =
            plane.folder.file_name().and_then(|name| name.to_str()).context("a cluster without a name")?;
        let mut nodes = Vec::new();
        for number in FIRST..FIRST + count.clamp(1, 9) {
            let namespace = format!("{cluster}-node{number}");
            let address = format!("10.99.0.{number}");
            let (here, there) = (format!("f{number}"), format!("g{number}"));
            // What was there goes; that nothing was there is no failure.
            let _ = command("ip", &["netns", "delete", &namespace]).await;
            let _ = command("ip", &["link", "delete", &here]).await;
            for line in [
                format!("ip netns add {namespace}"),
                format!("ip link add {here} type veth peer name {there} netns {namespace}"),
                format!("ip link set {here} master cluster0 up"),
                format!("ip -n {namespace} link set lo up"),
                format!("ip -n {namespace} addr add {address}/24 dev {there}"),
                format!("ip -n {namespace} link set {there} up"),
            ] {
                let words: Vec<_> = line.split(' ').collect();
                let (program, arguments) = words.split_first().context("an empty command")?;
                command(program, arguments).await?;
            }
            let namespace = PathBuf::from("/run/netns").join(namespace);
            nodes.push(Node { name: format!("node{number}"), namespace, address: address.parse()? });
        }
        Ok(Self(nodes))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.iter()
    }
}

// === impl Node ===

impl Node {
    /// The agent that runs in it.
    pub(super) fn agent(&self, kubeconfig: &std::path::Path) -> Agent {
        let network = Some((self.namespace.clone(), self.address));
        Agent { network, ..Agent::elsewhere(&self.name, kubeconfig) }
    }

    /// From now on no packet passes between it and a port of the control plane's address, either way and without a word.
    ///
    /// # Errors
    /// `iptables` does not do it.
    pub(super) async fn drop_packets(&self, port: u16) -> anyhow::Result<()> {
        self.rules("-A", port).await
    }

    /// They pass again.
    ///
    /// # Errors
    /// `iptables` does not do it.
    pub(super) async fn pass_packets(&self, port: u16) -> anyhow::Result<()> {
        self.rules("-D", port).await
    }

    async fn rules(&self, change: &str, port: u16) -> anyhow::Result<()> {
        let (net, port) = (format!("--net={}", self.namespace.display()), port.to_string());
        let peers = [("OUTPUT", "-d", "--dport"), ("INPUT", "-s", "--sport")];
        for (chain, peer, at) in peers {
            let rule =
                [&net, "iptables", "-w", change, chain, peer, ADDRESS, "-p", "tcp", at, &port, "-j", "DROP"];
            command("nsenter", &rule).await?;
        }
        Ok(())
    }
}

async fn command(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(program).args(arguments).output().await;
    let done = done.with_context(|| format!("cannot run {program}: is it installed?"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
