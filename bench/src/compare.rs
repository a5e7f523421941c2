//! The load that kubernetes-event-exporter and the OpenTelemetry collector were measured under, on a real kube-apiserver: events
//! about 200 pods, each event new, posted at a set rate; what came of it with an agent, an aggregator and a file sink.
//!
//! The peers' figures beside it were measured on another day and another machine of the same size (two cores shared by
//! everything, kube-apiserver 1.36.3): orders of magnitude can be compared, tenths cannot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::control_plane::{self, ControlPlane};
use crate::figures::process::{Sample, Taken};
use crate::figures::report::{Figure, count, megabytes};
use crate::launch::{self, Agent, START, Setup, Wishes};
use crate::{posting, say};

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Loads, each as events a second and how many of them.
    #[arg(long, value_delimiter = ',', default_value = "20:1200,300:6000,850:20000")]
    pub loads: Vec<String>,
    /// Where nodetap-agent and nodetap-aggregator are; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where the journal, the file and logs go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// One load, and what came of it.
struct Outcome {
    rate: u64,
    posted: usize,
    /// How many a second the API server took.
    took: f64,
    delivered: usize,
    agent: Taken,
    aggregator: Taken,
}

const PODS: usize = 200;
const NODE: &str = "compare-node";
const NAMESPACE: &str = "compare";
const JSON: &str = "application/json";
/// Requests on their way.
const IN_FLIGHT: usize = 32;
/// Without another record for so long, no more come.
const STALLED: Duration = Duration::from_secs(30);

/// Peer and configuration, load, delivered, CPU an event in microseconds, memory in MB.
const PEERS: [[&str; 5]; 6] = [
    ["kubernetes-event-exporter, its defaults", "20/s, 1,200", "14 of 1,200", "2,375", "89 to 279"],
    ["kubernetes-event-exporter, its defaults", "300/s, 6,000", "4 of 6,000", "416", "92 to 197"],
    ["kubernetes-event-exporter, age 60, QPS 100", "300/s, 6,000", "4,481 of 6,000", "798", "211 to 248"],
    ["kubernetes-event-exporter, omitLookup, age 60", "300/s", "all", "378", "92 to 236"],
    ["kubernetes-event-exporter, omitLookup, age 60", "850/s", "all", "240", "116 to 132"],
    ["OpenTelemetry collector 0.111, debug exporter", "480/s", "all", "364", "45 to 50"],
];

/// Measures, and tells.
///
/// # Errors
/// Something could not be started, ended before its time, or the API server does not take the load.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(ended) = control_plane::enter(&["--apiserver-flag", "--event-ttl=6h"]).await? {
        return Ok(ended);
    }
    tokio::select! {
        measured = measure(&arguments) => measured,
        () = crate::signalled() => anyhow::bail!("interrupted"),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("nodetap-compare-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let plane = ControlPlane::find()?;
    let client = plane.api_server.client()?;
    posting::create_namespace(&client, NAMESPACE).await?;
    let pods = Arc::new(pods(&client).await?);

    let agent = Agent::elsewhere(NODE, &plane.api_server.kubeconfig);
    let binaries = launch::binaries(arguments.binaries.as_deref())?;
    let setup = Setup::write(&folder, &binaries, std::slice::from_ref(&agent), &Wishes::default())?;
    let mut aggregator = setup.start_aggregator()?;
    aggregator.ready(START).await?;
    let mut agent = setup.start_agent(&agent)?;
    agent.ready(START).await?;
    // Until the watch is open, and what the pods are is known.
    warm_up(&client, &pods, &setup.file).await?;
    say(&format!(
        "at rest: agent {:.1} MB, aggregator {:.1} MB",
        megabytes(Sample::of(&mut agent)?.rss),
        megabytes(Sample::of(&mut aggregator)?.rss)
    ));

    let mut outcomes = Vec::new();
    for load in &arguments.loads {
        let (rate, events) = load
            .split_once(':')
            .and_then(|(rate, events)| Some((rate.parse().ok()?, events.parse().ok()?)))
            .with_context(|| format!("--loads: {load:?} is not RATE:EVENTS, such as 300:6000"))?;
        let run = format!("load-{rate}-{events}");
        let before = (Sample::of(&mut agent)?, Sample::of(&mut aggregator)?);
        let begun = Instant::now();
        post(&client, &pods, &run, rate, events).await?;
        let took = count(events) / begun.elapsed().as_secs_f64();
        let delivered = delivered(&setup.file, &run, events).await?;
        outcomes.push(Outcome {
            rate,
            posted: events,
            took,
            delivered,
            agent: Sample::of(&mut agent)?.since(&before.0),
            aggregator: Sample::of(&mut aggregator)?.since(&before.1),
        });
    }
    agent.stop().await;
    aggregator.stop().await;
    Ok(tell(&outcomes))
}

fn tell(outcomes: &[Outcome]) -> ExitCode {
    say("");
    say(
        "                                                 load            delivered         us/event  RSS MB",
    );
    for Outcome { rate, posted, took, delivered, agent, aggregator } in outcomes {
        let each = |taken: &Taken| taken.cpu.as_secs_f64() * 1e6 / count((*delivered).max(1));
        say(&format!(
            "{:<48} {:<15} {:<16} {:>9.0}  {:.1} (agent {:.0} us, {:.1} MB; aggregator {:.0} us, {:.1} MB; {took:.0}/s taken by the API server)",
            "nodetap, file sink, labels and owners looked up",
            format!("{rate}/s, {posted}"),
            format!("{delivered} of {posted}"),
            each(agent) + each(aggregator),
            megabytes(agent.rss + aggregator.rss),
            each(agent),
            megabytes(agent.rss),
            each(aggregator),
            megabytes(aggregator.rss),
        ));
    }
    for [peer, load, delivered, cpu, memory] in PEERS {
        say(&format!("{peer:<48} {load:<15} {delivered:<16} {cpu:>9}  {memory} (measured elsewhere)"));
    }
    say("");
    let figures: Vec<_> = outcomes
        .iter()
        .flat_map(|Outcome { rate, posted, delivered, agent, aggregator, .. }| {
            let each = (agent.cpu + aggregator.cpu).as_secs_f64() * 1e6 / count((*delivered).max(1));
            [
                Figure::new(format!("compare-lost-{rate}"), count(posted - delivered), "events").limit(0.0),
                Figure::new(format!("compare-cpu-{rate}"), each, "us"),
                Figure::new(format!("compare-rss-{rate}"), megabytes(agent.rss + aggregator.rss), "MB"),
            ]
        })
        .collect();
    figures.iter().for_each(|figure| say(&figure.line()));
    if figures.iter().any(Figure::is_failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Pods that are bound to a node which is not there: nothing starts them. Answers their uids.
async fn pods(client: &Client) -> anyhow::Result<Vec<String>> {
    // A control plane without nodes has nobody who makes it.
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let answer = client.send(Method::POST, &path, JSON, account.to_string()).await?;
    anyhow::ensure!(matches!(answer.status, 201 | 409), "a service account was refused: {}", answer.status);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let deadline = Instant::now() + START;
    let mut uids = Vec::with_capacity(PODS);
    while uids.len() < PODS {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": format!("web-{}", uids.len()),
                "labels": {"app.kubernetes.io/name": "web", "pod-template-hash": "6f7c9d5b8"},
                "annotations": {"prometheus.io/scrape": "true"},
            },
            "spec": {
                "nodeName": NODE,
                "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": "registry.example/app:1.4.2"}],
            },
        });
        let answer = client.send(Method::POST, &path, JSON, pod.to_string()).await?;
        match answer.status {
            201 => uids.push(answer.json()["metadata"]["uid"].as_str().unwrap_or_default().to_owned()),
            // The API server comes to know the service account a moment later.
            403 if Instant::now() < deadline => sleep(Duration::from_millis(200)).await,
            status => anyhow::bail!("a pod was refused: {status} {}", answer.json()),
        }
    }
    Ok(uids)
}

/// Posts so many new events at a rate.
async fn post(
    client: &Client,
    pods: &Arc<Vec<String>>,
    run: &str,
    rate: u64,
    events: usize,
) -> anyhow::Result<()> {
    let one = |number: usize| {
        let (client, pods, name) = (client.clone(), Arc::clone(pods), format!("{run}-{number}"));
        async move {
            let body = event(&name, number % PODS, &pods);
            let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
            let answer = client.send(Method::POST, &path, JSON, body.to_string()).await?;
            anyhow::ensure!(answer.status == 201, "an event was refused: {}", answer.status);
            Ok(())
        }
    };
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let rate = rate.max(1) as f64;
    posting::paced(rate, IN_FLIGHT, &AtomicUsize::new(events), one).await.all()
}

/// As a kubelet writes it, of the mean size.
fn event(name: &str, pod: usize, uids: &[String]) -> Value {
    let now = format!("{:.0}", jiff::Timestamp::now());
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": NAMESPACE, "name": format!("web-{pod}"),
            "uid": uids.get(pod), "resourceVersion": "4711", "fieldPath": "spec.containers{app}",
        },
        "reason": "Unhealthy",
        "message": "Readiness probe failed: Get \"http://10.244.3.7:8080/readyz\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        "type": "Warning",
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": "kubelet", "host": NODE},
        "reportingComponent": "kubelet",
        "reportingInstance": NODE,
    })
}

/// Posts an event a second until one is there.
async fn warm_up(client: &Client, pods: &Arc<Vec<String>>, file: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + START * 2;
    let mut number = 0;
    while came(file, "warm-up")?.is_empty() {
        anyhow::ensure!(Instant::now() < deadline, "nothing is delivered: see the logs with --folder");
        post(client, pods, &format!("warm-up-{number}"), 1_000, 1).await?;
        number += 1;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Waits until all events of a run are in the file, or no more come. Answers how many.
async fn delivered(file: &Path, run: &str, events: usize) -> anyhow::Result<usize> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let came = came(file, run)?.len();
        if came > last {
            (last, since) = (came, Instant::now());
        }
        if came >= events || since.elapsed() > STALLED {
            return Ok(came);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// The names of a run's events that are in the file.
fn came(file: &Path, run: &str) -> anyhow::Result<HashSet<String>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let names = text.lines().filter_map(|line| {
        let record: Value = serde_json::from_str(line).ok()?;
        Some(record["metadata"]["name"].as_str()?.to_owned())
    });
    Ok(names.filter(|name| name.starts_with(run)).collect())
}
