//! The agent put together: what is built from the settings, what is bound, what runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nodetap_runtime::endpoint::{self, BindError, Endpoint};
use nodetap_runtime::process::ProcessCollector;
use nodetap_runtime::tasks::Tasks;
use nodetap_wire::Assignment;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::http::AgentHealth;
use crate::kubernetes::{AccessError, KubernetesAccess};
use crate::link::tls::{Credentials, TlsError};
use crate::{link, outbox, tap, watch as event_watch};

/// Reports of watches on their way: each shard's newest is kept where there is no room.
const REPORTS: usize = 16;

/// How long the parts have to end: the link sends what it has within 5 s.
const DRAIN: Duration = Duration::from_secs(8);

/// How long others have to watch what this agent watched, once it was told to end.
const HANDOVER: Duration = Duration::from_secs(6);

/// Everything that the settings name, read and checked. Nothing is bound.
pub struct App {
    config: Config,
    access: KubernetesAccess,
    credentials: Credentials,
    link: link::metrics::Metrics,
}

/// The agent, running.
pub struct Running {
    tasks: Tasks,
    drain: CancellationToken,
    assignments: watch::Receiver<Assignment>,
    link: watch::Receiver<link::Health>,
    /// Where metrics and health are.
    pub listen: SocketAddr,
}

/// What of the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The API server's.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

// === impl App ===

impl App {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub async fn build(config: Config) -> Result<Self, Vec<BuildError>> {
        let link = link::metrics::Metrics::default();
        let access = KubernetesAccess::new(config.kubeconfig.as_deref()).await;
        let credentials =
            Credentials::load(config.tls.clone(), &config.node, &config.aggregator_name, link.clone());
        match (access, credentials) {
            (Ok(access), Ok(credentials)) => Ok(Self { config, access, credentials, link }),
            (access, credentials) => Err(access
                .err()
                .map(Into::into)
                .into_iter()
                .chain(credentials.err().map(Into::into))
                .collect()),
        }
    }

    /// Binds the metrics' address and starts everything.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub async fn start(self) -> Result<Running, BindError> {
        let listener = endpoint::bind(self.config.listen, "metrics", "--listen").await?;
        let listen = listener.local_addr().unwrap_or(self.config.listen);
        Ok(self.spawn(listener, listen))
    }

    fn spawn(self, listener: TcpListener, listen: SocketAddr) -> Running {
        let Self { config, access, credentials, link: link_metrics } = self;
        let mut registry = Registry::default();
        let watch_metrics = event_watch::metrics::Metrics::default();
        let tap_metrics = tap::metrics::Metrics::with(watch_metrics.requests.clone());
        let outbox_metrics = outbox::metrics::Metrics::default();
        watch_metrics.register(&mut registry);
        tap_metrics.register(&mut registry);
        link_metrics.register(&mut registry);
        outbox_metrics.register(&mut registry);
        registry.register_collector(Box::new(ProcessCollector::default()));

        let (intake, taken) = outbox::intake();
        let (report, reports) = mpsc::channel(REPORTS);
        let (assign, assignments) = watch::channel(Assignment::default());
        let (say, link_health) = watch::channel(link::Health::default());
        let (forget, forgotten) = watch::channel(0);
        let (lose, lost) = watch::channel(0);
        let (negotiate, negotiations) = watch::channel(0);
        let (find, findings) = watch::channel(None);
        let drain = CancellationToken::new();
        let (names, tally) = <(event_watch::names::Names, event_watch::tally::Tally)>::default();
        let progress = event_watch::progress::Progress::default();
        let health = AgentHealth {
            watches: progress.clone(),
            link: link_health.clone(),
            tap: tap_metrics.clone(),
            poll_interval: config.tap.poll_interval,
        };

        let mut tasks = Tasks::default();
        tasks.heed_signals();
        let stop = tasks.stop_token();
        let client = access.watches.clone();
        let reach = event_watch::reach::Reach::default();
        let wiring = event_watch::Wiring {
            assignments: assignments.clone(),
            intake: intake.clone(),
            reports: report,
            tally: tally.clone(),
            names: names.clone(),
            reach: reach.clone(),
            metrics: watch_metrics.clone(),
            progress,
        };
        tasks.spawn("watch", event_watch::run(client.clone(), wiring, stop.clone()));
        let reaching =
            event_watch::reach::run(client.clone(), reach.clone(), watch_metrics.clone(), stop.clone());
        tasks.spawn("reach", reaching);
        let negotiating =
            event_watch::negotiate::run(client, negotiations, find, watch_metrics, stop.clone());
        tasks.spawn("negotiate", negotiating);
        let again = tap::Again { forgotten, lost, within: tap::ANNOUNCED_WITHIN };
        tasks.spawn_fallible("tap", tap::run(config.tap, access, intake, again, tap_metrics, stop.clone()));
        let settings = link::Settings {
            node: config.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            aggregator: config.aggregator,
            outbox: config.outbox,
        };
        let ends = link::Ends {
            taken,
            reports,
            assignments: assign,
            health: say,
            forgotten: forget,
            lost: lose,
            negotiate,
            findings,
            names: names.subscribe(),
            tally,
            reach,
            drain: drain.clone(),
        };
        tasks.spawn(
            "link",
            link::run(settings, credentials, ends, link_metrics, outbox_metrics, stop.clone()),
        );
        tasks.spawn("endpoint", Endpoint::new(registry, Arc::new(health)).run(listener, stop));
        Running { tasks, drain, assignments, link: link_health, listen }
    }
}

// === impl Running ===

impl Running {
    /// Waits for a signal, and ends everything in good order.
    ///
    /// # Errors
    /// Where a part ended by itself: its name and why.
    pub async fn until_told(self) -> Result<(), String> {
        let Self { tasks, drain, assignments, mut link, .. } = self;
        let farewell = async {
            drain.cancel();
            // The watch goes on all the while: to let go is the aggregator's word.
            let mut held = assignments;
            let handed_over = async {
                tokio::select! {
                    _ = held.wait_for(|held| held.watches.is_empty()) => {}
                    _ = link.wait_for(|link| !link.connected) => {}
                }
            };
            if tokio::time::timeout(HANDOVER, handed_over).await.is_err() {
                tracing::warn!(
                    seconds = HANDOVER.as_secs(),
                    "stopping before others watch what this agent watched"
                );
            }
        };
        tasks.run_until_told_then(farewell, DRAIN).await
    }
}
