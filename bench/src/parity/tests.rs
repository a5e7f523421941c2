#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use crate::cluster::{Options, SimulatedCluster};

/// A kubeconfig of a real cluster, such as the one that `ci/cluster up` makes.
const REAL: &str = "NODETAP_REAL_KUBECONFIG";

fn name() -> String {
    format!("nodetap-parity.{:x}", jiff::Timestamp::now().as_nanosecond())
}

#[tokio::test]
async fn the_simulated_api_server_answers_as_a_real_one_was_seen_to() {
    let cluster = SimulatedCluster::start(Options::default()).await.unwrap();
    let client = Client::from_kubeconfig(cluster.kubeconfig()).unwrap();
    assert_eq!(run(&client, &checks(&name())).await.unwrap(), []);
}

#[tokio::test]
async fn a_real_api_server_and_the_simulated_one_answer_alike() {
    let Some(kubeconfig) = std::env::var_os(REAL) else {
        crate::complain(&format!(
            "NOT COMPARED WITH A REAL API SERVER: {REAL} names no kubeconfig (ci/cluster up makes one)"
        ));
        return;
    };
    let cluster = SimulatedCluster::start(Options::default()).await.unwrap();
    let simulated = Client::from_kubeconfig(cluster.kubeconfig()).unwrap();
    let real = Client::from_kubeconfig(std::path::Path::new(&kubeconfig)).unwrap();
    let checks = checks(&name());
    assert_eq!(compare(&real, &simulated, &checks).await.unwrap(), []);
    assert_eq!(run(&real, &checks).await.unwrap(), [], "what is written down of a real one no longer holds");
}
