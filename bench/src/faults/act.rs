//! What goes wrong, and how it is made to.

use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::stage::Scene;
use crate::client::Client;
use crate::control_plane::PORT;
use crate::launch::{self, START};
use crate::posting;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The agent that watches is killed, and started again 3 s later.
    AgentKilled,
    /// The agent that watches is stopped by SIGSTOP for 20 s, in which etcd is compacted, and continued.
    AgentStopped,
    /// The API server is killed, and started again 3 s later.
    ApiServerKilled,
    /// Of two API servers on one etcd, that of the watches is killed.
    ApiServerOfTwo,
    /// No packet passes between the agent that watches and the API server.
    ApiPacketsDropped,
    /// No packet passes between the agent that watches and the aggregator.
    AggregatorPacketsDropped,
    /// The aggregator is killed, and started again later.
    AggregatorDown,
    /// A namespace is deleted, and made again.
    NamespaceMadeAgain,
    /// Each mode that a released API server accepts is changed into each other one, by the configuration.
    ModesChanged,
    /// All agents are told to stop and are started again, one after the other.
    RollOut,
}

/// What is down by accident is started again after this.
const DOWN: Duration = Duration::from_secs(3);
/// A stopped agent's watch is compacted away after half of it.
const STOPPED: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);
/// Between two agents of a roll-out.
const STEP: Duration = Duration::from_secs(2);
/// From any to any other, and where it began.
const MODES: [&str; 7] = ["cluster", "namespaces", "shards", "cluster", "shards", "namespaces", "cluster"];
/// Ranges of uids: several for each agent.
const SHARDS: usize = 8;
/// etcd's, where `ci/cluster` has it.
const ETCD: &str = "http://127.0.0.1:2379";

/// Those that are asked for; all where none is.
pub(super) fn chosen(only: &[Fault]) -> Vec<Fault> {
    if only.is_empty() { Fault::value_variants().to_vec() } else { only.to_vec() }
}

/// The `events` section of a mode.
pub(super) fn events(mode: &str) -> Value {
    json!({"watch": mode, "shards": {"count": SHARDS}})
}

// === impl Fault ===

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AgentKilled => "agent-killed",
            Self::AgentStopped => "agent-stopped",
            Self::ApiServerKilled => "api-server-killed",
            Self::ApiServerOfTwo => "api-server-of-two",
            Self::ApiPacketsDropped => "api-packets-dropped",
            Self::AggregatorPacketsDropped => "aggregator-packets-dropped",
            Self::AggregatorDown => "aggregator-down",
            Self::NamespaceMadeAgain => "namespace-made-again",
            Self::ModesChanged => "modes-changed",
            Self::RollOut => "roll-out",
        }
    }

    /// The API server cannot take every event meanwhile.
    pub(super) fn refuses(self) -> bool {
        matches!(self, Self::ApiServerKilled | Self::NamespaceMadeAgain)
    }

    /// Makes it happen; it is over when this returns.
    ///
    /// # Errors
    /// It cannot be made to.
    pub(super) async fn happen(self, scene: &mut Scene<'_>) -> anyhow::Result<()> {
        match self {
            Self::AgentKilled => {
                let setup = scene.setup.clone();
                let holder = scene.holder().await?;
                holder.child.kill().await?;
                sleep(DOWN).await;
                Scene::restart(&setup, holder)
            }
            Self::AgentStopped => {
                let holder = scene.holder().await?;
                holder.child.signal(Signal::SIGSTOP)?;
                sleep(STOPPED / 2).await;
                let compacted = compact(scene).await;
                sleep(STOPPED / 2).await;
                for player in &scene.agents {
                    player.child.signal(Signal::SIGCONT)?;
                }
                compacted
            }
            Self::ApiServerKilled => {
                scene.plane.api_server.kill().await?;
                sleep(DOWN).await;
                scene.plane.api_server.start().await
            }
            Self::ApiServerOfTwo => scene.plane.api_server.kill().await,
            Self::ApiPacketsDropped => dropped(scene, PORT).await,
            Self::AggregatorPacketsDropped => {
                let port = scene.setup.agents().port();
                dropped(scene, port).await
            }
            Self::AggregatorDown => {
                scene.aggregator.kill().await?;
                sleep(scene.length).await;
                scene.aggregator = scene.setup.start_aggregator()?;
                scene.aggregator.ready(START).await.map(drop)
            }
            Self::NamespaceMadeAgain => made_again(scene).await,
            Self::ModesChanged => {
                for mode in MODES {
                    scene.setup.change_events(events(mode))?;
                    launch::until_divided(&scene.aggregator, mode, PATIENCE).await?;
                    sleep(STEP).await;
                }
                Ok(())
            }
            Self::RollOut => {
                for player in &mut scene.agents {
                    player.child.signal(Signal::SIGTERM)?;
                    player.child.ended(PATIENCE).await?;
                    Scene::restart(&scene.setup, player)?;
                    player.child.ready(PATIENCE).await?;
                    sleep(STEP).await;
                }
                Ok(())
            }
        }
    }
}

async fn dropped(scene: &mut Scene<'_>, port: u16) -> anyhow::Result<()> {
    let length = scene.length;
    let node = scene.holder().await?.node;
    node.drop_packets(port).await?;
    sleep(length).await;
    node.pass_packets(port).await
}

/// Takes everything away from etcd but the newest states.
async fn compact(scene: &Scene<'_>) -> anyhow::Result<()> {
    let newest = posting::marker(&scene.client, "default").await?;
    let done = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "10", "-X", "POST", "-d"])
        .arg(json!({"revision": newest.to_string(), "physical": true}).to_string())
        .arg(format!("{ETCD}/v3/kv/compaction"))
        .output()
        .await
        .context("cannot run curl: is it installed?")?;
    anyhow::ensure!(
        done.status.success(),
        "etcd does not compact: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// Deletes the first namespace and makes it again, with the one controller that empties namespaces.
async fn made_again(scene: &Scene<'_>) -> anyhow::Result<()> {
    let name = scene.namespaces.first().context("no namespace")?;
    let _controller = controller(scene)?;
    let path = format!("/api/v1/namespaces/{name}");
    let answer = scene.client.send(Method::DELETE, &path, "", "").await?;
    anyhow::ensure!(answer.status < 300, "namespace {name} is not deleted: {}", answer.status);
    let deadline = Instant::now() + PATIENCE;
    while !gone(&scene.client, &path).await {
        anyhow::ensure!(Instant::now() < deadline, "namespace {name} does not go");
        sleep(LOOK).await;
    }
    posting::create_namespace(&scene.client, name).await
}

async fn gone(client: &Client, path: &str) -> bool {
    client.get(path).await.is_ok_and(|answer| answer.status == 404)
}

fn controller(scene: &Scene<'_>) -> anyhow::Result<Child> {
    let log = std::fs::File::create(scene.plane.folder.join("log/namespace-controller.log"))?;
    let file = &scene.plane.api_server.kubeconfig;
    Command::new("kube-controller-manager")
        .args([
            "--controllers=namespace-controller",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--kubeconfig",
        ])
        .arg(file)
        .arg("--authentication-kubeconfig")
        .arg(file)
        .arg("--authorization-kubeconfig")
        .arg(file)
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start kube-controller-manager")
}
