#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::client::Client;

async fn cluster() -> (SimulatedCluster, Client) {
    with(Options::default()).await
}

async fn with(options: Options) -> (SimulatedCluster, Client) {
    let cluster = SimulatedCluster::start(options).await.unwrap();
    let client = Client::from_kubeconfig(cluster.kubeconfig()).unwrap();
    (cluster, client)
}

fn event(name: &str, kind: &'static str) -> Event {
    Event {
        metadata: Metadata { name: name.to_owned(), ..Metadata::default() },
        involved_object: Reference { kind: "Pod".to_owned(), name: "web".to_owned(), ..Reference::default() },
        reason: "Tested".to_owned(),
        r#type: kind.to_owned(),
        count: 1,
        ..Event::default()
    }
}

fn pod(name: &str) -> PodSpec {
    PodSpec {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        node: "node-1".to_owned(),
        containers: vec![ContainerSpec::app("app")],
        ..PodSpec::default()
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn kind_and_name(line: &Value) -> (&str, &str) {
    (line["type"].as_str().unwrap(), line["object"]["metadata"]["name"].as_str().unwrap_or(""))
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_consistent_state() {
    let (cluster, client) = cluster().await;
    for name in ["a", "b", "c"] {
        cluster.post_event("shop", event(name, "Normal")).unwrap();
    }
    let first = client.get("/api/v1/events?limit=2").await.unwrap().json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["kind"], "EventList");
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    assert!(first["items"][0].get("kind").is_none(), "a list's items name no kind");
    cluster.post_event("shop", event("b2", "Normal")).unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = client.get(&format!("/api/v1/events?limit=2&continue={token}")).await.unwrap().json();
    assert_eq!(names(&second), ["c"], "what came after the first page is not in the second");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_page_after_a_compaction_is_refused_with_410() {
    let (cluster, client) = cluster().await;
    for name in ["a", "b", "c"] {
        cluster.post_event("shop", event(name, "Normal")).unwrap();
    }
    let first = client.get("/api/v1/events?limit=1").await.unwrap().json();
    cluster.post_event("shop", event("d", "Normal")).unwrap();
    cluster.compact();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = client.get(&format!("/api/v1/events?limit=1&continue={token}")).await.unwrap();
    assert_eq!((second.status, second.json()["reason"].as_str().unwrap()), (410, "Expired"));
}

#[tokio::test]
async fn a_watch_goes_on_after_its_resource_version_and_tells_recurrences_as_modified() {
    let (cluster, client) = cluster().await;
    let seen = cluster.post_event("shop", event("a", "Normal")).unwrap();
    let mut watch = client
        .watch(&format!("/api/v1/events?watch=1&resourceVersion={}", seen.resource_version))
        .await
        .unwrap();
    cluster.post_event("shop", event("b", "Normal")).unwrap();
    let line = watch.next().await.unwrap().unwrap();
    assert_eq!(kind_and_name(&line), ("ADDED", "b"));
    assert_eq!(line["object"]["kind"], "Event");
    assert_eq!(line["object"]["lastTimestamp"], Value::Null);
    assert!(line["object"]["metadata"]["managedFields"][0]["fieldsV1"].is_object());
    let patch = json!({"count": 2}).to_string();
    let path = "/api/v1/namespaces/shop/events/b";
    let kind = "application/strategic-merge-patch+json";
    assert_eq!(client.send(Method::PATCH, path, kind, patch).await.unwrap().status, 200);
    let line = watch.next().await.unwrap().unwrap();
    assert_eq!(kind_and_name(&line), ("MODIFIED", "b"));
    assert_eq!(line["object"]["count"], 2);
    assert_eq!(line["object"]["reason"], "Tested", "a patch leaves the rest as it was");
    let truth = cluster.truth().events();
    assert_eq!(truth.len(), 3);
    assert_eq!(truth[2].resource_version, line["object"]["metadata"]["resourceVersion"].as_str().unwrap());
    assert_eq!(truth[2].uid, line["object"]["metadata"]["uid"].as_str().unwrap());
}

#[tokio::test]
async fn a_watch_from_before_the_compaction_is_told_410_within_a_200() {
    let (cluster, client) = cluster().await;
    let seen = cluster.post_event("shop", event("a", "Normal")).unwrap();
    for name in ["b", "c", "d"] {
        cluster.post_event("shop", event(name, "Normal")).unwrap();
    }
    cluster.compact();
    let path = format!("/api/v1/events?watch=1&resourceVersion={}", seen.resource_version);
    let mut watch = client.watch(&path).await.unwrap();
    let line = watch.next().await.unwrap().unwrap();
    assert_eq!(line["type"], "ERROR");
    assert_eq!(line["object"]["code"], 410);
    assert_eq!(line["object"]["reason"], "Expired");
    assert_eq!(line["object"]["message"], "The resourceVersion for the provided watch is too old.");
    assert_eq!(watch.next().await.unwrap(), None);
    cluster.faults().empty_when_stale(true);
    assert_eq!(client.watch(&path).await.unwrap().next().await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_from_nowhere_begins_with_what_is_there() {
    let (cluster, client) = cluster().await;
    cluster.post_event("shop", event("a", "Normal")).unwrap();
    for from in ["", "&resourceVersion=0"] {
        let mut watch = client.watch(&format!("/api/v1/events?watch=true{from}")).await.unwrap();
        assert_eq!(kind_and_name(&watch.next().await.unwrap().unwrap()), ("ADDED", "a"));
    }
}

#[tokio::test]
async fn initial_events_end_with_one_bookmark() {
    let (cluster, client) = cluster().await;
    cluster.post_event("shop", event("a", "Normal")).unwrap();
    let path = "/api/v1/events?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = client.watch(path).await.unwrap();
    assert_eq!(kind_and_name(&watch.next().await.unwrap().unwrap()), ("ADDED", "a"));
    let bookmark = watch.next().await.unwrap().unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], cluster.revision().to_string());
    cluster.post_event("shop", event("b", "Normal")).unwrap();
    assert_eq!(kind_and_name(&watch.next().await.unwrap().unwrap()), ("ADDED", "b"));
}

#[tokio::test]
async fn a_watch_ends_cleanly_at_its_time_out() {
    let (_cluster, client) = cluster().await;
    let mut watch = client.watch("/api/v1/events?watch=1&timeoutSeconds=1").await.unwrap();
    assert_eq!(watch.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_namespace_and_a_selector_narrow_lists_and_watches() {
    let (cluster, client) = cluster().await;
    cluster.post_event("shop", event("a", "Normal")).unwrap();
    cluster.post_event("shop", event("b", "Warning")).unwrap();
    cluster.post_event("bank", event("c", "Warning")).unwrap();
    let list =
        client.get("/api/v1/namespaces/shop/events?fieldSelector=type%21%3DNormal").await.unwrap().json();
    assert_eq!(names(&list), ["b"]);
    let mut watch =
        client.watch("/api/v1/namespaces/shop/events?watch=1&fieldSelector=type%3DWarning").await.unwrap();
    assert_eq!(kind_and_name(&watch.next().await.unwrap().unwrap()), ("ADDED", "b"));
    let patch = json!({"type": "Warning"}).to_string();
    client
        .send(Method::PATCH, "/api/v1/namespaces/shop/events/a", "application/merge-patch+json", patch)
        .await
        .unwrap();
    let line = watch.next().await.unwrap().unwrap();
    assert_eq!(kind_and_name(&line), ("ADDED", "a"), "what begins to match is new to this watch");
}

#[tokio::test]
async fn no_known_token_no_answer() {
    let (_cluster, client) = cluster().await;
    for token in [None, Some("wrong")] {
        let refused = client.with_token(token).get("/api/v1/events").await.unwrap();
        assert_eq!((refused.status, refused.json()["reason"].as_str().unwrap()), (401, "Unauthorized"));
    }
}

#[tokio::test]
async fn events_expire_in_a_burst_of_deletions() {
    let (cluster, client) = with(Options { event_ttl: Duration::from_millis(1), ..Options::default() }).await;
    let revision = cluster.revision();
    cluster.post_event("shop", event("a", "Normal")).unwrap();
    cluster.post_event("shop", event("b", "Normal")).unwrap();
    let mut watch =
        client.watch(&format!("/api/v1/events?watch=1&resourceVersion={revision}")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let line = watch.next().await.unwrap().unwrap();
        seen.push(format!("{} {}", line["type"].as_str().unwrap(), kind_and_name(&line).1));
    }
    assert_eq!(seen, ["ADDED a", "ADDED b", "DELETED a", "DELETED b"]);
    assert_eq!(cluster.truth().event_count(), 2, "a deletion is no occurrence");
}

#[tokio::test]
async fn a_cut_watch_breaks_in_the_middle_of_a_line() {
    let (cluster, client) = cluster().await;
    let mut watch = client.watch("/api/v1/events?watch=1").await.unwrap();
    cluster.until_watches(|open| !open.is_empty()).await;
    assert_eq!(cluster.open_event_watches()[0].user, "admin");
    cluster.faults().cut_event_watches(CutHow::MiddleOfLine);
    assert!(watch.next().await.is_err());
    let mut watch = client.watch("/api/v1/events?watch=1").await.unwrap();
    cluster.until_watches(|open| !open.is_empty()).await;
    cluster.faults().cut_event_watches(CutHow::Clean);
    assert_eq!(watch.next().await.unwrap(), None);
}

#[tokio::test]
async fn requests_are_refused_as_often_as_asked() {
    let (cluster, client) = cluster().await;
    let faults = cluster.faults();
    faults.answer(Scope::EventLists, Answer::TooManyRequests(7), Times::Next(1));
    faults.answer(Scope::EventLists, Answer::Forbidden, Times::Next(1));
    faults.answer(Scope::EventLists, Answer::InternalError, Times::Next(1));
    let refused = client.get("/api/v1/events").await.unwrap();
    assert_eq!((refused.status, refused.retry_after.as_deref()), (429, Some("7")));
    assert_eq!(client.get("/api/v1/events").await.unwrap().json()["reason"], "Forbidden");
    assert_eq!(client.get("/api/v1/events").await.unwrap().status, 500);
    assert_eq!(client.get("/api/v1/events").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_stalled_watch_says_nothing_until_it_is_let_go() {
    let (cluster, client) = cluster().await;
    cluster.faults().stall_event_watches(true);
    let mut watch = client.watch("/api/v1/events?watch=1").await.unwrap();
    cluster.post_event("shop", event("a", "Normal")).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());
    cluster.faults().stall_event_watches(false);
    assert_eq!(kind_and_name(&watch.next().await.unwrap().unwrap()), ("ADDED", "a"));
}

#[tokio::test]
async fn a_dribbled_line_and_an_oversized_one_arrive_whole() {
    let (cluster, client) = cluster().await;
    let mut watch = client.watch("/api/v1/events?watch=1").await.unwrap();
    cluster.until_watches(|open| !open.is_empty()).await;
    cluster.faults().dribble_lines(1);
    cluster.post_event("shop", event("a", "Normal")).unwrap();
    assert_eq!(kind_and_name(&watch.next().await.unwrap().unwrap()), ("ADDED", "a"));
    cluster.post_oversized_event(3 << 20).unwrap();
    let line = watch.next().await.unwrap().unwrap();
    assert_eq!(line["object"]["message"].as_str().unwrap().len(), 3 << 20);
}

#[tokio::test]
async fn an_api_server_that_was_down_goes_on_where_it_was() {
    let (cluster, client) = cluster().await;
    let mut watch = client.watch("/api/v1/events?watch=1").await.unwrap();
    cluster.until_watches(|open| !open.is_empty()).await;
    cluster.faults().api_server_down(true);
    assert!(watch.next().await.is_err());
    assert!(client.get("/api/v1/events").await.is_err());
    cluster.faults().api_server_down(false);
    let mut again = client.get("/api/v1/events").await;
    while again.is_err() {
        again = client.get("/api/v1/events").await;
    }
    assert_eq!(again.unwrap().status, 200);
}

#[tokio::test]
async fn the_kubelet_shows_a_crash_and_then_the_restart() {
    let (cluster, _) = cluster().await;
    let node = &cluster.nodes()[0];
    let ca = std::fs::read(cluster.ca_path()).unwrap();
    let kubelet = Client::new(&node.kubelet_url, &ca, Some(&node.token)).unwrap();
    let lives = cluster.lives();
    let web = lives.run(pod("web")).unwrap();
    let death = lives.end(&web, "app", &Ending::exit(7, "panic: no such table")).unwrap();

    let pods = kubelet.get("/pods").await.unwrap().json();
    assert_eq!((pods["kind"].as_str(), pods["apiVersion"].as_str()), (Some("PodList"), Some("v1")));
    let status = &pods["items"][0]["status"]["containerStatuses"][0];
    assert_eq!(status["state"]["terminated"]["exitCode"], 7);
    assert_eq!(status["state"]["terminated"]["containerID"], death.container_id.as_str());
    assert_eq!(status["restartCount"], 0);

    lives.start(&web, "app").unwrap();
    let pods = kubelet.get("/pods").await.unwrap().json();
    let status = &pods["items"][0]["status"]["containerStatuses"][0];
    assert!(status["state"]["running"]["startedAt"].is_string());
    assert_eq!(status["lastState"]["terminated"]["containerID"], death.container_id.as_str());
    assert_eq!(status["restartCount"], 1);
    assert_ne!(status["containerID"], death.container_id.as_str());
    assert_eq!(pods["items"][0]["metadata"]["uid"], web.uid.as_str());

    lives.end(&web, "app", &Ending::out_of_memory("")).unwrap();
    lives.back_off(&web, "app", BackOff::Waiting).unwrap();
    let pods = kubelet.get("/pods").await.unwrap().json();
    let status = &pods["items"][0]["status"]["containerStatuses"][0];
    assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(status["lastState"]["terminated"]["reason"], "OOMKilled");
    assert_eq!(status["restartCount"], 1);

    let truth = cluster.truth().deaths();
    assert_eq!(truth.iter().map(|death| death.exit_code).collect::<Vec<_>>(), [7, 137]);
    assert_eq!(truth[0].last_line, "panic: no such table");
}

#[tokio::test]
async fn a_kubelet_refuses_by_request_and_what_nobody_may_ask() {
    let (cluster, _) = cluster().await;
    let node = &cluster.nodes()[0];
    let ca = std::fs::read(cluster.ca_path()).unwrap();
    let kubelet = Client::new(&node.kubelet_url, &ca, Some(&node.token)).unwrap();
    assert_eq!(kubelet.with_token(None).get("/pods").await.unwrap().status, 401);
    assert_eq!(kubelet.get("/configz").await.unwrap().status, 403);
    cluster.faults().kubelet(&node.name, Some(KubeletFault::Forbidden));
    assert_eq!(kubelet.get("/pods").await.unwrap().status, 403);
    cluster.faults().kubelet(&node.name, None);
    assert_eq!(kubelet.get("/pods").await.unwrap().status, 200);
}

#[tokio::test]
async fn of_a_containers_logs_the_last_dead_one_is_kept() {
    let (cluster, client) = cluster().await;
    let lives = cluster.lives();
    let web = lives.run(pod("web")).unwrap();
    for round in 0..3 {
        lives.end(&web, "app", &Ending::exit(1, &format!("round {round}"))).unwrap();
        lives.start(&web, "app").unwrap();
    }
    let folder = cluster.nodes()[0].pod_logs.join(format!("shop_web_{}", web.uid)).join("app");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["2.log", "3.log"]);
    let text = std::fs::read_to_string(folder.join("2.log")).unwrap();
    let fields: Vec<_> = text.trim_end().splitn(4, ' ').collect();
    assert_eq!(fields[1..], ["stderr", "F", "round 2"]);
    assert_eq!(fields[0].len(), "2026-01-01T00:00:00.000000000Z".len());
    let path = "/api/v1/namespaces/shop/pods/web/log?previous=true&container=app&tailLines=5";
    assert_eq!(client.get(path).await.unwrap().body, "round 2\n");
    lives.remove(&web).unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn the_log_that_is_answered_is_that_of_the_state_that_it_is_asked_of() {
    let (cluster, client) = cluster().await;
    let lives = cluster.lives();
    let web = lives.create(pod("web")).unwrap();
    let log = async |query: &str| {
        let path = format!("/api/v1/namespaces/shop/pods/web/log?container=app&{query}");
        let answer = client.get(&path).await.unwrap();
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    };
    let (status, body) = log("").await;
    assert!(status == 400 && body.contains("is waiting to start: ContainerCreating"), "{body}");
    lives.start(&web, "app").unwrap();
    lives.end(&web, "app", &Ending::exit(1, "the first")).unwrap();
    // It has ended, and nothing was before it.
    assert_eq!(log("").await, (200, "the first\n".to_owned()));
    let (status, body) = log("previous=true").await;
    assert!(status == 400 && body.contains("previous terminated container"), "{body}");
    lives.back_off(&web, "app", BackOff::Waiting).unwrap();
    assert_eq!(log("previous=true").await, (200, "the first\n".to_owned()));
    lives.start(&web, "app").unwrap();
    assert_eq!(log("previous=true").await, (200, "the first\n".to_owned()));
    let long = "x".repeat(40_000);
    lives.write(&web, "app", "stdout", &["before", &long, "after"]).unwrap();
    // Of the long line the last two of its three records, and each line has one time.
    let (_, body) = log("tailLines=3&timestamps=true").await;
    let lines: Vec<&str> = body.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!((lines[0].len(), lines[1]), (40_000 - 16 * 1024, "after"));
    assert_eq!(log("limitBytes=3").await.1, "bef");
    std::fs::remove_dir_all(cluster.nodes()[0].pod_logs.join(format!("shop_web_{}", web.uid))).unwrap();
    let (status, body) = log("previous=true").await;
    assert!(status == 200 && body.starts_with("failed to try resolving symlinks in path"), "{body}");
}

#[tokio::test]
async fn a_pod_watch_is_of_one_node_and_has_bookmarks() {
    let options = Options { nodes: 2, bookmark_interval: Duration::from_millis(20), ..Options::default() };
    let (cluster, client) = with(options).await;
    let path = "/api/v1/pods?watch=1&allowWatchBookmarks=true&fieldSelector=spec.nodeName%3Dnode-2";
    let mut watch = client.watch(path).await.unwrap();
    cluster.lives().create(pod("here")).unwrap();
    let there = cluster.lives().create(PodSpec { node: "node-2".to_owned(), ..pod("there") }).unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&"BOOKMARK".to_owned()) || !seen.contains(&"DELETED".to_owned()) {
        let line = watch.next().await.unwrap().unwrap();
        let (kind, name) = kind_and_name(&line);
        assert_ne!(name, "here");
        if kind == "ADDED" {
            cluster.lives().remove(&there).unwrap();
        }
        seen.push(kind.to_owned());
    }
}

#[tokio::test]
async fn a_crash_loop_writes_the_events_of_a_kubelet_and_counts_them_up() {
    let options = Options {
        back_off: Duration::from_millis(1),
        back_off_max: Duration::from_millis(1),
        ..Options::default()
    };
    let (cluster, client) = with(options).await;
    let web = cluster.lives().run(pod("web")).unwrap();
    for _ in 0..4 {
        cluster.lives().crash(&web, "app", &Ending::exit(1, "boom")).await.unwrap();
    }
    let list = client.get("/api/v1/namespaces/shop/events").await.unwrap().json();
    let events = list["items"].as_array().unwrap();
    let of = |reason: &str| events.iter().find(|event| event["reason"] == reason).unwrap();
    assert_eq!(of("BackOff")["count"], 3);
    assert_eq!(of("Started")["count"], 5);
    assert_eq!(of("Started")["source"], json!({"component": "kubelet", "host": "node-1"}));
    let scheduled = of("Scheduled");
    assert_eq!((&scheduled["source"], &scheduled["firstTimestamp"]), (&json!({}), &Value::Null));
    assert!(scheduled["eventTime"].is_string());
    assert!(!events.iter().any(|event| event["reason"] == "ContainerDied"), "a kubelet tells of no death");
}

#[tokio::test]
async fn the_admin_endpoint_sets_faults_and_tells_the_truth() {
    let (cluster, client) = cluster().await;
    cluster.post_event("shop", event("a", "Normal")).unwrap();
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Full<bytes::Bytes>>();
    let send = |method: Method, path: &str| {
        let uri = format!("{}{path}", cluster.admin_url());
        let request =
            http::Request::builder().method(method).uri(uri).body(http_body_util::Full::default()).unwrap();
        let answer = http.request(request);
        async move {
            let body =
                http_body_util::BodyExt::collect(answer.await.unwrap().into_body()).await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()
        }
    };
    assert_eq!(send(Method::GET, "/truth").await, json!({"events": 1, "deaths": 0}));
    send(Method::POST, "/answer?scope=lists&with=403&times=1").await;
    assert_eq!(client.get("/api/v1/events").await.unwrap().status, 403);
    assert!(send(Method::POST, "/cut?how=sideways").await["error"].is_string());
}
