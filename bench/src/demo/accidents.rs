//! What goes wrong in the demo, on purpose and in this order: a cut watch, a resume that is refused with 410, a killed agent.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{sleep, timeout};

use super::Stage;
use super::show;
use crate::cluster::{Answer, CutHow, OpenWatch, Resource, Scope, SimulatedCluster, Times};

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What was written before is with the agents by then.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// A killed agent is down for this long.
const DOWN: Duration = Duration::from_millis(700);

pub(super) async fn happen(
    cluster: &SimulatedCluster,
    stage: &mut Stage,
    length: Duration,
) -> anyhow::Result<()> {
    until(cluster, "an agent watches events", has_event_watch).await?;
    cluster.recorder().keep_apart(false);

    sleep(length / 5).await;
    stage.check()?;
    show::accident("the event watch is cut in the middle of a line");
    cut(cluster, CutHow::MiddleOfLine).await?;
    until(cluster, "the watch is taken up again", has_event_watch).await?;

    sleep(length / 6).await;
    stage.check()?;
    compact_while_cut(cluster).await?;

    sleep(length / 6).await;
    stage.check()?;
    kill_the_holder(cluster, stage).await
}

/// The next resume finds its resourceVersion compacted.
async fn compact_while_cut(cluster: &SimulatedCluster) -> anyhow::Result<()> {
    // What a compaction takes away no client can get back, on no cluster. So nothing is overwritten meanwhile.
    cluster.recorder().keep_apart(true);
    sleep(IN_FLIGHT).await;
    show::accident(
        "the event watch is cut and refused, and the history is compacted: the resume meets 410 and lists anew",
    );
    cluster.faults().answer(Scope::EventWatches, Answer::InternalError, Times::Always);
    cut(cluster, CutHow::Broken).await?;
    let written = cluster.truth().event_count() + 5;
    let enough = async {
        while cluster.truth().event_count() < written {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, enough).await.context("the load writes no events")?;
    let compacted = cluster.compact();
    cluster.faults().clear();
    let anew = |watch: &OpenWatch| {
        watch.resource == Resource::Events
            && watch.from.parse::<u64>().map_or(true, |from| from == 0 || from >= compacted)
    };
    until(cluster, "somebody lists and watches anew after the 410", |open| open.iter().any(anew)).await?;
    cluster.recorder().keep_apart(false);
    Ok(())
}

async fn kill_the_holder(cluster: &SimulatedCluster, stage: &mut Stage) -> anyhow::Result<()> {
    until(cluster, "an agent watches events", has_event_watch).await?;
    let holder = cluster.open_event_watches().pop().context("nobody watches events")?.user;
    let node = holder.trim_start_matches("agent-");
    let setup = &stage.setup;
    let found = stage.agents.iter_mut().find(|(agent, _)| agent.node == node);
    let (agent, child) = found.with_context(|| format!("{holder} watches events, and is none of ours"))?;
    show::accident(&format!(
        "the agent on {node}, which holds the event watch, is killed (SIGKILL) and started again"
    ));
    child.kill().await?;
    sleep(DOWN).await;
    *child = setup.start_agent(agent)?;
    until(cluster, "the watch is taken up again", has_event_watch).await
}

async fn cut(cluster: &SimulatedCluster, how: CutHow) -> anyhow::Result<()> {
    cluster.faults().cut_event_watches(how);
    until(cluster, "the watch is closed", |open| !has_event_watch(open)).await
}

async fn until(
    cluster: &SimulatedCluster,
    what: &str,
    wanted: impl Fn(&[OpenWatch]) -> bool,
) -> anyhow::Result<()> {
    timeout(PATIENCE, cluster.until_watches(wanted))
        .await
        .with_context(|| format!("waited {PATIENCE:?} in vain until {what}"))
}

fn has_event_watch(open: &[OpenWatch]) -> bool {
    open.iter().any(|watch| watch.resource == Resource::Events)
}
