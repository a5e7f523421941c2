//! The configuration file: a superset of kubernetes-event-exporter's, checked as a whole before anything is opened.
//!
//! Every problem is found in one go, with its place. A file of kubernetes-event-exporter's is taken as it is; what it leaves
//! unsaid there (unknown keys, patterns that never match, settings that mean nothing here) comes back as warnings.

mod env;
pub mod follow;
mod nearest;
mod problem;
pub mod receivers;
mod route;
mod section;
mod tree;
mod units;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::assign::choose::{Watch, Wish};
use crate::metrics::compatibility::Switches;
use crate::route::Router;
use crate::route::tree::Route;

pub(crate) use nearest::nearest;
pub use problem::{Problem, Warning};

use problem::Findings;
use receivers::Receiver;
use receivers::read::NamedFile;
use section::{Section, Unknown};
use tree::{Node, Place, Value};

/// What the file may be long, in bytes.
const MAX_LENGTH: u64 = 4 << 20;
/// `events.shards.count`: each is a watch that the API server evaluates for every event.
const MAX_SHARDS: i128 = 512;
/// Keys of kubernetes-event-exporter's that mean nothing here, and why.
const MEANINGLESS: &[(&str, &str)] = &[
    ("logLevel", "the log's level is set by the environment variable RUST_LOG"),
    ("logFormat", "the log is text on a terminal and JSON elsewhere"),
    ("kubeQPS", "events are taken by a watch, and nothing is asked of the API server for each"),
    ("kubeBurst", "events are taken by a watch, and nothing is asked of the API server for each"),
    ("cacheSize", "labels and owners of pods come from the nodes, without a cache of look-ups"),
    ("omitLookup", "labels and owners of pods come from the nodes, without look-ups"),
    ("leaderElection", "one aggregator owns the journal, and needs no election"),
];
/// Our own sections.
const OURS: &[&str] = &["listen", "tls", "journal", "events", "metrics"];

/// A configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `clusterName`; may be empty.
    pub cluster_name: String,
    /// `listen`
    pub listen: Listen,
    /// `tls` of the agents' connections.
    pub tls: ServerTls,
    /// `journal`
    pub journal: JournalConfig,
    /// `events`: how the watches are shared out.
    pub events: Wish,
    /// `route`
    pub route: Route,
    /// `receivers`, in the order of the file.
    pub receivers: Vec<Receiver>,
    /// `metrics`: the families of other exporters.
    pub compatibility: Switches,
    /// `metricsNamePrefix`: ends with `_`, or is empty.
    pub metrics_name_prefix: String,
    files: Vec<NamedFile>,
    file: String,
}

/// Where connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `listen.agents`; `0.0.0.0:9443` by default.
    pub agents: SocketAddr,
    /// `listen.metrics`; `0.0.0.0:2112` by default.
    pub metrics: SocketAddr,
}

/// The aggregator's certificate, and the authority of its agents' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// `tls.certFile`; `/etc/nodetap/tls/tls.crt` by default.
    pub cert_file: PathBuf,
    /// `tls.keyFile`; `/etc/nodetap/tls/tls.key` by default.
    pub key_file: PathBuf,
    /// `tls.caFile`; `/etc/nodetap/tls/ca.crt` by default.
    pub ca_file: PathBuf,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// `journal.path`, a folder; `/var/lib/nodetap` by default.
    pub path: PathBuf,
    /// `journal.maxAge`; 168 h by default.
    pub max_age: Duration,
    /// `journal.maxBytes`; 10 GiB by default.
    pub max_bytes: u64,
    /// `journal.synchronous`
    pub synchronous: Synchronous,
}

/// What an acknowledgement of the journal outlasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Loss of power. The default.
    #[default]
    Full,
    /// The end of the process, but perhaps not loss of power.
    Normal,
}

// === impl Config ===

impl Config {
    /// Loads a file.
    ///
    /// # Errors
    /// Every problem of it, sorted by place.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Vec<Problem>> {
        let file = path.display().to_string();
        let unreadable = |message: String| {
            vec![Findings::new(&file).at(
                Place::default(),
                "",
                format!("{message}; name a readable file by --config"),
            )]
        };
        let length =
            std::fs::metadata(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?.len();
        if length > MAX_LENGTH {
            return Err(unreadable(format!("is {length} bytes long, more than {MAX_LENGTH}")));
        }
        let bytes = std::fs::read(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8".to_owned()))?;
        Self::parse(&file, &text, |name| std::env::var(name).ok())
    }

    /// Reads a configuration from its text. `file` is only named in messages; `environment` gives the variables.
    ///
    /// # Errors
    /// Every problem of it, sorted by place.
    pub fn parse(
        file: &str,
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Warning>), Vec<Problem>> {
        let mut findings = Findings::new(file);
        let expanded = env::expand(text, environment);
        for (at, name) in &expanded.unset {
            let message = format!("{name} is taken for an environment variable, is not set, and so vanishes");
            findings.warning(*at, "", message);
        }
        let config = match tree::read(&expanded.text) {
            Ok(document) => {
                if document.more {
                    findings.warning(
                        Place { line: 1, column: 1 },
                        "",
                        "only the first document of the file is read",
                    );
                }
                read(file, &document.root, &mut findings)
            }
            Err((at, message)) => {
                let line = expanded.text.lines().nth(at.line.saturating_sub(1)).unwrap_or("");
                let hint = if line.contains("{{") {
                    "; a value with {{ in it must be quoted"
                } else if line.contains(": *") || line.contains("- *") {
                    "; a value that begins with * must be quoted"
                } else {
                    ""
                };
                findings.problem(at, "", format!("not YAML: {message}{hint}"));
                None
            }
        };
        let Findings { mut problems, mut warnings, .. } = findings;
        let place = |problem: &mut Problem| {
            let at = expanded.origin(Place { line: problem.line, column: problem.column });
            (problem.line, problem.column) = (at.line, at.column);
        };
        problems.iter_mut().for_each(place);
        warnings.iter_mut().skip(expanded.unset.len()).for_each(|warning| place(&mut warning.0));
        problems.sort();
        problems.dedup();
        warnings.sort();
        warnings.dedup();
        match config {
            Some(config) if problems.is_empty() => Ok((config, warnings)),
            _ => Err(problems),
        }
    }

    /// Whether the files that the `tls` sections name can be read.
    ///
    /// # Errors
    /// One problem for each that cannot.
    pub fn check_files(&self) -> Result<(), Vec<Problem>> {
        let findings = Findings::new(&self.file);
        let problems: Vec<Problem> = self
            .files
            .iter()
            .filter_map(|NamedFile { file, at, path }| {
                let error = match std::fs::File::open(file).and_then(|file| file.metadata()) {
                    Ok(metadata) if metadata.is_dir() => "is a folder".to_owned(),
                    Ok(_) => return None,
                    Err(error) => format!("cannot be read: {error}"),
                };
                let message = format!("{} {error}; put it there, or name another file", file.display());
                Some(findings.at(*at, path, message))
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The file that it was read from.
    pub fn file(&self) -> &Path {
        Path::new(&self.file)
    }

    /// The router of its route over its receivers: indexes are places in [`Self::receivers`].
    pub fn router(&self) -> Router {
        let names: Vec<&str> = self.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        Router::new(&self.route, &names)
    }
}

/// Reads the tree. None only where it is no mapping; a configuration with problems is not used.
fn read(file: &str, root: &Node, findings: &mut Findings) -> Option<Config> {
    let mut section = Section::of(root, "", findings)?;
    let mut files = Vec::new();

    let cluster_name = section.text("clusterName", findings).unwrap_or_default();
    let metrics_name_prefix = prefix(&mut section, findings);
    age(&mut section, findings);
    for (key, reason) in MEANINGLESS {
        if section.get(key).is_some() {
            findings.warning(section.key_at(key), key, format!("without effect here: {reason}"));
        }
    }
    if let Some(namespace) = section.text("namespace", findings).filter(|namespace| !namespace.is_empty()) {
        let message = format!(
            "without effect here: all namespaces are watched; for only this one, route by `namespace: ^{namespace}$`"
        );
        findings.warning(section.key_at("namespace"), "namespace", message);
    }

    let listen = listen(&mut section, findings);
    let tls = server_tls(&mut section, &mut files, findings);
    let journal = journal(&mut section, findings);
    let events = events(&mut section, findings);
    let compatibility = compatibility(&mut section, findings);

    let receivers = receivers(&mut section, &mut files, findings);
    let nothing = Node { at: root.at, value: Value::Null };
    let (route, named) = route::route(section.get("route").unwrap_or(&nothing), findings);
    let names: Vec<_> =
        receivers.iter().map(|(name, at, path, _)| (name.clone(), *at, path.clone())).collect();
    route::check_names(&named, &names, findings);
    finish(&section, findings);

    Some(Config {
        cluster_name,
        listen,
        tls,
        journal,
        events,
        compatibility,
        route,
        receivers: receivers.into_iter().filter_map(|receiver| receiver.3).collect(),
        metrics_name_prefix,
        files,
        file: file.to_owned(),
    })
}

/// The receivers: the name, place and path of each that has a name, and the receiver where nothing is wrong with it.
fn receivers(
    section: &mut Section<'_>,
    files: &mut Vec<NamedFile>,
    findings: &mut Findings,
) -> Vec<(String, Place, String, Option<Receiver>)> {
    let mut all: Vec<(String, Place, String, Option<Receiver>)> = Vec::new();
    for (node, path) in section.list("receivers", findings) {
        let receiver = receivers::read::receiver(node, &path, files, findings);
        // Routes may name one that has problems of its own: that is none of theirs.
        let name = receiver.as_ref().map(|receiver| receiver.name.clone()).or_else(|| name_of(node));
        let Some(name) = name else { continue };
        if let Some((_, first, _, _)) = all.iter().find(|known| known.0 == name) {
            let message =
                format!("another receiver is called {name:?} already, in line {}; rename one", first.line);
            findings.problem(node.at, &path, message);
        }
        all.push((name, node.at, path, receiver));
    }
    all
}

fn name_of(node: &Node) -> Option<String> {
    let Value::Map(entries) = &node.value else { return None };
    let name = entries.iter().rev().find(|entry| entry.key == "name")?;
    Some(name.value.value.to_string())
}

fn prefix(section: &mut Section<'_>, findings: &mut Findings) -> String {
    let prefix = section.text("metricsNamePrefix", findings).unwrap_or_default();
    let valid = prefix.is_empty()
        || prefix.len() > 1
            && prefix.starts_with(|c: char| c.is_ascii_alphabetic())
            && prefix.ends_with('_')
            && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'));
    let message = || {
        format!(
            "{prefix:?} is no prefix: a letter, then letters, digits, _ and :, and a _ at the end, such as event_exporter_"
        )
    };
    section
        .checked("metricsNamePrefix", if valid { Ok(prefix.clone()) } else { Err(message()) }, findings)
        .unwrap_or_default()
}

/// `maxEventAgeSeconds` and its old name.
fn age(section: &mut Section<'_>, findings: &mut Findings) {
    let mut given =
        |key| section.integer(key, i64::MIN.into(), i64::MAX.into(), findings).filter(|age| *age != 0);
    let (old, new) = (given("throttlePeriod"), given("maxEventAgeSeconds"));
    if old.is_some() && new.is_some() {
        let message = "is the old name of maxEventAgeSeconds, and both are given; remove this one";
        findings.problem(section.key_at("throttlePeriod"), "throttlePeriod", message);
    }
    for (key, age) in [("throttlePeriod", old), ("maxEventAgeSeconds", new)] {
        if age.is_some() {
            let message = "without effect here: no event is dropped for its age, and none is delivered twice after a restart";
            findings.warning(section.key_at(key), key, message);
        }
    }
}

fn listen(section: &mut Section<'_>, findings: &mut Findings) -> Listen {
    let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let mut listen = Listen { agents: any(9443), metrics: any(2112) };
    if let Some(mut section) = section.get("listen").and_then(|node| Section::of(node, "listen", findings)) {
        for (key, address) in [("agents", &mut listen.agents), ("metrics", &mut listen.metrics)] {
            let Some(text) = section.text(key, findings) else { continue };
            // `:2112`, as Go spells every address.
            let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.clone() };
            let read =
                whole.parse().map_err(|_| format!("{text:?} is no address and port, such as 0.0.0.0:9443"));
            if let Some(read) = section.checked(key, read, findings) {
                *address = read;
            }
        }
        // Port 0 is another port each time.
        if listen.agents == listen.metrics && listen.agents.port() != 0 {
            findings.problem(
                section.at,
                "listen",
                "agents and metrics have the same address; give them two ports",
            );
        }
        section.finish(Unknown::Refused, findings);
    }
    listen
}

fn server_tls(section: &mut Section<'_>, files: &mut Vec<NamedFile>, findings: &mut Findings) -> ServerTls {
    let nothing = Node { at: section.at, value: Value::Null };
    let node = section.get("tls").unwrap_or(&nothing);
    let mut tls = ServerTls {
        cert_file: "/etc/nodetap/tls/tls.crt".into(),
        key_file: "/etc/nodetap/tls/tls.key".into(),
        ca_file: "/etc/nodetap/tls/ca.crt".into(),
    };
    if let Some(mut section) = Section::of(node, "tls", findings) {
        for (key, file) in
            [("certFile", &mut tls.cert_file), ("keyFile", &mut tls.key_file), ("caFile", &mut tls.ca_file)]
        {
            if let Some(given) = section.path_buf(key, findings) {
                *file = given;
            }
            files.push(NamedFile {
                file: file.clone(),
                at: section.value_at(key),
                path: section.path_of(key),
            });
        }
        section.finish(Unknown::Refused, findings);
    }
    tls
}

fn journal(section: &mut Section<'_>, findings: &mut Findings) -> JournalConfig {
    let mut journal = JournalConfig {
        path: "/var/lib/nodetap".into(),
        max_age: Duration::from_secs(168 * 3600),
        max_bytes: 10 << 30,
        synchronous: Synchronous::default(),
    };
    if let Some(mut section) = section.get("journal").and_then(|node| Section::of(node, "journal", findings))
    {
        if let Some(path) = section.path_buf("path", findings) {
            journal.path = path;
        }
        if let Some(age) = section.duration("maxAge", findings) {
            journal.max_age = age;
        }
        if let Some(bytes) = section.bytes("maxBytes", 1 << 20, findings) {
            journal.max_bytes = bytes;
        }
        let choices = [("full", Synchronous::Full), ("normal", Synchronous::Normal)];
        journal.synchronous = section.choice("synchronous", &choices, findings).unwrap_or_default();
        section.finish(Unknown::Refused, findings);
    }
    journal
}

fn events(section: &mut Section<'_>, findings: &mut Findings) -> Wish {
    let mut wish = Wish::default();
    let Some(mut section) = section.get("events").and_then(|node| Section::of(node, "events", findings))
    else {
        return wish;
    };
    let choices = [
        ("auto", Watch::Auto),
        ("host", Watch::Host),
        ("cluster", Watch::Cluster),
        ("namespaces", Watch::Namespaces),
        ("shards", Watch::Shards),
    ];
    wish.watch = section.choice("watch", &choices, findings).unwrap_or_default();
    // Each is checked against what its type holds.
    if let Some(nodes) = section.integer("hostWatchMaxNodes", 0, 5_000, findings) {
        wish.host_watch_max_nodes = nodes as usize;
    }
    if let Some(events) = section.integer("maxEventsPerWatch", 1, 1_000_000, findings) {
        wish.max_events_per_watch = events as u32;
    }
    if let Some(mut shards) =
        section.get("shards").and_then(|node| Section::of(node, "events.shards", findings))
    {
        wish.allow_shards = shards.boolean("allow", findings).unwrap_or(wish.allow_shards);
        if let Some(count) = shards.integer("count", 1, MAX_SHARDS, findings) {
            wish.shards = count as u32;
        }
        shards.finish(Unknown::Refused, findings);
    }
    section.finish(Unknown::Refused, findings);
    wish
}

fn compatibility(section: &mut Section<'_>, findings: &mut Findings) -> Switches {
    let mut switches = Switches::default();
    if let Some(mut section) = section.get("metrics").and_then(|node| Section::of(node, "metrics", findings))
    {
        for (key, switch) in [
            ("kubernetesEventExporter", &mut switches.kubernetes_event_exporter),
            ("eventExporter", &mut switches.event_exporter),
            ("eventRouter", &mut switches.event_router),
        ] {
            *switch = section.boolean(key, findings).unwrap_or(*switch);
        }
        section.finish(Unknown::Refused, findings);
    }
    switches
}

/// Reports unknown keys at the top: one that looks like one of ours or theirs is refused, for the rest see upstream.
fn finish(section: &Section<'_>, findings: &mut Findings) {
    let theirs = [
        "clusterName",
        "metricsNamePrefix",
        "throttlePeriod",
        "maxEventAgeSeconds",
        "namespace",
        "route",
        "receivers",
    ];
    let known: Vec<&str> =
        theirs.into_iter().chain(MEANINGLESS.iter().map(|one| one.0)).chain(OURS.iter().copied()).collect();
    for (index, entry) in section.entries().iter().enumerate() {
        let key = entry.key.as_str();
        if section.entries().iter().take(index).any(|before| before.key == key) {
            if OURS.contains(&key) {
                findings.problem(entry.at, key, "stands here for the second time");
            } else {
                findings.warning(entry.at, key, "stands here for the second time: the last one is taken");
            }
        }
        if known.contains(&key) {
            continue;
        }
        match nearest(key, &known) {
            Some(near) => findings.problem(entry.at, key, format!("unknown key; did you mean {near}?")),
            None => findings.warning(entry.at, key, "unknown key, ignored"),
        }
    }
}

#[cfg(test)]
mod tests;
