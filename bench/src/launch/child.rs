//! A child process: its log in a file, its health by HTTP, and the last lines of its log where it fails.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// A process of nodetap; killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: tokio::process::Child,
    log: PathBuf,
    metrics: SocketAddr,
    started: Instant,
}

/// How many lines of its log tell why it failed.
const LAST_LINES: usize = 15;
/// How often its health is asked for: short, as it is what a time to be ready is measured to.
const RETRY: Duration = Duration::from_millis(10);
/// For an answer with its metrics.
const ANSWER: Duration = Duration::from_secs(2);
/// How long it may take to end by itself: the aggregator delivers for 10 s of it where it has something.
const STOP: Duration = Duration::from_secs(20);

// === impl Child ===

impl Child {
    /// Starts a program whose metrics will be at an address; its output is appended to a file.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        metrics: SocketAddr,
    ) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        // As the manifests have it.
        command.env("MALLOC_ARENA_MAX", "2");
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let started = Instant::now();
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {}: build it first (ci/demo does)", program.display()))?;
        Ok(Self { name: name.to_owned(), process, log: log.to_owned(), metrics, started })
    }

    /// Where its metrics are.
    pub(crate) fn metrics(&self) -> String {
        format!("http://{}/metrics", self.metrics)
    }

    /// A metric of it: one series, or the sum of all of a name; `None` where it has none of it, or does not answer.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let answer = timeout(ANSWER, async {
            let answer = http.get(self.metrics().parse().ok()?).await.ok()?;
            answer.into_body().collect().await.ok()
        });
        let body = answer.await.ok().flatten()?.to_bytes();
        let of_name = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let named = series == name || series.split('{').next() == Some(name);
            named.then(|| value.parse::<f64>().ok()).flatten()
        };
        let values: Vec<_> = String::from_utf8_lossy(&body).lines().filter_map(of_name).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.process.id().with_context(|| format!("{} has ended", self.name))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until `/readyz` says 200. Answers how long that took from its start.
    pub(crate) async fn ready(&mut self, within: Duration) -> anyhow::Result<Duration> {
        self.answers("/readyz", within).await?;
        Ok(self.started.elapsed())
    }

    /// Waits until `/livez` says 200.
    pub(crate) async fn alive(&mut self, within: Duration) -> anyhow::Result<()> {
        self.answers("/livez", within).await
    }

    async fn answers(&mut self, path: &str, within: Duration) -> anyhow::Result<()> {
        let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri: http::Uri = format!("http://{}{path}", self.metrics).parse()?;
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            self.check()?;
            if let Ok(Ok(answer)) = timeout(Duration::from_secs(1), http.get(uri.clone())).await
                && answer.status() == 200
            {
                return Ok(());
            }
            sleep(RETRY).await;
        }
        anyhow::bail!("{} was not ready in {within:?}; {}", self.name, self.last_lines())
    }

    /// Fails where it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended ({status}); {}", self.name, self.last_lines()),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self, within: Duration) -> anyhow::Result<()> {
        let ended = timeout(within, self.process.wait()).await;
        ended.with_context(|| format!("{} does not end", self.name))?.map(drop).map_err(Into::into)
    }

    /// SIGSTOP, or SIGCONT.
    pub(crate) fn halt(&self, halted: bool) {
        if let Some(id) = self.process.id().and_then(|id| i32::try_from(id).ok()) {
            kill(Pid::from_raw(id), if halted { Signal::SIGSTOP } else { Signal::SIGCONT }).ok();
        }
    }

    /// SIGTERM, and SIGKILL where that does not do.
    pub(crate) async fn stop(mut self) {
        if let Some(id) = self.process.id().and_then(|id| i32::try_from(id).ok()) {
            kill(Pid::from_raw(id), Signal::SIGTERM).ok();
        }
        if timeout(STOP, self.process.wait()).await.is_err() {
            self.process.kill().await.ok();
        }
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        if last.is_empty() {
            return "its log is empty".to_owned();
        }
        format!("the last lines of its log:\n  {}", last.join("\n  "))
    }
}
