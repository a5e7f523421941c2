#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use super::*;
use crate::outbox;
use crate::tap::ledger::{LogSeen, Seen};
use crate::tap::pods::Pod;

const NODE: &str = "node-1";

fn crashed() -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-1", "creationTimestamp": "2124-01-01T00:00:00Z"},
        "status": {"containerStatuses": [{"name": "app", "restartCount": 1, "containerID": "containerd://b",
            "state": {"running": {"startedAt": "2124-01-01T00:00:03Z"}},
            "lastState": {"terminated": {"exitCode": 7, "containerID": "containerd://a"}}}]}
    }))
    .unwrap()
}

fn seen() -> Seen {
    Seen { at_ns: 1, source: nodetap_wire::Source::Kubelet }
}

fn saved() -> Vec<u8> {
    let mut ledger = Ledger::new(NODE, 0);
    ledger.end_snapshot(&HashSet::new(), 1);
    assert_eq!(ledger.observe(&crashed(), seen()).deaths.len(), 1);
    ledger.log_seen(LogSeen { pod_uid: "u-1".into(), container: "app".into(), ordinal: 1 });
    encode(&ledger.save(&[]))
}

fn count(metrics: &Metrics, line: &str) -> bool {
    let (mut text, mut registry) = (String::new(), prometheus_client::registry::Registry::default());
    metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text.lines().any(|found| found == line)
}

#[test]
fn a_ledger_that_was_saved_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(NAME), saved()).unwrap();
    let mut ledger = load(&folder.path().join(NAME), NODE).unwrap().unwrap();
    let told = ledger.observe(&crashed(), seen());
    assert!(told.deaths.is_empty() && told.missed == 0, "{told:?}");
    assert!(ledger.is_primed());
}

#[test]
fn a_file_that_is_cut_or_flipped_at_any_byte_is_refused_and_never_read_as_another() {
    let whole = saved();
    for length in 0..whole.len() {
        assert!(decode(&whole[..length]).is_err(), "cut at {length}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            // A hexadecimal digit of the checksum may be of either case.
            if let Ok(json) = decode(&flipped) {
                assert_eq!(json, decode(&whole).unwrap(), "byte {at}");
            }
        }
    }
    let longer = [whole, b"x".to_vec()].concat();
    assert!(matches!(decode(&longer), Err(Bad::Torn { .. })));
}

#[test]
fn a_bad_file_is_put_aside_and_counted_and_the_agent_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    let torn = &saved()[..100];
    let other = encode(&Ledger::new("node-2", 0).save(&[]));
    for (bytes, reason) in
        [(torn, "torn"), (b"GIF89a\n", "foreign"), (&other, "node"), (&encode(b"{}{"), "content")]
    {
        fs::write(&path, bytes).unwrap();
        let metrics = Metrics::default();
        let (ledger, _saver) = Saver::open(folder.path(), NODE, &metrics);
        assert!(ledger.is_empty());
        assert!(!path.exists() && fs::read(path.with_extension("bad")).unwrap() == bytes, "{reason}");
        let line = format!(r#"nodetap_agent_tap_ledger_set_aside_total{{reason="{reason}"}} 1"#);
        assert!(count(&metrics, &line), "{line}");
    }
}

#[test]
fn a_file_that_was_being_written_when_the_agent_died_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    replace(&path, &saved()).unwrap();
    fs::write(path.with_extension("new"), &saved()[..50]).unwrap();
    assert_eq!(load(&path, NODE).unwrap().unwrap().len(), 1);
    replace(&path, &saved()).unwrap();
    assert!(!path.with_extension("new").exists());
}

#[tokio::test]
async fn what_the_ledger_calls_reported_is_kept_with_it_until_it_is_safe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state").join(NAME);
    let metrics = Metrics::default();
    let (mut ledger, mut saver) = Saver::open(path.parent().unwrap(), NODE, &metrics);
    let (intake, mut taken) = outbox::intake();
    assert!(saver.due(&ledger).is_none(), "nothing has happened");
    let deaths = ledger.observe(&crashed(), seen()).deaths;
    saver.keep(&ledger, &deaths, [].iter()).await;
    saver.mark(&intake).await.unwrap();
    // An agent that starts now tells it again, and knows that it did.
    // A slow disk is not waited for any longer by then.
    let mut again = loop {
        match load(&path, NODE).unwrap() {
            Some(ledger) => break ledger,
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(again.take_untold(), deaths);
    assert!(again.take_untold().is_empty());
    assert!(again.observe(&crashed(), seen()).deaths.is_empty());
    saver.reach(0);
    assert!(saver.due(&ledger).is_none(), "nothing is safe yet");
    let Some(Taken::Mark(mark)) = taken.recv().await else { unreachable!() };
    let mut reached = saver.reached();
    mark.reach();
    reached.changed().await.unwrap();
    saver.reach(*reached.borrow());
    assert!(saver.due(&ledger).is_some(), "the file is to say so");
    saver.save(&ledger, [].iter());
    let Saver { files, .. } = saver;
    drop(files);
    // The thread ends when it has written all.
    while !load(&path, NODE).unwrap().unwrap().take_untold().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_does_not_wait_for_a_disk_that_does_not_answer() {
    let (files, _never_read) = bounded(1);
    let mut saver = Saver {
        files,
        reached: watch::Sender::new(0),
        number: 0,
        untold: VecDeque::new(),
        revision: 0,
        not_before: Instant::now(),
    };
    let ledger = Ledger::new(NODE, 0);
    let death = ContainerDied::default();
    let began = Instant::now();
    // The first finds room and is not written, the second finds none.
    for _ in 0..2 {
        saver.keep(&ledger, std::slice::from_ref(&death), [].iter()).await;
        assert!(saver.due(&ledger).is_some(), "it is to be written later");
    }
    assert!(began.elapsed() >= 2 * PATIENCE && began.elapsed() < 3 * PATIENCE);
    for _ in 0..UNTOLD {
        saver.keep(&ledger, std::slice::from_ref(&death), [].iter()).await;
    }
    assert_eq!(saver.untold.len(), UNTOLD);
}

#[test]
fn a_disk_that_cannot_be_written_is_counted_and_keeps_nobody_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let metrics = Metrics::default();
    let (sender, receiver) = bounded(2);
    sender.send(Save { bytes: saved(), written: None }).unwrap();
    drop(sender);
    write_all(&receiver, &file.join(NAME), &metrics);
    assert!(count(&metrics, "nodetap_agent_tap_ledger_save_failures_total 1"));
    let (ledger, _saver) = Saver::open(&file, NODE, &metrics);
    assert!(ledger.is_empty());
}
