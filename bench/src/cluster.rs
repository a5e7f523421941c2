//! A simulated Kubernetes cluster: an API server, a kubelet a node, pods that live and die, faults by request, and the truth
//! about all of it.
//!
//! Everything listens on loopback on free ports and lives in one folder; it ends when it is stopped or dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::pki::Authority;

mod admin;
mod api;
mod events;
mod faults;
mod kubelet;
mod list;
mod lives;
mod logs;
mod object;
mod pods;
mod recorder;
mod selectors;
pub(crate) mod server;
mod state;
mod status;
mod store;
mod truth;
mod watch;

pub use events::{Event, Metadata, Reference, Series, Source};
pub use faults::{Answer, CutHow, Faults, KubeletFault, Scope, Times};
pub use lives::{BackOff, Lives, PodRef};
pub use object::{Object, Resource};
pub use pods::{ContainerKind, ContainerSpec, Ending, PodSpec, RestartPolicy};
pub use recorder::{Occurrence, Recorder};
pub use state::OpenWatch;
pub use status::{Cause, Details, Status};
pub use truth::{Death, EventState, Truth};

use state::State;

/// What the cluster is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes: `node-1` to `node-N`.
    pub nodes: usize,
    /// Decides every number that is drawn.
    pub seed: u64,
    /// How long an event is kept after its last write.
    pub event_ttl: Duration,
    /// How many changes are kept for watches to go on from; older ones are compacted.
    pub history: usize,
    /// How long the kubelet waits before it starts a container again, the first time that it waits.
    pub back_off: Duration,
    /// The longest that it waits.
    pub back_off_max: Duration,
    /// When a watch without `timeoutSeconds` ends.
    pub watch_timeout: Duration,
    /// How often a watch of pods is sent a bookmark.
    pub bookmark_interval: Duration,
    /// It selects events by `spec.source.host`, as no released API server does.
    pub host_selector: bool,
    /// It shards lists and watches (KEP-5866).
    pub shard_selector: bool,
    /// How many API servers its EndpointSlice tells of.
    pub api_servers: usize,
    /// Where certificates, kubeconfigs and logs go; `None`: a folder that is removed at the end.
    pub folder: Option<PathBuf>,
}

/// A cluster that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct SimulatedCluster {
    parts: Arc<Parts>,
    stop: CancellationToken,
    _folder: Option<tempfile::TempDir>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// metadata.name
    pub name: String,
    /// Where its kubelet listens: `https://127.0.0.1:PORT`.
    pub kubelet_url: String,
    /// Its `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// A kubeconfig of an agent on this node, whose requests are known by the user `agent-<node>`.
    pub kubeconfig: PathBuf,
    /// The token in it.
    pub token: String,
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Parts {
    state: Arc<State>,
    lives: Arc<Lives>,
    recorder: Arc<Recorder>,
    nodes: Vec<Node>,
    api_url: String,
    admin_url: String,
    ca: PathBuf,
    kubeconfig: PathBuf,
    token: String,
}

/// How often leases are looked at. etcd's lessor does so every 500 ms.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            seed: 1,
            event_ttl: Duration::from_secs(3600),
            history: 100_000,
            back_off: Duration::from_secs(10),
            back_off_max: Duration::from_secs(300),
            watch_timeout: Duration::from_secs(1800),
            bookmark_interval: Duration::from_secs(60),
            host_selector: false,
            shard_selector: false,
            api_servers: 1,
            folder: None,
        }
    }
}

// === impl SimulatedCluster ===

impl SimulatedCluster {
    /// Starts everything; it listens when this returns.
    ///
    /// # Errors
    /// A folder cannot be written or a port cannot be had.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let (folder, temporary) = match &options.folder {
            Some(folder) => (folder.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("nodetap-cluster-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let authority = Authority::new("simulated-cluster-ca")?;
        let ca = folder.join("ca.crt");
        write(&ca, authority.pem())?;

        let names: Vec<String> = (1..=options.nodes).map(|number| format!("node-{number}")).collect();
        let mut tokens = BTreeMap::new();
        let mut token = |user: &str| {
            let token =
                format!("{user}.{}", crate::random::Random::new(options.seed ^ user.len() as u64).hex64());
            tokens.insert(token.clone(), user.to_owned());
            token
        };
        let admin_token = token("admin");
        let node_tokens: Vec<String> = names.iter().map(|name| token(&format!("agent-{name}"))).collect();
        let state = Arc::new(State::new(&options, tokens));
        let recorder = Arc::new(Recorder::new(Arc::clone(&state)));

        let (api_listener, api_address) = server::bind().await?;
        let (admin_listener, admin_address) = server::bind().await?;
        let api_url = format!("https://{api_address}");
        let mut nodes = Vec::new();
        let mut kubelets = Vec::new();
        for (name, token) in names.iter().zip(node_tokens) {
            let (listener, address) = server::bind().await?;
            let home = folder.join("nodes").join(name);
            let pod_logs = home.join("pods");
            std::fs::create_dir_all(&pod_logs)
                .with_context(|| format!("cannot make {}", pod_logs.display()))?;
            let kubeconfig = home.join("kubeconfig");
            write(&kubeconfig, &kubeconfig_text(&api_url, authority.pem(), &token))?;
            let kubelet_url = format!("https://{address}");
            nodes.push(Node { name: name.clone(), kubelet_url, pod_logs, kubeconfig, token });
            kubelets.push(listener);
        }
        let kubeconfig = folder.join("kubeconfig");
        write(&kubeconfig, &kubeconfig_text(&api_url, authority.pem(), &admin_token))?;

        let folders = nodes.iter().map(|node| (node.name.clone(), node.pod_logs.clone())).collect();
        let lives = Arc::new(Lives::new(Arc::clone(&state), Arc::clone(&recorder), folders, &options));
        let stop = CancellationToken::new();
        let never_down = tokio::sync::watch::Sender::new(false);

        let api = api::Api { state: Arc::clone(&state), lives: Arc::clone(&lives), nodes: Arc::from(names) };
        let tls = authority.server("kubernetes")?.server_config()?;
        let down = state.faults.down.subscribe();
        tokio::spawn(server::serve(api_listener, Some(tls), down, stop.clone(), move |request| {
            api.clone().handle(request)
        }));
        for (node, listener) in nodes.iter().zip(kubelets) {
            let kubelet = kubelet::Kubelet { state: Arc::clone(&state), node: Arc::from(node.name.as_str()) };
            let tls = authority.server(&node.name)?.server_config()?;
            let handle = move |request| kubelet.clone().handle(request);
            tokio::spawn(server::serve(listener, Some(tls), never_down.subscribe(), stop.clone(), handle));
        }
        let parts = Arc::new(Parts {
            state: Arc::clone(&state),
            lives,
            recorder,
            nodes,
            api_url,
            admin_url: format!("http://{admin_address}"),
            ca,
            kubeconfig,
            token: admin_token,
        });
        let for_admin = Arc::clone(&parts);
        let handle = move |request| admin::handle(Arc::clone(&for_admin), request);
        tokio::spawn(server::serve(admin_listener, None, never_down.subscribe(), stop.clone(), handle));
        let stopped = stop.clone();
        tokio::spawn(async move {
            // Held, so that the servers that are never down have somebody to ask.
            let _never_down = never_down;
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = tokio::time::sleep(EXPIRY_INTERVAL) => { state.expire(); }
                }
            }
        });
        Ok(Self { parts, stop, _folder: temporary })
    }

    /// `https://127.0.0.1:PORT`
    pub fn api_url(&self) -> &str {
        &self.parts.api_url
    }

    /// `http://127.0.0.1:PORT`: faults and the truth, see the module `admin`.
    pub fn admin_url(&self) -> &str {
        &self.parts.admin_url
    }

    /// The CA of the API server and the kubelets, PEM.
    pub fn ca_path(&self) -> &Path {
        &self.parts.ca
    }

    /// A kubeconfig with a token of the user `admin`.
    pub fn kubeconfig(&self) -> &Path {
        &self.parts.kubeconfig
    }

    /// The token in it.
    pub fn token(&self) -> &str {
        &self.parts.token
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.parts.nodes
    }

    /// Where everything is, for people.
    pub fn describe(&self) -> String {
        let Parts { api_url, admin_url, ca, kubeconfig, nodes, .. } = &*self.parts;
        let mut text = format!(
            "API server   {api_url}\nkubeconfig   {}\nCA           {}\nadmin        {admin_url}",
            kubeconfig.display(),
            ca.display()
        );
        for node in nodes {
            text += &format!(
                "\n{:<12} kubelet {}  logs {}",
                node.name,
                node.kubelet_url,
                node.pod_logs.display()
            );
        }
        text
    }

    /// What can go wrong.
    pub fn faults(&self) -> &Faults {
        &self.parts.state.faults
    }

    /// What truly happened.
    pub fn truth(&self) -> &Truth {
        &self.parts.state.truth
    }

    /// Pods and their containers.
    pub fn lives(&self) -> &Arc<Lives> {
        &self.parts.lives
    }

    /// From now on, watches alone tell of new events: a load that nobody lists needs no more, and a million events in a tree take
    /// longer than their delivery.
    pub fn keep_no_events(&self) {
        self.parts.state.store().keep_no_events();
    }

    /// Events as components write them.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.parts.recorder
    }

    /// Writes an event as it is given; names, uid and resourceVersion are filled in.
    ///
    /// # Errors
    /// As the API server refuses it.
    pub fn post_event(&self, namespace: &str, event: Event) -> Result<EventState, Status> {
        let object = self.parts.state.create_event(namespace, event, "nodetap-bench")?;
        Ok(EventState { uid: object.uid().to_owned(), resource_version: object.revision.to_string() })
    }

    /// Makes a namespace; one that an event is written to is made by itself.
    pub fn create_namespace(&self, name: &str) {
        self.parts.state.create_namespace(name);
    }

    /// Deletes a namespace and the events in it.
    pub fn delete_namespace(&self, name: &str) {
        self.parts.state.delete_namespace(name);
    }

    /// Says that it is another version from now on.
    pub fn set_version(&self, version: &str) {
        let mut said = self.parts.state.version.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        version.clone_into(&mut said);
    }

    /// Writes one event with a message of so many bytes, which no real API server would take. Answers its uid.
    ///
    /// # Errors
    /// As the API server refuses it.
    pub fn post_oversized_event(&self, bytes: usize) -> anyhow::Result<String> {
        self.parts.post_oversized_event(bytes)
    }

    /// Forgets the history: a watch or a page that goes on from before now is refused with 410. Answers the revision.
    ///
    /// etcd refuses a watch from R where R + 1 lies before the compaction, so a watch that had seen all but the last write
    /// still goes on.
    pub fn compact(&self) -> u64 {
        self.parts.state.compact()
    }

    /// The resourceVersion of the last write to anything.
    pub fn revision(&self) -> u64 {
        self.parts.state.store().revision()
    }

    /// Deletes all events at once, as when their time is over, in bursts of a lease each. Answers how many.
    pub fn expire_all_events(&self) -> usize {
        self.parts.expire_all_events()
    }

    /// The watches that are open now.
    pub fn open_watches(&self) -> Vec<OpenWatch> {
        self.parts.state.open_watches()
    }

    /// The event watches that are open now.
    pub fn open_event_watches(&self) -> Vec<OpenWatch> {
        let mut watches = self.open_watches();
        watches.retain(|watch| watch.resource == Resource::Events);
        watches
    }

    /// Waits until the open watches are as wanted.
    pub async fn until_watches(&self, wanted: impl Fn(&[OpenWatch]) -> bool) {
        let mut changed = self.parts.state.watches_changed.subscribe();
        loop {
            changed.borrow_and_update();
            if wanted(&self.open_watches()) {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// How many requests of a kind there were: `list events`, `watch events`, `list pods`, `watch pods`, `list namespaces`, `watch namespaces`, `get`, `get version`, `log`,
    /// `kubelet pods`.
    pub fn requests(&self, kind: &str) -> u64 {
        let requests = self.parts.state.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        requests.get(kind).copied().unwrap_or(0)
    }

    /// Ends all servers and breaks their connections.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for SimulatedCluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === impl Parts ===

impl Parts {
    fn addresses(&self) -> Value {
        let node = |node: &Node| {
            json!({
                "name": node.name,
                "kubelet": node.kubelet_url,
                "podLogs": node.pod_logs,
                "kubeconfig": node.kubeconfig,
            })
        };
        json!({
            "api": self.api_url,
            "admin": self.admin_url,
            "ca": self.ca,
            "kubeconfig": self.kubeconfig,
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
        })
    }

    fn post_oversized_event(&self, bytes: usize) -> anyhow::Result<String> {
        let occurrence = Occurrence {
            object: Reference {
                kind: "Pod".to_owned(),
                namespace: "default".to_owned(),
                name: "huge".to_owned(),
                ..Reference::default()
            },
            reason: "Oversized".to_owned(),
            message: "x".repeat(bytes),
            kind: "Warning",
            component: "nodetap-bench".to_owned(),
            ..Occurrence::default()
        };
        let object = self.recorder.record(occurrence).map_err(|status| anyhow::anyhow!(status.message))?;
        Ok(object.uid().to_owned())
    }

    fn expire_all_events(&self) -> usize {
        let keys: Vec<_> = self.state.store().objects(Resource::Events).keys().cloned().collect();
        keys.chunks(1000).map(|keys| self.state.delete(Resource::Events, keys).len()).sum()
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn kubeconfig_text(api_url: &str, ca: &str, token: &str) -> String {
    let ca = base64(ca.as_bytes());
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: simulated
  cluster:
    server: {api_url}
    certificate-authority-data: {ca}
users:
- name: simulated
  user:
    token: {token}
contexts:
- name: simulated
  context:
    cluster: simulated
    user: simulated
current-context: simulated
"
    )
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
