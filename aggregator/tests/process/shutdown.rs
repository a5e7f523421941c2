//! SIGTERM: the intake ends, what was taken is delivered as far as a receiver takes it, and the next start goes on from there.

use std::collections::BTreeSet;

use nodetap_wire::AssignedWatch;

use crate::running::{Home, Running};
use crate::sender::Sender;
use crate::webhook::Webhook;
use crate::{event, within};

async fn take(
    home: &Home,
    running: &Running,
    held: Option<AssignedWatch>,
    versions: std::ops::RangeInclusive<u64>,
) -> Sender {
    let mut sender = Sender::connect(&home.agent, running.agents, held).await;
    let last = *versions.end();
    assert!(sender.send(versions.map(event).collect(), last).await);
    assert!(within(sender.settled()).await);
    sender
}

fn ids(versions: std::ops::RangeInclusive<u64>) -> BTreeSet<String> {
    versions.map(|version| format!("event/prod/u{version}/{version}")).collect()
}

/// What a webhook took, each once.
fn once(webhook: &Webhook) -> BTreeSet<String> {
    let taken = webhook.taken();
    let once: BTreeSet<String> = taken.iter().cloned().collect();
    assert_eq!(once.len(), taken.len(), "delivered twice");
    once
}

#[tokio::test]
async fn on_sigterm_the_intake_ends_and_what_was_taken_is_delivered_before_the_end() {
    let webhook = Webhook::start().await;
    let home = Home::new(serde_json::json!([webhook.receiver()]));
    let running = home.start().await;
    let sender = take(&home, &running, None, 1..=400).await;
    within(webhook.asked(1)).await;
    let (agents, held) = (running.agents, sender.watch.clone());
    running.tell_to_end();
    // Its end of the stream is the intake's. All of it is under way to the webhook, or waits behind that.
    within(sender.ended()).await;
    assert!(tokio::net::TcpStream::connect(agents).await.is_err(), "it takes agents still");
    assert!(webhook.taken().is_empty());
    webhook.answer(200);
    assert!(running.ended().await.success());
    assert_eq!(once(&webhook), ids(1..=400));

    // The next start goes on from there, and not from the beginning.
    let running = home.start().await;
    take(&home, &running, Some(held), 401..=410).await;
    running.tell_to_end();
    assert!(running.ended().await.success());
    assert_eq!(once(&webhook), ids(1..=410));
}

#[tokio::test]
async fn what_a_receiver_does_not_take_at_the_end_is_for_the_next_start() {
    let webhook = Webhook::start().await;
    webhook.answer(503);
    let home = Home::new(serde_json::json!([webhook.receiver()]));
    let running = home.start().await;
    take(&home, &running, None, 1..=100).await;
    within(webhook.asked(1)).await;
    running.tell_to_end();
    assert!(running.ended().await.success());
    assert!(webhook.taken().is_empty());

    webhook.answer(200);
    let running = home.start().await;
    running.tell_to_end();
    assert!(running.ended().await.success());
    assert_eq!(once(&webhook), ids(1..=100), "a start that is told to end at once delivers what is there");
}
