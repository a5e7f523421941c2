//! A sink that is down for a day, and comes back: what its records take on the disk, whether all of them come, how fast it
//! catches up, and how long what is new takes meanwhile.
//!
//! The journal, the delivery loop and the webhook are the aggregator's, in this process, beside the receiver. The day's records are
//! journalled as fast as the journal takes them, with the times that they would have had; the receiver answers 503 all the while.
//! Then it answers 200, and records go on at the live rate in real time.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use nodetap_aggregator::config::receivers::{
    DeliveryConfig, Order, Receiver, ReceiverBody, TlsConfig, WebhookConfig,
};
use nodetap_aggregator::journal::metrics::JournalMetrics;
use nodetap_aggregator::journal::sqlite::{Settings, SqliteJournal};
use nodetap_aggregator::journal::{Journal as _, Taken};
use nodetap_aggregator::route::Router;
use nodetap_aggregator::route::tree::{Match, Route};
use nodetap_aggregator::sinks::{Built, Context, Metrics, spawn_all};
use nodetap_wire::{Change, EventSeen, Record, record, time};
use prometheus_client::registry::Registry;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::figures::process;
use crate::figures::report::Figure;
use crate::say;
use receiver::{Received, serve};

mod receiver;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Hours that the sink is down.
    #[arg(long, default_value_t = 24.0)]
    pub hours: f64,
    /// Events a second, all the time.
    #[arg(long, default_value_t = 100)]
    pub rate: u64,
    /// Requests that the webhook has on their way at one time.
    #[arg(long, default_value_t = 4)]
    pub concurrency: usize,
    /// What may overtake what: object, or none.
    #[arg(long, default_value = "object", value_parser = ["object", "none", "journal"])]
    pub order: String,
    /// Where the journal goes, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Events about pods that come and go, ten each within half a minute, and about some that crash for ever.
#[derive(Clone, Copy, Debug)]
struct Events {
    /// When the first one happened, in nanoseconds since 1970.
    start_ns: i64,
    /// Events a second.
    rate: u64,
}

/// Of so many events, one is about a pod that crashes for ever.
const FOR_EVER: u64 = 10;
/// Pods that do.
const CRASHING: u64 = 200;
/// Pods that are young at one time.
const YOUNG: u64 = 300;
/// How much is appended at once.
const BATCH: u64 = 512;

/// Measures, and fails where a bar is not met.
///
/// # Errors
/// The journal cannot be kept, or the receiver cannot be served.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { hours, rate, concurrency, order, folder } = arguments;
    let folder = match &folder {
        Some(folder) => tempfile::Builder::new().prefix("sink-day-").tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .context("no folder for the journal")?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hours of a bench")]
    let total = (hours.max(0.0) * 3600.0) as u64 * rate;
    let events = Events { start_ns: time::now_ns() - nanoseconds(total, rate), rate };
    let sent = Arc::new(AtomicU64::new(0));
    let (clock_sent, clock_events) = (Arc::clone(&sent), events);
    let settings = Settings {
        required: vec!["sink/hook".to_owned()],
        clock: Arc::new(move || {
            let sent = clock_sent.load(Ordering::Relaxed);
            if sent < total { clock_events.at(sent) } else { time::now_ns() }
        }),
        ..Settings::new(folder.path())
    };
    let journal = SqliteJournal::open(settings, JournalMetrics::default(), Box::new(()))?;

    let is_up = Arc::new(AtomicBool::new(false));
    let received = Arc::new(Received::default());
    let address = serve(Arc::clone(&received), Arc::clone(&is_up)).await?;
    let mut registry = Registry::default();
    let context = Context {
        journal: journal.clone(),
        router: Arc::new(router()),
        cluster: "bench".into(),
        metrics: Metrics::register(&mut registry),
        stop: CancellationToken::new(),
        drained: CancellationToken::new(),
    };
    let hook = WebhookConfig {
        endpoint: format!("http://{address}/").parse()?,
        tls: TlsConfig::default(),
        layout: None,
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
        concurrency,
    };
    let order = match order.as_str() {
        "none" => Order::None,
        "journal" => Order::Journal,
        _ => Order::Object,
    };
    let delivery = DeliveryConfig { order: Some(order), ..DeliveryConfig::default() };
    let receivers = [Receiver { name: "hook".to_owned(), body: ReceiverBody::Webhook(hook), delivery }];
    let built =
        Built::new(&receivers).map_err(|errors| anyhow::anyhow!("the webhook cannot be made: {errors:?}"))?;
    let (tasks, _orders) = spawn_all(built, &context);

    let began = Instant::now();
    fill(&journal, events, total, &sent).await?;
    sent.store(total, Ordering::Relaxed);
    say(&format!(
        "{total} records of {hours} h in {:.1} s, while the receiver answered 503 to {} requests",
        began.elapsed().as_secs_f64(),
        received.refused(),
    ));
    // In a real outage it has looked at the backlog as it came.
    let looked = Instant::now();
    while order != Order::Journal && !is_catching_up(&registry) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        anyhow::ensure!(looked.elapsed() < Duration::from_secs(3600), "it does not begin to catch up");
    }
    say(&format!("whom the backlog is about was known {:.1} s later", looked.elapsed().as_secs_f64()));
    let disk = process::folder_bytes(folder.path())?;
    let account = || context.metrics.accounts().remove("hook").unwrap_or_default();
    say(&format!("{:.0} bytes a record on the disk", disk as f64 / total.max(1) as f64));

    is_up.store(true, Ordering::Relaxed);
    let back = Instant::now();
    // The first that comes tells that the back-off is over.
    while received.count() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say(&format!("back, and asked again {:.1} s later", back.elapsed().as_secs_f64()));
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut last, mut peak, mut told) = (total, disk, Instant::now());
    while received.count_to(total) < total {
        tick.tick().await;
        #[allow(clippy::cast_possible_truncation, reason = "a bench does not run for so long")]
        let due = total + begun.elapsed().as_millis() as u64 * rate / 1000;
        if due > last {
            append(&journal, events, last, due, &received).await?;
            last = due;
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            peak = peak.max(process::folder_bytes(folder.path())?);
            say(&format!(
                "{:>9} of the backlog, {} live, {} MB",
                received.count_to(total),
                last - total,
                process::own_memory() / 1_000_000
            ));
        }
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(6 * 3600), "it does not catch up");
    }
    let caught_up = begun.elapsed().as_secs_f64();
    while received.count() < last {
        tokio::time::sleep(Duration::from_millis(20)).await;
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(6 * 3600), "the rest does not come");
    }
    let settled = account();
    context.stop.cancel();
    context.drained.cancel();
    for task in tasks {
        task.handle.await??;
    }
    let (lost, twice) = received.compare(last);
    // A pod that began after the receiver was back has nothing in the backlog.
    let (all, mut free): (Vec<_>, Vec<_>) = {
        let latencies = received.latencies(total, last);
        let free = latencies.iter().filter(|(version, _)| events.began(*version) >= total);
        (latencies.clone(), free.map(|(_, latency)| *latency).collect())
    };
    free.sort();
    let soon = all.iter().filter(|(_, latency)| *latency < Duration::from_secs(1)).count();
    say(&format!(
        "caught up in {caught_up:.1} s; {} live records, {soon} of them there within a second, {} of objects without a backlog; {settled:?}",
        last - total,
        free.len(),
    ));
    let millis = |percent: usize| {
        let rank = (free.len() * percent).div_ceil(100).max(1) - 1;
        free.get(rank).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    journal.close().await;
    say("");
    let gibibytes = peak.max(process::folder_bytes(folder.path())?) as f64 / f64::from(1 << 30);
    let figures = [
        Figure::new("sink-day-disk", gibibytes, "GiB").limit(2.0),
        Figure::new("sink-day-lost", lost as f64, "records").limit(0.0),
        Figure::new("sink-day-twice", twice as f64, "records"),
        Figure::new("sink-day-catch-up", total as f64 / caught_up, "records/s"),
        Figure::new("sink-day-catch-up-over-live", total as f64 / caught_up / rate as f64, "times")
            .at_least(10.0),
        Figure::new("sink-day-live-p50", millis(50), "ms"),
        Figure::new("sink-day-live-p99", millis(99), "ms").limit(1000.0),
        Figure::new("sink-day-rss", process::own_memory() as f64 / 1e6, "MB"),
    ];
    figures.iter().for_each(|figure| say(&figure.line()));
    let is_short = figures.iter().any(Figure::is_failure);
    Ok(if is_short { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether what is new would go first.
fn is_catching_up(registry: &Registry) -> bool {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).is_ok()
        && text.contains("nodetap_sink_catching_up{sink=\"hook\"} 1\n")
}

/// Everything goes to the one receiver.
fn router() -> Router {
    let rule = Match { receiver: Some("hook".to_owned()), ..Match::default() };
    Router::new(&Route { r#match: vec![rule], ..Route::default() }, &["hook"])
}

async fn fill(journal: &SqliteJournal, events: Events, total: u64, sent: &AtomicU64) -> anyhow::Result<()> {
    let firsts = (0..total).step_by(BATCH as usize);
    let mut appends = futures_util::stream::iter(firsts)
        .map(|first| async move {
            let last = (first + BATCH).min(total);
            let appended = journal.append(events.taken(first, last)).await?;
            anyhow::ensure!(appended.new as u64 == last - first, "records were taken for duplicates");
            Ok(last)
        })
        .buffered(6);
    while let Some(last) = appends.next().await {
        sent.store(last?, Ordering::Relaxed);
    }
    Ok(())
}

async fn append(
    journal: &SqliteJournal,
    events: Events,
    first: u64,
    last: u64,
    received: &Received,
) -> anyhow::Result<()> {
    received.sent(first, last);
    journal.append(events.taken(first, last)).await?;
    Ok(())
}

// === impl Events ===

impl Events {
    /// When one happened, in nanoseconds since 1970.
    fn at(self, number: u64) -> i64 {
        self.start_ns + nanoseconds(number, self.rate)
    }

    /// Which pod it is about; none: one that crashes for ever.
    fn pod(number: u64) -> Option<u64> {
        if number.is_multiple_of(FOR_EVER) {
            return None;
        }
        let drawn = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % YOUNG;
        Some((number / FOR_EVER).saturating_sub(drawn))
    }

    /// Before which event its pod cannot have had one.
    fn began(self, number: u64) -> u64 {
        Self::pod(number).map_or(0, |pod| pod * FOR_EVER)
    }

    /// Events as an agent sends them, from one and up to another.
    fn taken(self, first: u64, last: u64) -> Taken {
        let records = (first..last).map(|number| self.record(number)).collect();
        Taken { node: "n1".to_owned(), records, ..Taken::default() }
    }

    fn record(self, number: u64) -> Record {
        let version = number + 1;
        let hash = version.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let uid = format!(
            "{:08x}-{:04x}-4{:03x}-9{:03x}-{version:012x}",
            hash >> 32,
            hash >> 16 & 0xffff,
            hash >> 4 & 0xfff,
            hash & 0xfff
        );
        let (name, reason, message) = match Self::pod(number) {
            None => (
                format!("crash-{}", number / FOR_EVER % CRASHING),
                "BackOff",
                "Back-off restarting failed container app in pod".to_owned(),
            ),
            Some(pod) => {
                let (reason, message) = match number % 5 {
                    0 => (
                        "Scheduled",
                        format!(
                            "Successfully assigned shop/web-{pod} to node-{}.example.internal",
                            pod % 200
                        ),
                    ),
                    1 => (
                        "Pulled",
                        format!(
                            "Successfully pulled image \"registry.example/app:1.4.2\" in {}ms (including waiting). Image size: 52428800 bytes.",
                            hash % 9000
                        ),
                    ),
                    2 => (
                        "Unhealthy",
                        format!(
                            "Readiness probe failed: Get \"http://10.244.{}.{}:8080/readyz\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                            pod % 200,
                            pod % 250
                        ),
                    ),
                    3 => ("Created", "Created container app".to_owned()),
                    _ => ("Started", "Started container app".to_owned()),
                };
                (format!("web-{pod}"), reason, message)
            }
        };
        let at_ns = self.at(number) / 1_000_000_000 * 1_000_000_000;
        let at = time::format_ns(at_ns).unwrap_or_default();
        let (node, short) = (hash % 200, &uid[..13]);
        let message = serde_json::Value::from(message);
        let raw = format!(
            r#"{{"kind":"Event","apiVersion":"v1","metadata":{{"name":"{name}.{short}","namespace":"shop","uid":"{uid}","resourceVersion":"{version}","creationTimestamp":"{at}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"{name}","uid":"{name}","apiVersion":"v1","fieldPath":"spec.containers{{app}}"}},"reason":"{reason}","message":{message},"source":{{"component":"kubelet","host":"node-{node}.example.internal"}},"firstTimestamp":"{at}","lastTimestamp":"{at}","count":1,"type":"Normal","eventTime":null,"reportingComponent":"kubelet","reportingInstance":"node-{node}.example.internal"}}"#
        );
        let event = EventSeen {
            uid: uid.into(),
            resource_version: version.to_string().into(),
            namespace: "shop".into(),
            count: 1,
            time_ns: at_ns,
            change: Change::Added.into(),
            kind: "Pod".into(),
            object_uid: name.clone().into(),
            object: name.into(),
            reason: reason.into(),
            r#type: "Normal".into(),
            node: format!("node-{node}.example.internal").into(),
            object_namespace: "shop".into(),
            raw: raw.into(),
        };
        Record { kind: Some(record::Kind::Event(event)) }
    }
}

/// How long so many events take at a rate.
fn nanoseconds(events: u64, rate: u64) -> i64 {
    i64::try_from(u128::from(events) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(i64::MAX)
}
