//! The aggregator put together: what is built from the configuration, what is bound, what runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodetap_runtime::endpoint::{self, BindError, Endpoint};
use nodetap_runtime::process::ProcessCollector;
use nodetap_runtime::tasks::Tasks;
use nodetap_wire::{Record, tls::Files};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::admit::tls::{Credentials, TlsError};
use crate::admit::{self, Limits};
use crate::assign::metrics::{ReportLabels, StateLabel};
use crate::assign::plan::{Patience, Plan};
use crate::assign::{self, Assigner, Driver};
use crate::config::follow::Follow;
use crate::config::{Config, Synchronous};
use crate::history::api::{self, Api, ApiError};
use crate::http::{AggregatorHealth, Readiness};
use crate::journal::metrics::{JournalMetrics, Kind, KindLabel};
use crate::journal::sqlite::{self, SqliteJournal};
use crate::journal::{Entry, Journal, JournalError, Observer};
use crate::metrics::ClusterMetrics;
use crate::metrics::compatibility::EventExporterCounters;
use crate::reconcile::Sources;
use crate::sinks::{self, Built, SinkError};

/// How long the parts have to end: beside what sinks may still deliver, a commit of their cursors.
const DRAIN: Duration = sinks::STOP_WITHIN.saturating_add(Duration::from_secs(3));

/// How long what agents sent last has to become durable, before sinks are told that nothing more comes.
const FLUSH: Duration = Duration::from_secs(2);

/// How long the journal has to make durable what it has, after everything else.
const CLOSE: Duration = Duration::from_secs(5);

/// Everything that the configuration names, read and checked. Nothing is bound, and no journal opened.
pub struct App {
    config: Config,
    credentials: Credentials,
    sinks: Built,
    registry: Registry,
    admit: admit::metrics::Metrics,
    /// None where nobody may read the history.
    history: Option<Api>,
}

/// The aggregator, running.
pub struct Running {
    tasks: Tasks,
    journal: SqliteJournal,
    /// Where agents are taken.
    pub agents: SocketAddr,
    /// Where metrics and health are.
    pub metrics: SocketAddr,
    /// Where the history is, if somebody may read it.
    pub history: Option<SocketAddr>,
    /// Where the journal is.
    pub path: PathBuf,
}

/// What of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The certificates for agents.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// A receiver.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The history's tokens, or its certificates.
    #[error(transparent)]
    History(#[from] ApiError),
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Counts what becomes durable.
struct Counting(ClusterMetrics);

// === impl App ===

impl App {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Everything that cannot be used.
    pub fn build(config: Config) -> Result<Self, Vec<BuildError>> {
        let mut registry = Registry::default();
        let admit = admit::metrics::Metrics::default();
        admit.register(&mut registry);
        let files = Files {
            ca: config.tls.ca_file.clone(),
            certificate: config.tls.cert_file.clone(),
            key: config.tls.key_file.clone(),
        };
        let history = history(&config, &mut registry);
        match (Credentials::load(files, admit.clone()), Built::new(&config.receivers), history) {
            (Ok(credentials), Ok(sinks), Ok(history)) => {
                Ok(Self { config, credentials, sinks, registry, admit, history })
            }
            (credentials, sinks, history) => {
                let tls = credentials.err().map(BuildError::Tls).into_iter();
                let sinks = sinks.err().into_iter().flatten().map(BuildError::Sink);
                let history = history.err().into_iter().flatten().map(BuildError::History);
                Err(tls.chain(sinks).chain(history).collect())
            }
        }
    }

    /// Opens the journal, binds the addresses and starts everything.
    ///
    /// # Errors
    /// Where the journal cannot be opened or an address not be bound.
    pub async fn start(mut self) -> Result<Running, StartError> {
        let metrics = endpoint::bind(self.config.listen.metrics, "metrics", "listen.metrics").await?;
        let agents = endpoint::bind(self.config.listen.agents, "agents", "listen.agents").await?;
        let history = match &self.history {
            Some(_) => {
                Some(endpoint::bind(self.config.listen.history, "the history", "listen.history").await?)
            }
            None => None,
        };
        let cluster = ClusterMetrics::register(&mut self.registry, self.config.compatibility);
        let journal_metrics = JournalMetrics::default();
        journal_metrics.register(&mut self.registry);
        let settings = self.journal_settings();
        let path = settings.path.clone();
        let journal = SqliteJournal::open(settings, journal_metrics.clone(), Box::new(Counting(cluster)))?;
        if let Err(error) = sinks::warn_of_strangers(&journal, &self.config.receivers).await {
            // A disk that cannot be written to is no reason not to start. A sink asks for its cursor until it has it.
            tracing::warn!(%error, "cursors cannot be read: receivers that are no longer configured are not known");
        }
        let assign = assign::metrics::Metrics::default();
        assign.register(&mut self.registry);
        let plan = Plan::cluster(Instant::now(), Patience::default());
        let (wishes, wished) = watch::channel(self.config.events);
        let settings = assign::Settings { wishes: wished, lost: journal.lost() };
        let (assigner, driver) = assign::assign(plan, journal.clone(), settings, assign.clone()).await?;
        let follow = Follow::new(self.config.file().to_owned(), wishes);
        let counters = EventExporterCounters {
            prefix: self.config.metrics_name_prefix.clone(),
            events_sent: journal_metrics.records.get_or_create_owned(&KindLabel { kind: Kind::Event }),
            watch_errors: assign
                .reports
                .get_or_create_owned(&ReportLabels { state: StateLabel::backing_off }),
            ..EventExporterCounters::default()
        };
        let addresses = [agents.local_addr(), metrics.local_addr()];
        let [agents_at, metrics_at] =
            addresses.map(|address| address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))));
        let history_at = history.as_ref().and_then(|listener| listener.local_addr().ok());
        let served = self.history.take().zip(history);
        let mut tasks = self.spawn(
            agents,
            metrics,
            journal.clone(),
            (assigner, driver, follow),
            (counters, journal_metrics),
        );
        if let Some((api, listener)) = served {
            let stop = tasks.stop_token();
            tasks.spawn("history", api.run(listener, journal.clone(), stop));
        }
        Ok(Running { tasks, journal, agents: agents_at, metrics: metrics_at, history: history_at, path })
    }

    fn journal_settings(&self) -> sqlite::Settings {
        let config = &self.config.journal;
        sqlite::Settings {
            max_age: config.max_age,
            max_bytes: config.max_bytes,
            synchronous: match config.synchronous {
                Synchronous::Full => sqlite::Synchronous::Full,
                Synchronous::Normal => sqlite::Synchronous::Normal,
            },
            required: self
                .config
                .receivers
                .iter()
                .map(|receiver| sinks::delivery::consumer(&receiver.name))
                .collect(),
            ..sqlite::Settings::new(&config.path)
        }
    }

    fn spawn(
        self,
        agents: TcpListener,
        metrics: TcpListener,
        journal: SqliteJournal,
        (assigner, driver, follow): (Assigner, Driver<SqliteJournal>, Follow),
        (mut counters, journal_metrics): (EventExporterCounters, JournalMetrics),
    ) -> Tasks {
        let Self { config, credentials, sinks, mut registry, admit, .. } = self;
        let mut tasks = Tasks::default();
        tasks.heed_signals();
        let stop = tasks.stop_token();
        let drained = CancellationToken::new();
        let context = sinks::Context {
            journal: journal.clone(),
            router: Arc::new(config.router()),
            cluster: config.cluster_name.as_str().into(),
            metrics: sinks::Metrics::register(&mut registry),
            stop: stop.clone(),
            drained: drained.clone(),
        };
        counters.send_event_errors = context.metrics.failures.clone();
        registry.register_collector(Box::new(ProcessCollector::default()));
        let (sink_tasks, orders) = sinks::spawn_all(sinks, &context);
        for task in sink_tasks {
            tasks.adopt(task.name, task.handle);
        }
        let sources = Sources::new(admit.clone(), journal_metrics, &journal, context.metrics.clone());
        match admin::bind(&config.journal.path) {
            Ok(listener) => tasks.spawn(
                "admin",
                Admin::new(journal.clone(), orders, sources.clone()).run(listener, stop.clone()),
            ),
            // Everything else works without it.
            Err(error) => {
                let path = admin::path(&config.journal.path);
                tracing::warn!(path = %path.display(), %error, "no socket for the command line: dead-letters will not work");
            }
        }
        let (admits, admitting) = watch::channel(true);
        let recalling = assign::cordons::recall(journal.clone(), assigner.clone());
        let ends = stop.clone();
        tasks.spawn("assign", async move {
            tokio::join!(driver.run(ends.clone()), ends.run_until_cancelled(recalling));
        });
        let stopped = stop.clone();
        tasks.spawn("configuration", async move {
            // Ends with the rest; by itself it never does.
            stopped.run_until_cancelled(follow.run()).await;
        });
        let plan = assigner.clone();
        let door = admit.clone();
        let serving = admit::run(
            agents,
            credentials,
            Limits::default(),
            journal.clone(),
            assigner,
            admit,
            stop.clone(),
        );
        let last = journal.clone();
        tasks.spawn_fallible("admit", async move {
            let served = serving.await;
            admits.send_replace(false);
            // What sessions that have ended gave to the journal may still be on its way: this stands behind it.
            let _ = tokio::time::timeout(FLUSH, last.note(Vec::new(), Vec::new())).await;
            drained.cancel();
            served
        });
        let health = Arc::new(AggregatorHealth { journal, admits: admitting, door, stop: stop.clone() });
        let readiness = Readiness::default();
        readiness.register(&mut registry);
        tasks.spawn("readiness", readiness.run(Arc::clone(&health), stop.clone()));
        let mut endpoint = Endpoint::new(registry, health).with_route("/status", move || {
            let plan = plan.clone();
            async move {
                match plan.status().await.map(|status| serde_json::to_string_pretty(&status)) {
                    Ok(Ok(status)) => endpoint::json(status),
                    Ok(Err(error)) => endpoint::unavailable(&error),
                    Err(error) => endpoint::unavailable(&error),
                }
            }
        });
        endpoint = endpoint.with_route("/reconcile", move || {
            let report = serde_json::to_string_pretty(&sources.report());
            async move {
                match report {
                    Ok(report) => endpoint::json(report),
                    Err(error) => endpoint::unavailable(&error),
                }
            }
        });
        if config.compatibility.kubernetes_event_exporter {
            endpoint = endpoint.with_more_metrics(move |open| counters.expose(open));
        }
        tasks.spawn("endpoint", endpoint.run(metrics, stop));
        tasks
    }
}

/// The history's API, where somebody may read it.
fn history(config: &Config, registry: &mut Registry) -> Result<Option<Api>, Vec<ApiError>> {
    let wanted = &config.history;
    if wanted.token_files.is_empty() && wanted.clients.is_empty() {
        tracing::info!(
            "the history is not served: name who may read it by history.tokenFiles or history.clients"
        );
        return Ok(None);
    }
    let metrics = api::Metrics::default();
    metrics.register(registry);
    let settings = api::Settings {
        files: Files {
            ca: wanted.client_ca_file.clone().unwrap_or_else(|| config.tls.ca_file.clone()),
            certificate: config.tls.cert_file.clone(),
            key: config.tls.key_file.clone(),
        },
        token_files: wanted.token_files.clone(),
        clients: wanted.clients.clone(),
        cluster: config.cluster_name.clone(),
        limits: wanted.limits,
    };
    Api::build(settings, metrics).map(Some)
}

// === impl Running ===

impl Running {
    /// Waits for a signal, and ends everything in good order: the intake first, then the sinks, which have until
    /// [`sinks::STOP_WITHIN`] for what was taken, the journal last.
    ///
    /// # Errors
    /// Where a part ended by itself: its name and why.
    pub async fn until_told(self) -> Result<(), String> {
        let end = self.tasks.run_until_told(DRAIN).await;
        if tokio::time::timeout(CLOSE, self.journal.close()).await.is_err() {
            tracing::warn!("stopping before the journal was closed; what was acknowledged is durable");
        }
        end
    }
}

// === impl Counting ===

impl Observer for Counting {
    fn appended(&mut self, entry: &Entry, record: &Record) {
        self.0.count(record, entry.occurrences);
    }

    fn duplicate(&mut self, _: &Record) {}
}
