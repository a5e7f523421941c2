#![allow(clippy::unwrap_used)]

use nodetap_runtime::endpoint::Health as _;

use super::*;
use crate::http::AgentHealth;
use crate::{link, tap};

/// Defect 7, bitnami/charts#19406: an exporter stops silently, its log is clean, and its probe says 200 for ever.
#[tokio::test(start_paused = true)]
async fn defect_7_a_watch_that_is_served_nothing_fails_its_probe_by_name_until_it_gets_on() {
    let progress = Progress::default();
    let (_link, link) = tokio::sync::watch::channel(link::Health::default());
    let health = AgentHealth {
        watches: progress.clone(),
        link,
        tap: tap::metrics::Metrics::default(),
        poll_interval: Duration::from_secs(10),
    };
    let failure = || health.live().into_iter().find_map(|check| check.failure);
    progress.state("cluster", WatchState::Watching, "");
    // A quiet cluster is none: the server ends a watch within 310 s.
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(failure(), None);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(failure().unwrap().ends_with(": cluster"), "{:?}", failure());
    // What is known to fail is tried again, and is for `/readyz`: no restart would help.
    progress.state("cluster", WatchState::BackingOff, "503");
    assert_eq!(failure(), None);
    assert!(health.ready().iter().any(|check| check.failure.as_deref() == Some("cluster: 503")));
    progress.state("cluster", WatchState::Watching, "");
    progress.served("cluster", false);
    assert_eq!(failure(), None);
    // The aggregator is away, and the outbox full: that is not the watch's fault either.
    progress.served("cluster", true);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(failure(), None);
}
