//! The control plane of `ci/cluster`: found where this program runs inside it, started where it does not, and its API servers as
//! processes whose CPU is counted, that are ended, and started again beside each other.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::client::Client;

/// A control plane that is up, seen from its own network namespace.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    /// What `ci/cluster` keeps of it.
    pub(crate) folder: PathBuf,
    /// Its own API server.
    pub(crate) api_server: ApiServer,
}

/// One kube-apiserver.
#[derive(Debug)]
pub(crate) struct ApiServer {
    /// Names it and its administrator.
    pub(crate) kubeconfig: PathBuf,
    command: Vec<OsString>,
    log: PathBuf,
    runs: Runs,
}

/// Who started it.
#[derive(Debug)]
enum Runs {
    /// `ci/cluster`.
    Elsewhere(u32),
    /// This program; killed when dropped.
    Child(Box<tokio::process::Child>),
    Not,
}

/// The address of `ci/cluster`'s API server in its own network namespace.
pub(crate) const ADDRESS: &str = "10.99.0.1";
/// And its port.
pub(crate) const PORT: u16 = 6443;
/// An API server is ready after 5 to 10 s, on a busy machine later.
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Runs this program again inside a control plane that is started for it, where it is not inside of one.
///
/// Answers how that run ended; `None`: this is the one inside.
///
/// # Errors
/// The control plane does not come up; it was said why.
pub(crate) async fn enter(up: &[&str]) -> anyhow::Result<Option<ExitCode>> {
    if folder().is_some() {
        return Ok(None);
    }
    let script = std::env::current_dir()?.join("ci/cluster");
    anyhow::ensure!(
        script.exists(),
        "there is no {}: run this in the repository, or inside of `ci/cluster exec`",
        script.display()
    );
    let started = Command::new(&script).args(["up", "--nodes", "0"]).args(up).status().await?;
    anyhow::ensure!(started.success(), "ci/cluster up: {started}");
    let run = Command::new(&script)
        .arg("exec")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .kill_on_drop(true)
        .spawn();
    let ended = match run {
        Ok(mut run) => tokio::select! {
            ended = run.wait() => ended,
            // The one inside gets the same signal.
            () = crate::signalled() => run.wait().await,
        },
        Err(error) => Err(error),
    };
    let down = Command::new(&script).arg("down").status().await?;
    anyhow::ensure!(down.success(), "ci/cluster down: {down}");
    Ok(Some(if ended?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// Where `ci/cluster exec` says that the cluster's state is.
fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("KUBECONFIG")?).parent()?.to_owned();
    folder.join("pid/kube-apiserver").exists().then_some(folder)
}

// === impl ControlPlane ===

impl ControlPlane {
    /// The one that this program runs inside of.
    ///
    /// # Errors
    /// It is not there, or its API server is not.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let folder = folder().context("not inside of `ci/cluster exec`")?;
        let path = folder.join("pid/kube-apiserver");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let pid: u32 =
            text.trim().parse().with_context(|| format!("{} holds no process id", path.display()))?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline"))
            .with_context(|| format!("kube-apiserver ({pid}) has ended"))?;
        let command: Vec<OsString> = line
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| OsString::from_vec(argument.to_owned()))
            .collect();
        let of_server =
            command.first().is_some_and(|program| program.to_string_lossy().ends_with("kube-apiserver"));
        anyhow::ensure!(of_server, "process {pid} is not kube-apiserver");
        let api_server = ApiServer {
            kubeconfig: folder.join("admin.kubeconfig"),
            command,
            log: folder.join("log/kube-apiserver.log"),
            runs: Runs::Elsewhere(pid),
        };
        Ok(Self { folder, api_server })
    }

    /// Starts one more API server on the same etcd, and waits until it is ready.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) async fn another(&self, port: u16, flags: &[&str]) -> anyhow::Result<ApiServer> {
        let mut command = self.api_server.command.clone();
        // Of a flag that stands twice, the last counts.
        command.push(format!("--secure-port={port}").into());
        command.extend(flags.iter().map(OsString::from));
        let kubeconfig = self.kubeconfig(&self.api_server.kubeconfig, port, &format!("admin-{port}"))?;
        let log = self.folder.join(format!("log/kube-apiserver-{port}.log"));
        let mut server = ApiServer { kubeconfig, command, log, runs: Runs::Not };
        server.start().await?;
        Ok(server)
    }

    /// A copy of a kubeconfig that names another port of the same address.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn kubeconfig(&self, of: &Path, port: u16, name: &str) -> anyhow::Result<PathBuf> {
        let text = std::fs::read_to_string(of).with_context(|| format!("cannot read {}", of.display()))?;
        let path = self.folder.join(format!("{name}.kubeconfig"));
        let text = text.replace(&format!("{ADDRESS}:{PORT}"), &format!("{ADDRESS}:{port}"));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

// === impl ApiServer ===

impl ApiServer {
    /// A client of its administrator.
    ///
    /// # Errors
    /// Its kubeconfig cannot be used.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::from_kubeconfig(&self.kubeconfig)
    }

    /// Its process id.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        match &self.runs {
            Runs::Elsewhere(pid) => Some(*pid),
            Runs::Child(child) => child.id(),
            Runs::Not => None,
        }
        .context("this API server does not run")
    }

    /// Starts it as it was started before, and waits until it is ready.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let (program, arguments) = self.command.split_first().context("an API server without a command")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        self.runs = Runs::Child(Box::new(child));
        let client = self.client()?;
        let deadline = Instant::now() + START;
        while !client.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
            if let Runs::Child(child) = &mut self.runs
                && let Some(status) = child.try_wait()?
            {
                anyhow::bail!("kube-apiserver ended ({status}): see {}", self.log.display());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "kube-apiserver is not ready: see {}",
                self.log.display()
            );
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;

        let pid = self.id()?;
        if let Runs::Child(child) = &mut self.runs {
            child.kill().await?;
        } else {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
            while Path::new(&format!("/proc/{pid}/fd")).read_dir().is_ok_and(|mut open| open.next().is_some())
            {
                sleep(LOOK).await;
            }
        }
        self.runs = Runs::Not;
        Ok(())
    }
}
