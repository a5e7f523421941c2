#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use crate::client::Client;
use crate::cluster::Options;

#[tokio::test]
async fn events_are_as_long_as_real_ones_and_some_recur() {
    let cluster = SimulatedCluster::start(Options { nodes: 2, ..Options::default() }).await.unwrap();
    let load = Load { events: 2000.0, deaths: 0.0, ..Load::default() };
    tokio::select! {
        ended = load.run(&cluster) => ended.unwrap(),
        () = async {
            while cluster.truth().event_count() < 1500 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    let list = Client::from_kubeconfig(cluster.kubeconfig()).unwrap().get("/api/v1/events").await.unwrap();
    let json = list.json();
    let items = json["items"].as_array().unwrap();
    let mean = list.body.len() / items.len();
    assert!((700..1500).contains(&mean), "mean length {mean}");
    let recurred = items.iter().filter(|item| item["count"].as_i64() > Some(1)).count();
    assert!(recurred > items.len() / 20, "{recurred} of {} recurred", items.len());
    assert!(items.iter().any(|item| item["series"]["count"].as_i64() > Some(1)), "a series");
}

#[tokio::test]
async fn containers_die_in_many_ways_and_their_restarts_go_on() {
    let options = Options {
        nodes: 2,
        back_off: Duration::from_millis(1),
        back_off_max: Duration::from_millis(1),
        ..Options::default()
    };
    let cluster = SimulatedCluster::start(options).await.unwrap();
    let load =
        Load { events: 0.0, deaths: 300.0, visible: Duration::from_millis(50), pods: 50, ..Load::default() };
    tokio::select! {
        ended = load.run(&cluster) => ended.unwrap(),
        () = async {
            let seen_all = |deaths: &[crate::cluster::Death]| {
                let codes = [0, 1, 2, 7, 137, 139, 143];
                codes.iter().all(|code| deaths.iter().any(|death| death.exit_code == *code))
                    && deaths.iter().any(|death| death.ordinal > 1)
            };
            while !seen_all(&cluster.truth().deaths()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    let deaths = cluster.truth().deaths();
    assert!(deaths.iter().any(|death| death.reason == "OOMKilled"));
    let keys: std::collections::HashSet<_> = deaths.iter().map(crate::cluster::Death::key).collect();
    assert_eq!(keys.len(), deaths.len(), "every death has a key of its own");
}
