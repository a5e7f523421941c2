//! What users of others reported, of the process as it is.

use std::collections::BTreeSet;

use nodetap_aggregator::journal::{Journal, Position};

use crate::running::Home;
use crate::sender::Sender;
use crate::webhook::Webhook;
use crate::{event, within};

/// Defect 8, mustafaakin/kubernetes-event-exporter#24: a hole of 17 s at each change of leader.
#[tokio::test]
async fn defect_8_over_restarts_and_kills_under_load_no_record_is_missing_and_what_was_counted_adds_up() {
    const ROUNDS: u64 = 6;
    const RECORDS: u64 = 600;
    let webhook = Webhook::start().await;
    webhook.answer(200);
    let home = Home::new(serde_json::json!([webhook.receiver()]));
    let (mut held, mut durable, mut acknowledged) = (None, None, 0);
    for round in 0..ROUNDS {
        let running = home.start().await;
        let mut sender = Sender::resume(&home.agent, running.agents, held.take(), durable).await;
        held = Some(sender.watch.clone());
        let (promised, delivered) = (sender.durable.clone(), webhook.taken().len());
        // What was not acknowledged comes again, as an agent sends it, and new records behind it all the while.
        let mut acknowledgements = sender.acknowledged.clone();
        let from = acknowledged;
        let last = from + RECORDS;
        let sending = tokio::spawn(async move {
            for first in (from + 1..=last).step_by(10) {
                if !sender.send((first..first + 10).map(event).collect(), first + 9).await {
                    break;
                }
            }
            if round + 1 == ROUNDS {
                sender.settled().await.then_some(sender)
            } else {
                drop(sender.ended().await);
                None
            }
        });
        if round + 1 < ROUNDS {
            // Somewhere in the middle of it.
            within(acknowledgements.wait_for(|batch| *batch >= 5)).await.unwrap();
            within(webhook.asked(delivered + 5)).await;
            if round % 2 == 0 {
                running.tell_to_end();
                assert!(running.ended().await.success());
            } else {
                running.kill().await;
            }
            sending.await.unwrap();
            acknowledged = from + 10 * *acknowledgements.borrow();
            durable = *promised.borrow();
            continue;
        }
        let _sender = within(sending).await.unwrap().expect("all of it is acknowledged");
        let all: BTreeSet<String> =
            (1..=last).map(|version| format!("event/prod/u{version}/{version}")).collect();
        let taken = || webhook.taken().into_iter().collect::<BTreeSet<_>>();
        within(async {
            while !taken().is_superset(&all) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(taken(), all);
        let (code, report) = home.command(&["reconcile"]).await;
        assert_eq!(code, Some(0), "{report}");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!((report["intake"]["taken"].as_u64(), report["lost"].as_u64()), (Some(RECORDS), Some(0)));
        assert_eq!(report["head"].as_u64(), Some(last));
        running.tell_to_end();
        assert!(running.ended().await.success());
        let journal = home.open_journal();
        let mut position = Position(0);
        let mut versions = Vec::new();
        while let entries = journal.read_from(position, 1_000).await.unwrap()
            && let Some(entry) = entries.last()
        {
            position = entry.position;
            versions.extend(entries.iter().map(|entry| entry.face("prod").unwrap().id));
        }
        assert_eq!(versions.len() as u64, last, "each is there once");
        assert_eq!(versions.into_iter().collect::<BTreeSet<_>>(), all);
        journal.close().await;
    }
}

/// Defect 11, opsgenie/kubernetes-event-exporter#170: a template's error is seen at debug alone, and the event is not sent.
#[tokio::test]
async fn defect_11_a_bad_template_is_refused_by_check_and_one_that_fails_is_logged_counted_and_kept() {
    let webhook = Webhook::start().await;
    webhook.answer(200);
    let with = |template: &str| {
        let mut receiver = webhook.receiver();
        receiver["webhook"]["layout"] = serde_json::json!({"n": template});
        Home::new(serde_json::json!([receiver]))
    };
    let bad = with("{{ .Foo }}");
    let file = bad.configuration();
    for command in [&[][..], &["check", file.to_str().unwrap()]] {
        let (code, said) = bad.command(command).await;
        assert_eq!(code, Some(64), "{said}");
        assert!(
            said.contains("receivers[0].webhook.layout.n: template: line 1: the event has no field"),
            "{said}"
        );
    }

    let home = with("{{ fail \"no\" }}");
    let mut running = home.start().await;
    let mut sender = Sender::connect(&home.agent, running.agents, None).await;
    assert!(sender.send((1..=3).map(event).collect(), 3).await);
    assert!(within(sender.settled()).await);
    let is_told = |said: &Vec<String>| {
        said.iter().any(|line| {
            line.contains("cannot be rendered for the sink") && line.contains(r#""level":"WARN""#)
        })
    };
    let said = within(running.said.wait_for(is_told)).await.unwrap().join("\n");
    assert!(said.contains(r#""sink":"hook""#) && said.contains("layout: "), "{said}");
    let counted = "nodetap_sink_dead_letters_total{sink=\"hook\"} 3\n";
    within(async { while !running.get("/metrics").await.contains(counted) {} }).await;
    running.tell_to_end();
    assert!(running.ended().await.success());
    let journal = home.open_journal();
    let letters = journal.dead_letters(Default::default(), 10).await.unwrap();
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|kept| kept.letter.reason.starts_with("layout: ")), "{letters:?}");
    assert!(webhook.taken().is_empty());
    journal.close().await;
}
