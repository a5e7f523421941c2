#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashSet};

use nodetap_wire::Source;

use super::*;
use crate::tap::ledger::{LogSeen, Seen};
use crate::tap::pods::Pod;

const NODE: &str = "node-1";
const BEGAN: i64 = 1_700_000_000_000_000_000;

/// Its container `app` has restarted so often, and shows the last end of it.
fn pod(uid: &str, restarts: u32) -> Pod {
    let container = |number: u32| format!("containerd://{uid}-{number}");
    let mut status = serde_json::json!({"name": "app", "restartCount": restarts, "containerID": container(restarts),
        "state": {"running": {"startedAt": "2024-01-01T00:00:03Z"}}});
    if restarts > 0 {
        status["lastState"] =
            serde_json::json!({"terminated": {"exitCode": 7, "containerID": container(restarts - 1)}});
    }
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": uid, "namespace": "shop", "uid": uid, "creationTimestamp": "2024-01-01T00:00:00Z"},
        "status": {"containerStatuses": [status]}
    }))
    .unwrap()
}

fn seen() -> Seen {
    Seen { at_ns: BEGAN + 1, source: Source::Kubelet }
}

/// One that has looked once, at nothing.
fn primed() -> Ledger {
    let mut ledger = Ledger::new(NODE, BEGAN);
    ledger.note_changes();
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    ledger
}

/// What the aggregator remembers once all of this is durable.
fn remember(remembered: &mut BTreeMap<String, LedgerEntry>, told: &[Told]) {
    for Told { ledger, first, .. } in told {
        if *first {
            remembered.clear();
        }
        for entry in ledger {
            if entry.state.is_empty() {
                remembered.remove(&entry.pod_uid);
            } else {
                remembered.insert(entry.pod_uid.clone(), entry.clone());
            }
        }
    }
}

fn again(remembered: &BTreeMap<String, LedgerEntry>) -> Ledger {
    let entries: Vec<_> = remembered.values().cloned().collect();
    remade(NODE, &entries, false, &Metrics::default())
}

fn uids(told: &Told) -> Vec<&str> {
    told.ledger.iter().map(|entry| entry.pod_uid.as_str()).collect()
}

fn count(metrics: &Metrics, line: &str) -> bool {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    nodetap_runtime::exposition::prometheus(&registry).lines().any(|found| found == line)
}

#[test]
fn each_death_goes_with_what_the_ledger_knows_of_its_pod_and_of_no_other() {
    let mut ledger = primed();
    let mut memory = Memory::new(&mut ledger, Metrics::default());
    let mut deaths = ledger.observe(&pod("a", 1), seen()).deaths;
    deaths.extend(ledger.observe(&pod("b", 1), seen()).deaths);
    ledger.observe(&pod("c", 0), seen());
    let told = memory.tell(&mut ledger, deaths, &[]);
    assert_eq!(told.iter().map(|told| told.records.len()).collect::<Vec<_>>(), [0, 1, 1]);
    assert!(told[0].first && told[0].ledger.len() == 4 && !told[1].first);
    assert_eq!((uids(&told[1]), uids(&told[2])), (vec!["a"], vec!["b"]));
    // An agent that ends between any two of them is followed by one that tells what is not durable, and nothing else.
    for durable in 1..=told.len() {
        let mut remembered = BTreeMap::new();
        remember(&mut remembered, &told[..durable]);
        let mut next = again(&remembered);
        let told_again: Vec<String> = next.take_untold().into_iter().map(|death| death.pod_uid).collect();
        let lacking: [&[&str]; 4] = [&[], &["a", "b"], &["b"], &[]];
        let mut sorted = told_again.clone();
        sorted.sort();
        assert_eq!(sorted, lacking[durable], "{durable}");
        for uid in ["a", "b"] {
            let seen_again = next.observe(&pod(uid, 1), seen());
            assert!(
                seen_again.deaths.is_empty() && seen_again.missed == 0,
                "{durable} {uid}: {seen_again:?}"
            );
        }
    }
}

#[test]
fn deaths_while_no_agent_ran_are_counted_and_those_that_were_told_are_not() {
    let mut ledger = primed();
    let mut memory = Memory::new(&mut ledger, Metrics::default());
    let deaths = ledger.observe(&pod("a", 2), seen()).deaths;
    assert_eq!(deaths.len(), 1);
    let mut remembered = BTreeMap::new();
    remember(&mut remembered, &memory.tell(&mut ledger, deaths, &[]));
    let mut next = again(&remembered);
    assert!(next.is_restored() && next.is_primed());
    let told = next.observe(&pod("a", 5), seen());
    assert_eq!((told.deaths.len(), told.missed), (1, 2), "of 2, 3 and 4 the last is shown");
    assert_eq!(
        (told.deaths[0].ordinal, told.deaths[0].missed_before),
        (4, 2),
        "ordinal 0 was counted before"
    );
    // A pod that came and died in between began in the time of this ledger.
    let told = next.observe(&pod("b", 3), seen());
    assert_eq!((told.deaths.len(), told.missed), (1, 2));
    assert_eq!(
        Ledger::new(NODE, time::now_ns()).observe(&pod("b", 3), seen()).missed,
        0,
        "which a new one does not know"
    );
}

#[test]
fn a_death_that_waits_for_its_last_lines_is_remembered_and_told_by_the_next_agent() {
    let mut ledger = primed();
    let mut memory = Memory::new(&mut ledger, Metrics::default());
    let mut waiting = ledger.observe(&pod("a", 1), seen()).deaths;
    let mut remembered = BTreeMap::new();
    remember(&mut remembered, &memory.tell(&mut ledger, vec![], &waiting.iter().collect::<Vec<_>>()));
    assert_eq!(again(&remembered).take_untold(), waiting);
    // Its lines have come.
    let death = waiting.remove(0);
    remember(&mut remembered, &memory.tell(&mut ledger, vec![death], &[]));
    assert!(again(&remembered).take_untold().is_empty());
}

#[test]
fn only_what_changed_is_told_after_the_first_time_and_what_is_long_gone_is_forgotten() {
    let mut ledger = primed();
    let mut memory = Memory::new(&mut ledger, Metrics::default());
    for uid in ["a", "b"] {
        ledger.observe(&pod(uid, 0), seen());
    }
    let mut remembered = BTreeMap::new();
    remember(&mut remembered, &memory.tell(&mut ledger, vec![], &[]));
    ledger.observe(&pod("a", 0), seen());
    assert!(!ledger.has_changed() && memory.tell(&mut ledger, vec![], &[]).is_empty());
    ledger.log_seen(LogSeen { pod_uid: "b".into(), container: "app".into(), ordinal: 1 });
    let told = memory.tell(&mut ledger, vec![], &[]);
    assert_eq!((told.len(), uids(&told[0])), (1, vec!["b"]));
    remember(&mut remembered, &told);
    let told = again(&remembered).observe(&pod("b", 2), seen());
    assert_eq!(told.deaths.len() as u64 + told.missed, 2);
    ledger.gone("a", BEGAN);
    remember(&mut remembered, &memory.tell(&mut ledger, vec![], &[]));
    assert_eq!(again(&remembered).len(), 2, "a source that lags may show it still");
    ledger.settle(BEGAN + 3_600_000_000_000);
    remember(&mut remembered, &memory.tell(&mut ledger, vec![], &[]));
    assert_eq!(remembered.keys().map(String::as_str).collect::<Vec<_>>(), ["", "b"]);
    memory.forgotten();
    let told = memory.tell(&mut ledger, vec![], &[]);
    assert!(told.len() == 1 && told[0].first && uids(&told[0]) == ["", "b"], "{told:?}");
}

#[test]
fn what_is_partly_lost_counts_no_death_that_may_have_been_told() {
    let mut ledger = primed();
    let mut memory = Memory::new(&mut ledger, Metrics::default());
    let mut deaths = ledger.observe(&pod("a", 3), seen()).deaths;
    deaths.extend(ledger.observe(&pod("b", 3), seen()).deaths);
    let mut remembered = BTreeMap::new();
    remember(&mut remembered, &memory.tell(&mut ledger, deaths, &[]));
    for (version, state, reason) in [(2, None, "foreign"), (1, Some("x"), "torn"), (1, Some("{}"), "content")]
    {
        let entry = remembered.get_mut("a").unwrap();
        entry.version = version;
        if let Some(state) = state {
            let packed = || Packer::new().unwrap().pack(state.as_bytes()).unwrap();
            entry.state = if state == "x" { state.into() } else { packed() };
        }
        let metrics = Metrics::default();
        let entries: Vec<_> = remembered.values().cloned().collect();
        let mut next = remade(NODE, &entries, false, &metrics);
        assert_eq!(next.observe(&pod("a", 4), seen()).missed, 0, "{reason}");
        assert_eq!(next.observe(&pod("b", 5), seen()).missed, 1, "{reason}: what is known is gone on from");
        for line in [
            format!(r#"nodetap_agent_tap_ledger_set_aside_total{{reason="{reason}"}} 1"#),
            r#"nodetap_agent_tap_ledger_origins_total{origin="partial"} 1"#.to_owned(),
        ] {
            assert!(count(&metrics, &line), "{line}");
        }
    }
    remembered.remove("a");
    let entries: Vec<_> = remembered.values().cloned().collect();
    let mut next = remade(NODE, &entries, true, &Metrics::default());
    assert_eq!(next.observe(&pod("a", 4), seen()).missed, 0, "the aggregator had no room for it");
}

#[tokio::test(start_paused = true)]
async fn an_aggregator_that_does_not_answer_is_waited_for_within_a_bound_and_what_stirs_is_kept() {
    let (_silent, mut answer) = oneshot::channel();
    let (stir, mut stirs) = mpsc::channel(4);
    let metrics = Metrics::default();
    let logs = vec![LogSeen { pod_uid: "a".into(), container: "app".into(), ordinal: 1 }];
    stir.send(Stir { logs: logs.clone(), changed: true }).await.unwrap();
    let began = Instant::now();
    let (ledger, early) = recall(NODE, &mut answer, &mut stirs, &metrics).await;
    assert!(began.elapsed() >= ANSWER && began.elapsed() < ANSWER + Duration::from_secs(1));
    assert!(ledger.is_empty() && !ledger.is_restored());
    assert_eq!(early, Stir { logs, changed: true });
    assert!(count(&metrics, r#"nodetap_agent_tap_ledger_origins_total{origin="unanswered"} 1"#));
}

#[tokio::test]
async fn where_nothing_is_remembered_the_ledger_begins_at_once_and_says_why() {
    let nothing = Answer::Remembered { entries: vec![], partial: false };
    for (said, origin) in [(nothing, "nothing"), (Answer::Unsupported, "unsupported")] {
        let (answer, mut answered) = oneshot::channel();
        answer.send(said).unwrap();
        let metrics = Metrics::default();
        let (ledger, _) = recall(NODE, &mut answered, &mut mpsc::channel(1).1, &metrics).await;
        assert!(ledger.is_empty() && !ledger.is_primed());
        let line = format!(r#"nodetap_agent_tap_ledger_origins_total{{origin="{origin}"}} 1"#);
        assert!(count(&metrics, &line), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_without_a_death_are_told_together_and_the_node_is_told_of_each_hour() {
    let mut ledger = primed();
    let mut memory = Memory::new(&mut ledger, Metrics::default());
    assert!(memory.due(&ledger) <= Instant::now());
    memory.tell(&mut ledger, vec![], &[]);
    assert_eq!(memory.due(&ledger), Instant::now() + SIGN);
    ledger.observe(&pod("a", 0), seen());
    assert_eq!(memory.due(&ledger), Instant::now() + GAP);
    memory.tell(&mut ledger, vec![], &[]);
    tokio::time::advance(SIGN).await;
    assert!(memory.due(&ledger) <= Instant::now());
    let told = memory.tell(&mut ledger, vec![], &[]);
    assert_eq!((told.len(), uids(&told[0])), (1, vec![""]));
    tokio::time::advance(GAP).await;
    memory.sign();
    assert!(memory.due(&ledger) <= Instant::now(), "a stream was opened anew");
    assert_eq!(uids(&memory.tell(&mut ledger, vec![], &[])[0]), [""]);
}

#[test]
fn a_ledger_that_is_larger_than_what_is_remembered_says_so_and_stays_within_it() {
    let mut ledger = primed();
    let mut memory = Memory::new(&mut ledger, Metrics::default());
    for number in 0..=MAX_ENTRIES {
        ledger.observe(&pod(&number.to_string(), 0), seen());
    }
    let told = memory.tell(&mut ledger, vec![], &[]);
    assert_eq!((told.len(), told[0].ledger.len()), (1, MAX_ENTRIES));
    let mut remembered = BTreeMap::new();
    remember(&mut remembered, &told);
    let mut next = again(&remembered);
    let left_out =
        (0..=MAX_ENTRIES).map(|number| number.to_string()).find(|uid| !remembered.contains_key(uid));
    assert_eq!(next.observe(&pod(&left_out.unwrap(), 3), seen()).missed, 0);
}
