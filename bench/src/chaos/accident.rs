//! What goes wrong, and how it is put right again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use super::Stage;
use super::sink::Mood;
use crate::Random;
use crate::cluster::{Answer, CutHow, Scope, SimulatedCluster, Times};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Accident {
    AgentKilled,
    AgentStopped,
    AggregatorKilled,
    AggregatorStopped,
    LinksCut,
    LinksSilent,
    AgentKilledWithoutAggregator,
    SinkRefuses,
    SinkForgets,
    SinkSilent,
    OutboxDiskFull,
    JournalDiskFull,
    OutboxTorn,
    JournalTorn,
    CertificatesSwapped,
    WatchCut,
    WatchCompacted,
    ApiServerDown,
}

const ALL: [Accident; 18] = [
    Accident::AgentKilled,
    Accident::AgentStopped,
    Accident::AggregatorKilled,
    Accident::AggregatorStopped,
    Accident::LinksCut,
    Accident::LinksSilent,
    Accident::AgentKilledWithoutAggregator,
    Accident::SinkRefuses,
    Accident::SinkForgets,
    Accident::SinkSilent,
    Accident::OutboxDiskFull,
    Accident::JournalDiskFull,
    Accident::OutboxTorn,
    Accident::JournalTorn,
    Accident::CertificatesSwapped,
    Accident::WatchCut,
    Accident::WatchCompacted,
    Accident::ApiServerDown,
];

/// What was written before is with the agents by then.
const IN_FLIGHT: Duration = Duration::from_millis(500);

// === impl Accident ===

impl Accident {
    /// One of those that can happen here, each as often as the others.
    pub(super) fn draw(random: &Random, disks: bool) -> Self {
        loop {
            let drawn = random.pick(&ALL).copied().unwrap_or(Self::AgentKilled);
            if disks || !matches!(drawn, Self::OutboxDiskFull | Self::JournalDiskFull) {
                return drawn;
            }
        }
    }

    /// Happens, lasts for a while that is drawn, and is put right.
    pub(super) async fn happen(
        self,
        cluster: &SimulatedCluster,
        stage: &mut Stage,
        random: &Random,
    ) -> anyhow::Result<()> {
        // At most half of the time for which a death can be seen.
        let lasts = Duration::from_millis(200 + random.below(3_800) as u64);
        let at = random.below(stage.agents.len().max(1));
        match self {
            Self::AgentKilled => {
                stage.kill_agent(at).await?;
                sleep(lasts / 2).await;
                stage.start_agent(at)?;
            }
            Self::AgentStopped => {
                stage.halt_agent(at, true);
                sleep(lasts).await;
                stage.halt_agent(at, false);
            }
            Self::AggregatorKilled => {
                stage.aggregator.kill().await?;
                sleep(lasts).await;
                stage.aggregator = stage.setup.start_aggregator()?;
            }
            Self::AggregatorStopped => {
                stage.aggregator.halt(true);
                sleep(lasts).await;
                stage.aggregator.halt(false);
            }
            Self::LinksCut => stage.proxy.cut(),
            Self::LinksSilent => {
                stage.proxy.silence(true);
                sleep(lasts).await;
                stage.proxy.silence(false);
            }
            Self::AgentKilledWithoutAggregator => {
                stage.aggregator.kill().await?;
                sleep(lasts / 2).await;
                stage.kill_agent(at).await?;
                stage.start_agent(at)?;
                sleep(lasts / 2).await;
                stage.aggregator = stage.setup.start_aggregator()?;
            }
            Self::SinkRefuses | Self::SinkForgets | Self::SinkSilent => {
                stage.sink.set(match self {
                    Self::SinkRefuses => Mood::Refuses,
                    Self::SinkForgets => Mood::Forgetful,
                    _ => Mood::Silent,
                });
                sleep(lasts).await;
                stage.sink.set(Mood::Well);
            }
            Self::OutboxDiskFull => {
                let state = stage.state(at);
                let ballast = fill(&state)?;
                stage.aggregator.halt(true);
                sleep(lasts).await;
                stage.aggregator.halt(false);
                fs::remove_file(ballast)?;
            }
            Self::JournalDiskFull => {
                let ballast = fill(&stage.setup.journal)?;
                sleep(lasts).await;
                fs::remove_file(ballast)?;
            }
            Self::OutboxTorn => {
                // It has something in its outbox only while nobody takes it.
                stage.aggregator.halt(true);
                sleep(lasts).await;
                stage.kill_agent(at).await?;
                add_torn(&stage.state(at).join("outbox"), ".outbox", random)?;
                stage.start_agent(at)?;
                stage.aggregator.halt(false);
            }
            Self::JournalTorn => {
                // What is lost is seen again from the last checkpoint on, less what was compacted away since and overwritten.
                cluster.recorder().keep_apart(true);
                stage.until_delivered(cluster).await?;
                stage.aggregator.kill().await?;
                tear(&stage.setup.journal, "-wal", random)?;
                stage.aggregator = stage.setup.start_aggregator()?;
                stage.until_delivered(cluster).await?;
                // The watch goes back to a checkpoint that may be compacted away, and then lists.
                sleep(IN_FLIGHT).await;
                cluster.until_watches(|open| !open.is_empty()).await;
                stage.until_delivered(cluster).await?;
                cluster.recorder().keep_apart(false);
            }
            Self::CertificatesSwapped => {
                let nodes: Vec<String> = stage.agents.iter().map(|(agent, _)| agent.node.clone()).collect();
                stage.setup.renew(&nodes)?;
                stage.proxy.cut();
            }
            Self::WatchCut => {
                let how = [CutHow::Clean, CutHow::Broken, CutHow::MiddleOfLine];
                cluster.faults().cut_event_watches(random.pick(&how).copied().unwrap_or_default());
            }
            Self::WatchCompacted => {
                // What a compaction takes away no client can get back, on no cluster. So nothing is overwritten meanwhile.
                cluster.recorder().keep_apart(true);
                stage.until_delivered(cluster).await?;
                sleep(IN_FLIGHT).await;
                cluster.faults().answer(Scope::EventWatches, Answer::InternalError, Times::Always);
                cluster.faults().cut_event_watches(CutHow::Broken);
                sleep(lasts).await;
                cluster.compact();
                cluster.faults().clear();
                // Only once somebody watches anew is what is overwritten seen again.
                cluster.until_watches(|open| !open.is_empty()).await;
                stage.until_delivered(cluster).await?;
                cluster.recorder().keep_apart(false);
            }
            Self::ApiServerDown => {
                cluster.faults().api_server_down(true);
                sleep(lasts).await;
                cluster.faults().api_server_down(false);
            }
        }
        Ok(())
    }
}

/// Takes all the room that is left. Answers what took it.
fn fill(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("ballast");
    let mut file = fs::File::create(&path)?;
    let chunk = vec![0; 64 << 10];
    while file.write_all(&chunk).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
    Ok(path)
}

/// Cuts each file with this ending off somewhere in its last quarter or, one time in four, anywhere.
fn tear(folder: &Path, ending: &str, random: &Random) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            let file = OpenOptions::new().write(true).open(&path)?;
            let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            let most = if random.chance(25) { length } else { length / 4 };
            file.set_len((length - random.below(most.max(1))) as u64)?;
        }
    }
    Ok(())
}

/// Adds to each file with this ending what a write leaves that a loss of power cut short.
fn add_torn(folder: &Path, ending: &str, random: &Random) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            let torn: Vec<u8> =
                (0..1 + random.below(5_000)).map(|_| random.next().to_le_bytes()[0]).collect();
            OpenOptions::new().append(true).open(&path)?.write_all(&torn)?;
        }
    }
    Ok(())
}
