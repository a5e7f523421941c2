//! Keeps the API servers and etcd on a CPU of their own, and the others busy, so that what they take does not depend on how busy
//! those are: two threads of one core make each other slower, and a bare watch would leave the second idle where agents do not.

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::control_plane::{ApiServer, ControlPlane};
use crate::say;

/// What keeps the other CPUs busy, whenever nothing else does; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Apart {
    _spinners: Vec<Child>,
}

/// Puts the API servers and etcd on the first CPU, and this process with all that it starts from now on, on the others. Where there
/// is only one, everything stays as it is.
///
/// # Errors
/// There is no `taskset`, or it does not do it.
pub(super) async fn keep(plane: &ControlPlane, cached: Option<&ApiServer>) -> anyhow::Result<Apart> {
    let cpus = std::thread::available_parallelism()?.get();
    if cpus < 2 {
        say("one CPU: everything runs on it together");
        return Ok(Apart { _spinners: Vec::new() });
    }
    let path = plane.folder.join("pid/etcd");
    let etcd = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let etcd = etcd.trim().parse().with_context(|| format!("{} holds no process id", path.display()))?;
    let mut served = vec![etcd, plane.api_server.id()?];
    if let Some(cached) = cached {
        served.push(cached.id()?);
    }
    for process in served {
        pin(process, "0").await?;
    }
    pin(std::process::id(), &format!("1-{}", cpus - 1)).await?;
    let spinners = (1..cpus).map(|_| {
        let spin = ["-n", "19", "sh", "-c", "while :; do :; done"];
        Command::new("nice").args(spin).kill_on_drop(true).spawn().context("cannot run nice")
    });
    Ok(Apart { _spinners: spinners.collect::<anyhow::Result<_>>()? })
}

async fn pin(process: u32, cpus: &str) -> anyhow::Result<()> {
    let process = process.to_string();
    let words = ["--all-tasks", "--cpu-list", "--pid", cpus, &process];
    let done = Command::new("taskset").args(words).output().await;
    let done = done.context("cannot run taskset (util-linux): is it installed? --together does without")?;
    let said = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success(), "taskset {}: {}", words.join(" "), said.trim());
    Ok(())
}
