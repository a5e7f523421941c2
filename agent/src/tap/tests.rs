#![allow(clippy::unwrap_used, clippy::panic)]

use nodetap_bench::cluster::{
    Answer, BackOff, ContainerSpec, Ending, KubeletFault, Options, PodSpec, Scope, SimulatedCluster, Times,
};
use nodetap_wire::{ContainerDied, LinesFrom, Record, record};

use super::*;
use crate::outbox::{self, Taken, Taking};

struct Tapped {
    cluster: SimulatedCluster,
    taken: Taking,
    metrics: Metrics,
    forget: watch::Sender<u64>,
    lose: watch::Sender<u64>,
    cancel: CancellationToken,
}

// === impl Tapped ===

impl Tapped {
    async fn start(cluster: SimulatedCluster, ca: Option<PathBuf>) -> Self {
        Self::start_with(cluster, ca, |_| {}).await
    }

    async fn start_with(
        cluster: SimulatedCluster,
        ca: Option<PathBuf>,
        set: impl FnOnce(&mut Config),
    ) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let node = cluster.nodes()[0].clone();
        let access = KubernetesAccess::new(Some(&node.kubeconfig)).await.unwrap();
        let (intake, taken) = outbox::intake();
        let (metrics, cancel) = (Metrics::default(), CancellationToken::new());
        let url = node.kubelet_url.parse().unwrap();
        let mut config = Config {
            node: node.name,
            kubelet: Some(kubelet::Address { url, ca, skip_verify: false }),
            pod_logs: node.pod_logs,
            poll_interval: Duration::from_secs(1),
            skip_namespaces: BTreeSet::new(),
            log_lines: node::LogLines::OptOut,
            api_log: false,
            redact: redact::named::Named::default(),
            state: None,
        };
        set(&mut config);
        let (forget, forgotten) = watch::channel(0);
        let (lose, lost) = watch::channel(0);
        let again = Again { forgotten, lost, within: Duration::ZERO };
        tokio::spawn(run(config, access, intake, again, metrics.clone(), cancel.clone()));
        Self { cluster, taken, metrics, forget, lose, cancel }
    }

    async fn death(&mut self) -> ContainerDied {
        loop {
            match self.taken.recv().await.unwrap() {
                Taken::Record(Record { kind: Some(record::Kind::Death(death)) }) => return *death,
                // What came before it is acknowledged.
                Taken::Mark(mark) => mark.reach(),
                _ => {}
            }
        }
    }

    /// The pod is known to the tap.
    async fn pod(&mut self, name: &str) {
        loop {
            match self.taken.recv().await.unwrap() {
                Taken::Record(Record { kind: Some(record::Kind::Pod(facts)) }) if facts.name == name => {
                    return;
                }
                Taken::Mark(mark) => mark.reach(),
                _ => {}
            }
        }
    }
}

async fn cluster() -> SimulatedCluster {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    SimulatedCluster::start(Options { nodes: 1, ..Options::default() }).await.unwrap()
}

fn web(cluster: &SimulatedCluster, name: &str) -> nodetap_bench::cluster::PodRef {
    let spec = PodSpec {
        namespace: "shop".into(),
        name: name.into(),
        node: cluster.nodes()[0].name.clone(),
        containers: vec![ContainerSpec::app("app")],
        ..PodSpec::default()
    };
    cluster.lives().run(spec).unwrap()
}

#[tokio::test]
async fn a_crash_is_reported_once_with_its_redacted_last_line() {
    let cluster = cluster().await;
    let web_0 = web(&cluster, "web-0");
    let mut tapped = Tapped::start(cluster, None).await;
    tapped.pod("web-0").await;
    let ending = Ending::exit(7, "cannot connect: password=hunter2");
    tapped.cluster.lives().crash(&web_0, "app", &ending).await.unwrap();
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.pod.as_str(), death.ordinal), (Some(7), "web-0", 0));
    assert_eq!(death.last_lines.last().unwrap().text, "cannot connect: password=[redacted]");
    // The next death is the next one: the first does not come again.
    tapped.cluster.lives().crash(&web_0, "app", &Ending::exit(8, "again")).await.unwrap();
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.ordinal, death.missed_before), (Some(8), 1, 0));
    assert_eq!(death.source(), Source::Kubelet);
    tapped.cancel.cancel();
}

#[tokio::test]
async fn where_pods_opt_in_the_lines_of_the_others_are_not_taken() {
    let cluster = cluster().await;
    let web_0 = web(&cluster, "web-0");
    let mut tapped =
        Tapped::start_with(cluster, None, |config| config.log_lines = node::LogLines::OptIn).await;
    tapped.pod("web-0").await;
    tapped.cluster.lives().crash(&web_0, "app", &Ending::exit(7, "mine alone")).await.unwrap();
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.last_lines.len()), (Some(7), 0));
    tapped.cancel.cancel();
}

#[tokio::test]
async fn an_agent_that_starts_again_repeats_no_death_that_is_safe_and_tells_the_others_again() {
    let state = tempfile::tempdir().unwrap();
    let cluster = cluster().await;
    let web_0 = web(&cluster, "web-0");
    let keep = |config: &mut Config| config.state = Some(state.path().to_owned());
    let mut tapped = Tapped::start_with(cluster, None, keep).await;
    tapped.pod("web-0").await;
    tapped.cluster.lives().crash(&web_0, "app", &Ending::exit(7, "bye")).await.unwrap();
    assert_eq!(tapped.death().await.exit_code, Some(7));
    // The aggregator acknowledges all up to here.
    let file = state.path().join("ledger");
    loop {
        tokio::select! {
            taken = tapped.taken.recv() => if let Some(Taken::Mark(mark)) = taken { mark.reach() },
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
        let is_safe = |saved: String| saved.contains(r#""accounted":1"#) && saved.contains(r#""untold":[]"#);
        if std::fs::read_to_string(&file).is_ok_and(is_safe) {
            break;
        }
    }
    // This one it does not: the agent is killed first.
    tapped.cluster.lives().crash(&web_0, "app", &Ending::exit(8, "bye")).await.unwrap();
    assert_eq!(tapped.death().await.exit_code, Some(8));
    tapped.cancel.cancel();
    let Tapped { cluster, .. } = tapped;
    let mut tapped = Tapped::start_with(cluster, None, keep).await;
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.ordinal, death.missed_before), (Some(8), 1, 0));
    tapped.cancel.cancel();
}

fn exposition(metrics: &Metrics) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    nodetap_runtime::exposition::prometheus(&registry)
}

/// The agent has no log folder, and may ask the API server.
fn without_folder(config: &mut Config) {
    config.pod_logs = "/nowhere/pods".into();
    config.api_log = true;
}

#[tokio::test]
async fn without_the_log_folder_last_lines_come_from_the_api_server_redacted_and_say_so() {
    let cluster = cluster().await;
    let web_0 = web(&cluster, "web-0");
    let mut tapped = Tapped::start_with(cluster, None, without_folder).await;
    tapped.pod("web-0").await;
    tapped.cluster.lives().end(&web_0, "app", &Ending::exit(7, "password=hunter2")).unwrap();
    let death = tapped.death().await;
    assert_eq!(death.last_lines.last().unwrap().text, "password=[redacted]");
    assert_eq!(death.lines_from(), LinesFrom::ApiServer);
    // Nobody has seen this end before the next start: it is the previous one by then.
    let lives = tapped.cluster.lives();
    lives.start(&web_0, "app").unwrap();
    lives.end(&web_0, "app", &Ending::exit(8, "the second")).unwrap();
    lives.back_off(&web_0, "app", BackOff::Waiting).unwrap();
    lives.start(&web_0, "app").unwrap();
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.last_lines.last().unwrap().text.as_str()), (Some(8), "the second"));
    let text = exposition(&tapped.metrics);
    for line in ["nodetap_agent_tap_api_log 1", "nodetap_agent_tap_api_log_deaths_total 2"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    tapped.cancel.cancel();
}

#[tokio::test]
async fn pods_that_opted_out_are_not_asked_for_at_the_api_server_either() {
    let cluster = cluster().await;
    let web_0 = web(&cluster, "web-0");
    let mut tapped = Tapped::start_with(cluster, None, |config| {
        without_folder(config);
        config.skip_namespaces.insert("shop".into());
    })
    .await;
    tapped.pod("web-0").await;
    tapped.cluster.lives().end(&web_0, "app", &Ending::exit(7, "mine alone")).unwrap();
    let death = tapped.death().await;
    assert_eq!((death.last_lines.len(), death.lines_from()), (0, LinesFrom::Unspecified));
    assert_eq!(tapped.cluster.requests("log"), 0);
    tapped.cancel.cancel();
}

#[tokio::test]
async fn an_api_server_that_refuses_logs_costs_no_death_and_is_not_asked_again() {
    let cluster = cluster().await;
    cluster.faults().answer(Scope::Logs, Answer::Forbidden, Times::Always);
    let web_0 = web(&cluster, "web-0");
    let mut tapped = Tapped::start_with(cluster, None, without_folder).await;
    tapped.pod("web-0").await;
    for exit_code in [7, 8] {
        tapped.cluster.lives().end(&web_0, "app", &Ending::exit(exit_code, "bye")).unwrap();
        let death = tapped.death().await;
        assert_eq!((death.exit_code, death.last_lines.len()), (Some(exit_code), 0));
        tapped.cluster.lives().start(&web_0, "app").unwrap();
    }
    assert_eq!(tapped.cluster.requests("log"), 1);
    let text = exposition(&tapped.metrics);
    for line in
        [r#"nodetap_agent_tap_log_lines_missing_total{reason="forbidden"} 2"#, "nodetap_agent_tap_api_log 0"]
    {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    tapped.cancel.cancel();
}

#[tokio::test]
async fn a_death_that_was_handed_over_is_on_the_disk_with_the_ledger_and_told_again_by_the_next_agent() {
    for set in [(|_: &mut Config| {}) as fn(&mut Config), without_folder] {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("ledger");
        let keep = |config: &mut Config| {
            config.state = Some(state.path().to_owned());
            set(config);
        };
        let cluster = cluster().await;
        let web_0 = web(&cluster, "web-0");
        let mut tapped = Tapped::start_with(cluster, None, keep).await;
        tapped.pod("web-0").await;
        tapped.cluster.lives().end(&web_0, "app", &Ending::exit(7, "bye")).unwrap();
        let told = tapped.death().await;
        // A slow disk is not waited for any longer by then.
        let is_kept =
            |saved: String| saved.contains(&told.container_id) && saved.contains(r#""accounted":1"#);
        while !std::fs::read_to_string(&file).is_ok_and(is_kept) {
            tokio::task::yield_now().await;
        }
        tapped.cancel.cancel();
        // Nobody shows that one any longer: the agent itself has to tell it again, and counts none as missed.
        let lives = tapped.cluster.lives();
        lives.start(&web_0, "app").unwrap();
        lives.end(&web_0, "app", &Ending::exit(8, "again")).unwrap();
        lives.start(&web_0, "app").unwrap();
        let Tapped { cluster, .. } = tapped;
        let mut tapped = Tapped::start_with(cluster, None, keep).await;
        assert_eq!(tapped.death().await, told);
        let next = tapped.death().await;
        assert_eq!((next.exit_code, next.ordinal, next.missed_before), (Some(8), 1, 0));
        tapped.cancel.cancel();
    }
}

#[tokio::test]
async fn a_container_in_back_off_is_told_by_the_labels_of_kube_state_metrics_while_it_waits() {
    let cluster = cluster().await;
    let web_0 = web(&cluster, "web-0");
    let mut tapped = Tapped::start(cluster, None).await;
    tapped.pod("web-0").await;
    let lives = tapped.cluster.lives();
    lives.end(&web_0, "app", &Ending::exit(7, "bye")).unwrap();
    lives.back_off(&web_0, "app", BackOff::Waiting).unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    tapped.metrics.register(&mut registry);
    let waits = async |there: bool| {
        loop {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let line = r#"nodetap_agent_tap_back_off{namespace="shop",pod="web-0",uid=""#;
            let reason = r#"container="app",reason="CrashLoopBackOff"} 1"#;
            if text.lines().any(|found| found.starts_with(line) && found.ends_with(reason)) == there {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    waits(true).await;
    tapped.cluster.lives().start(&web_0, "app").unwrap();
    waits(false).await;
    tapped.cancel.cancel();
}

#[tokio::test]
async fn all_pods_are_announced_again_where_the_aggregator_may_have_forgotten_them() {
    let cluster = cluster().await;
    web(&cluster, "web-0");
    let mut tapped = Tapped::start(cluster, None).await;
    tapped.pod("web-0").await;
    for _ in 0..2 {
        tapped.forget.send_modify(|times| *times += 1);
        tapped.pod("web-0").await;
    }
    tapped.cancel.cancel();
}

#[tokio::test]
async fn deaths_that_can_still_be_seen_are_told_again_where_the_journal_lost_what_it_had_acknowledged() {
    for forbidden in [false, true] {
        let cluster = cluster().await;
        if forbidden {
            cluster.faults().kubelet(&cluster.nodes()[0].name, Some(KubeletFault::Forbidden));
        }
        let web_0 = web(&cluster, "web-0");
        let mut tapped = Tapped::start(cluster, None).await;
        tapped.pod("web-0").await;
        let crash = Ending::exit(7, "bye");
        tapped.cluster.lives().crash(&web_0, "app", &crash).await.unwrap();
        let first = tapped.death().await;
        for _ in 0..2 {
            tapped.lose.send_modify(|times| *times += 1);
            let again = tapped.death().await;
            assert_eq!(again.container_id, first.container_id);
            assert_eq!((again.ordinal, again.exit_code), (first.ordinal, Some(7)));
            assert_eq!(again.last_lines.last().unwrap().text, "bye");
            assert_eq!(again.deaths_in_window, 1);
        }
        // Only once each time: what comes next is new.
        tapped.cluster.lives().crash(&web_0, "app", &Ending::exit(8, "again")).await.unwrap();
        let next = tapped.death().await;
        assert_eq!((next.exit_code, next.ordinal, next.missed_before), (Some(8), first.ordinal + 1, 0));
        tapped.cancel.cancel();
    }
}

#[tokio::test]
async fn a_kubelet_that_answers_403_is_left_for_the_pod_watch() {
    let cluster = cluster().await;
    cluster.faults().kubelet(&cluster.nodes()[0].name, Some(KubeletFault::Forbidden));
    let web_0 = web(&cluster, "web-0");
    let mut tapped = Tapped::start(cluster, None).await;
    tapped.pod("web-0").await;
    tapped.cluster.lives().crash(&web_0, "app", &Ending::exit(7, "bye")).await.unwrap();
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.source()), (Some(7), Source::PodWatch));
    let text = exposition(&tapped.metrics);
    assert!(
        text.contains(r#"nodetap_agent_tap_snapshots_total{source="kubelet",outcome="forbidden"} 1"#),
        "{text}"
    );
    tapped.cancel.cancel();
}

#[tokio::test]
async fn a_kubelet_that_heals_is_the_source_again() {
    let cluster = cluster().await;
    let node = cluster.nodes()[0].name.clone();
    cluster.faults().kubelet(&node, Some(KubeletFault::InternalError));
    let web_0 = web(&cluster, "web-0");
    let mut tapped = Tapped::start(cluster, None).await;
    tapped.pod("web-0").await;
    tapped.cluster.lives().crash(&web_0, "app", &Ending::exit(7, "bye")).await.unwrap();
    assert_eq!(tapped.death().await.source(), Source::PodWatch);
    // Registered once: that begins with no source in use.
    let mut registry = prometheus_client::registry::Registry::default();
    tapped.metrics.register(&mut registry);
    tapped.cluster.faults().kubelet(&node, None);
    let in_use = r#"nodetap_agent_tap_source{source="kubelet"} 1"#;
    while !nodetap_runtime::exposition::prometheus(&registry).lines().any(|line| line == in_use) {
        tokio::task::yield_now().await;
    }
    tapped.cluster.lives().end(&web_0, "app", &Ending::exit(8, "again")).unwrap();
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.source()), (Some(8), Source::Kubelet));
    tapped.cancel.cancel();
}

#[tokio::test]
async fn without_the_log_folder_deaths_are_told_all_the_same_and_what_is_not_seen_is_said() {
    let cluster = cluster().await;
    let web_0 = web(&cluster, "web-0");
    let mut tapped =
        Tapped::start_with(cluster, None, |config| config.pod_logs = "/nowhere/pods".into()).await;
    tapped.pod("web-0").await;
    tapped.cluster.lives().end(&web_0, "app", &Ending::exit(7, "unheard")).unwrap();
    let death = tapped.death().await;
    assert_eq!((death.exit_code, death.last_lines.len()), (Some(7), 0));
    assert_eq!(tapped.cluster.requests("log"), 0, "the API server is asked only where that is said");
    let text = exposition(&tapped.metrics);
    for line in [
        "nodetap_agent_tap_pod_log_folder 0",
        "nodetap_agent_tap_api_log 0",
        r#"nodetap_agent_tap_log_lines_missing_total{reason="no_folder"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    tapped.cancel.cancel();
}

#[tokio::test]
async fn lines_are_left_alone_where_a_namespace_or_a_pod_opted_out_and_messages_lose_their_secrets() {
    let cluster = cluster().await;
    let opted_out = PodSpec {
        namespace: "shop".into(),
        name: "web-1".into(),
        node: cluster.nodes()[0].name.clone(),
        annotations: [("nodetap.io/log-lines".to_owned(), "false".to_owned())].into(),
        containers: vec![ContainerSpec::app("app")],
        ..PodSpec::default()
    };
    let in_vault = PodSpec { namespace: "vault".into(), annotations: [].into(), ..opted_out.clone() };
    let pods = [web(&cluster, "web-0"), cluster.lives().run(opted_out).unwrap()];
    let in_vault = cluster.lives().run(in_vault).unwrap();
    let mut tapped = Tapped::start_with(cluster, None, |config| {
        config.skip_namespaces.insert("vault".into());
    })
    .await;
    for name in ["web-0", "web-1"] {
        tapped.pod(name).await;
    }
    let ending = Ending { message: "gave up: password=hunter2".into(), ..Ending::exit(7, "token=hunter2") };
    for (pod, lines) in [(&pods[0], 1), (&pods[1], 0), (&in_vault, 0)] {
        tapped.cluster.lives().end(pod, "app", &ending).unwrap();
        let death = tapped.death().await;
        assert_eq!(
            (death.namespace.as_str(), death.pod.as_str()),
            (pod.namespace.as_str(), pod.name.as_str())
        );
        assert_eq!(death.last_lines.len(), lines);
        assert_eq!(death.message, "gave up: password=[redacted]");
    }
    let text = exposition(&tapped.metrics);
    for line in [
        r#"nodetap_agent_tap_log_lines_missing_total{reason="opted_out"} 2"#,
        // Three messages and one line.
        r#"nodetap_agent_tap_redactions_total{kind="pair"} 4"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    tapped.cancel.cancel();
}

#[tokio::test]
async fn a_kubelet_of_an_unknown_authority_is_told_with_the_way_out() {
    let cluster = cluster().await;
    let node = cluster.nodes()[0].clone();
    let access = KubernetesAccess::new(Some(&node.kubeconfig)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("other.crt");
    std::fs::write(&ca, nodetap_bench::pki::Authority::new("other").unwrap().pem()).unwrap();
    let url: http::Uri = node.kubelet_url.parse().unwrap();
    let address = kubelet::Address { url, ca: Some(ca), skip_verify: false };
    let error = Kubelet::new(access.clone(), address.clone()).pods().await.unwrap_err().to_string();
    assert!(
        error.ends_with("certificate signed by an unknown authority; give its CA with --kubelet-ca"),
        "{error}"
    );
    // Taken all the same where that is said, and said loudly.
    let anybody = kubelet::Address { skip_verify: true, ..address.clone() };
    assert!(Kubelet::new(access.clone(), anybody).pods().await.is_ok());
    let trusted = kubelet::Address { ca: None, ..address };
    assert!(Kubelet::new(access, trusted).pods().await.is_ok());
}
