//! The process: its files, its start, its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodetap_aggregator::journal::metrics::JournalMetrics;
use nodetap_aggregator::journal::sqlite::{Settings, SqliteJournal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::certificates::{Authority, Identity};
use crate::within;

/// What a process is started with, time and again.
pub struct Home {
    folder: tempfile::TempDir,
    aggregator: Identity,
    pub agent: Identity,
}

/// A process that runs.
pub struct Running {
    child: Child,
    pub agents: SocketAddr,
    pub metrics: SocketAddr,
    /// Its log, from when it ran.
    pub said: watch::Receiver<Vec<String>>,
}

impl Home {
    /// With the receivers that a configuration names.
    pub fn new(receivers: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let home = Self {
            aggregator: authority.server("nodetap-aggregator"),
            agent: authority.agent("node-1"),
            folder,
        };
        let names: Vec<_> = receivers
            .as_array()
            .unwrap()
            .iter()
            .map(|receiver| serde_json::json!({"receiver": receiver["name"]}))
            .collect();
        let files = home.aggregator.files();
        // JSON is YAML.
        let text = serde_json::json!({
            "clusterName": "prod",
            "listen": {"agents": "127.0.0.1:0", "metrics": "127.0.0.1:0"},
            "tls": {"certFile": files.certificate, "keyFile": files.key, "caFile": files.ca},
            "journal": {"path": home.journal()},
            "route": {"match": names},
            "receivers": receivers,
        });
        std::fs::write(home.configuration(), text.to_string()).unwrap();
        home
    }

    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// Begins with an empty journal.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.journal()).unwrap();
    }

    /// The journal of a process that has ended.
    pub fn open_journal(&self) -> SqliteJournal {
        SqliteJournal::open(Settings::new(self.journal()), JournalMetrics::default(), Box::new(())).unwrap()
    }

    /// Until it says that it runs.
    pub async fn start(&self) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nodetap-aggregator"))
            .env_clear()
            .arg("--config")
            .arg(self.configuration())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let (agents, metrics) = loop {
            let Some(line) = within(lines.next_line()).await.unwrap() else {
                panic!("it ended: {}", said.join("\n"))
            };
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            if value["message"] == "aggregator is running" {
                let address = |name: &str| value[name].as_str().unwrap().parse().unwrap();
                break (address("agents"), address("metrics"));
            }
            said.push(line);
        };
        // A full pipe would hold it up.
        let (say, said) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                say.send_modify(|said| said.push(line));
            }
        });
        Running { child, agents, metrics, said }
    }

    /// Another process of it with a command, such as one that asks the one that runs: how it ended, and what it printed.
    pub async fn command(&self, command: &[&str]) -> (Option<i32>, String) {
        let mut asking = Command::new(env!("CARGO_BIN_EXE_nodetap-aggregator"));
        asking.env_clear().arg("--config").arg(self.configuration()).args(command).kill_on_drop(true);
        let output = within(asking.output()).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

impl Running {
    /// What its endpoint of metrics and health answers, its head included.
    pub async fn get(&self, path: &str) -> String {
        within(async {
            let mut stream = TcpStream::connect(self.metrics).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: aggregator\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        })
        .await
    }

    /// SIGKILL, and until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM.
    pub fn tell_to_end(&self) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
    }

    /// Until it has ended by itself.
    pub async fn ended(mut self) -> ExitStatus {
        within(self.child.wait()).await.unwrap()
    }
}
