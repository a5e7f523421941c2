//! What is remembered of an agent's ledger, over the whole way: told with the deaths, and given back to the process that comes after.

use nodetap_agent::outbox::Told;
use nodetap_agent::tap::memory::Answer;
use nodetap_aggregator::admit::metrics::{Recalled, RecalledLabels};
use nodetap_wire::{LedgerEntry, LedgerOrigin, to_agent};

use super::*;

fn entry(uid: &str, state: &'static str) -> LedgerEntry {
    LedgerEntry { pod_uid: uid.into(), version: 1, state: state.into() }
}

async fn tell(agent: &Agent, first: bool, records: Vec<Record>, ledger: Vec<LedgerEntry>) {
    agent.intake.take(Taken::Told(Told { records, ledger, first })).await.unwrap();
}

/// Until it is durable and acknowledged.
async fn told(
    (agent, aggregator): (&Agent, &Aggregator),
    first: bool,
    records: Vec<Record>,
    ledger: Vec<LedgerEntry>,
) {
    let before = aggregator.journal.nodes().len();
    tell(agent, first, records, ledger).await;
    eventually(|| aggregator.journal.nodes().len() > before).await;
    agent.all_acknowledged().await;
}

fn remembered(entries: Vec<LedgerEntry>) -> Answer {
    Answer::Remembered { entries, partial: false }
}

fn recalled(aggregator: &Aggregator, outcome: Recalled) -> u64 {
    aggregator.metrics.ledgers_recalled.get_or_create_owned(&RecalledLabels { outcome }).get()
}

#[tokio::test]
async fn an_agent_without_a_ledger_is_given_what_became_durable_with_the_deaths_of_the_one_before_it() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let (first, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    assert_eq!(answer.await.unwrap(), remembered(vec![]));
    told((&first, &aggregator), true, vec![], vec![entry("", "node"), entry("p", "lives")]).await;
    told((&first, &aggregator), false, vec![death("node-1", 1)], vec![entry("p", "died once")]).await;
    // This one is under way when the agent is killed, and does not become durable.
    aggregator.journal.hold(true);
    let begun = aggregator.journal.begun();
    tell(&first, false, vec![death("node-1", 2)], vec![entry("p", "died twice")]).await;
    eventually(|| aggregator.journal.begun() > begun).await;
    first.kill().await;
    aggregator.journal.fail(true);
    aggregator.journal.hold(false);
    eventually(|| aggregator.metrics.not_kept.get() > 0).await;
    aggregator.journal.fail(false);
    let (second, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    assert_eq!(answer.await.unwrap(), remembered(vec![entry("", "node"), entry("p", "died once")]));
    // The second tells again the death that was not kept.
    told((&second, &aggregator), true, vec![], vec![entry("", "node"), entry("p", "died once")]).await;
    told((&second, &aggregator), false, vec![death("node-1", 2)], vec![entry("p", "died twice")]).await;
    assert_eq!(numbers(aggregator.journal.records()), [1, 2]);
    second.kill().await;
    let (_third, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    assert_eq!(answer.await.unwrap(), remembered(vec![entry("", "node"), entry("p", "died twice")]));
    assert_eq!((recalled(&aggregator, Recalled::nothing), recalled(&aggregator, Recalled::whole)), (1, 2));
}

#[tokio::test]
async fn an_agent_is_given_what_is_remembered_of_its_own_node_alone() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let (first, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    answer.await.unwrap();
    told((&first, &aggregator), true, vec![], vec![entry("p", "of node-1")]).await;
    let (second, answer, _) = Agent::start_asking(&authority, "node-2", aggregator.address);
    assert_eq!(answer.await.unwrap(), remembered(vec![]));
    // Whatever it says is said of its own node.
    told((&second, &aggregator), true, vec![], vec![entry("p", "of node-2")]).await;
    first.kill().await;
    let (_first, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    assert_eq!(answer.await.unwrap(), remembered(vec![entry("p", "of node-1")]));
}

#[tokio::test]
async fn a_mere_reconnect_asks_for_nothing_and_what_was_not_acknowledged_is_told_again() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let (agent, answer, mut again) = Agent::start_asking(&authority, "node-1", proxy.address);
    answer.await.unwrap();
    told((&agent, &aggregator), true, vec![], vec![entry("", "node"), entry("p", "lives")]).await;
    aggregator.journal.fail(true);
    tell(&agent, false, vec![death("node-1", 1)], vec![entry("p", "died once")]).await;
    eventually(|| agent.ended(Reason::unavailable) > 0).await;
    // The aggregator goes, and another process of it has what the first one made durable.
    let journal = aggregator.journal.clone();
    aggregator.stop().await;
    journal.fail(false);
    let identity = authority.server("nodetap-aggregator");
    let aggregator = Aggregator::start_with(identity, Limits::default(), journal).await;
    proxy.lead_to(aggregator.address);
    proxy.cut();
    aggregator.journal.holds(1).await;
    agent.all_acknowledged().await;
    assert_eq!(numbers(aggregator.journal.records()), [1]);
    assert!(!again.has_changed().unwrap(), "what was remembered is there still");
    assert_eq!(recalled(&aggregator, Recalled::whole) + recalled(&aggregator, Recalled::nothing), 0);
    agent.kill().await;
    let (_next, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    assert_eq!(answer.await.unwrap(), remembered(vec![entry("", "node"), entry("p", "died once")]));
    assert!(again.changed().await.is_err(), "it has ended");
}

#[tokio::test]
async fn an_aggregator_that_has_lost_what_it_remembered_asks_once_for_all_of_it() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let (agent, answer, mut again) = Agent::start_asking(&authority, "node-1", aggregator.address);
    answer.await.unwrap();
    told((&agent, &aggregator), true, vec![], vec![entry("", "node"), entry("p", "lives")]).await;
    aggregator.journal.forget_ledgers();
    for number in 1..=3 {
        told((&agent, &aggregator), false, vec![death("node-1", number)], vec![entry("p", "died")]).await;
    }
    again.wait_for(|times| *times == 1).await.unwrap();
    assert!(aggregator.journal.ledger_of("node-1").is_empty(), "a part is not taken for the whole");
    told((&agent, &aggregator), true, vec![], vec![entry("", "node"), entry("p", "died")]).await;
    assert_eq!(aggregator.journal.ledger_of("node-1"), ["", "p"]);
    assert_eq!((*again.borrow(), aggregator.metrics.ledgers_asked_again.get()), (1, 1));
    assert_eq!(numbers(aggregator.journal.records()), [1, 2, 3], "the deaths were taken all the same");
}

#[tokio::test]
async fn what_is_remembered_goes_with_an_agent_that_tells_nothing_of_its_ledger() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let (agent, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    answer.await.unwrap();
    told((&agent, &aggregator), true, vec![], vec![entry("p", "lives")]).await;
    agent.kill().await;
    // Of an older version: from now on deaths are told that no ledger calls reported.
    let older = Agent::start(&authority, "node-1", aggregator.address);
    eventually(|| aggregator.journal.ledger_of("node-1").is_empty()).await;
    older.kill().await;
    let (_agent, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    assert_eq!(answer.await.unwrap(), remembered(vec![]));
}

#[tokio::test]
async fn what_is_remembered_comes_first_on_the_stream_and_in_parts_where_it_is_long() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let (agent, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    answer.await.unwrap();
    let state: &'static str = "x".repeat(200 << 10).leak();
    let entries: Vec<_> = (0..8).map(|number| entry(&number.to_string(), state)).collect();
    told((&agent, &aggregator), true, vec![], entries.clone()).await;
    agent.kill().await;
    let hello = nodetap_wire::Hello {
        node: "node-1".into(),
        instance: "2".into(),
        ledger: LedgerOrigin::AskedFor.into(),
        ..Default::default()
    };
    let frames = futures_util::StreamExt::chain(
        futures_util::stream::iter([FromAgent { frame: Some(from_agent::Frame::Hello(hello)) }]),
        futures_util::stream::pending::<FromAgent>(),
    );
    let channel = raw::channel(&authority.agent("node-1"), aggregator.address).await;
    let mut incoming = raw::open(channel, frames).await.unwrap();
    let (mut given, mut parts) = (Vec::new(), 0);
    loop {
        let frame = incoming.message().await.unwrap().unwrap().frame.unwrap();
        let to_agent::Frame::Remembered(part) = frame else { panic!("{frame:?}") };
        given.extend(part.ledger);
        parts += 1;
        if part.complete {
            break;
        }
    }
    assert_eq!((given, parts), (entries, 4));
    let frame = incoming.message().await.unwrap().unwrap().frame.unwrap();
    assert!(matches!(frame, to_agent::Frame::Assignment(_)), "{frame:?}");
}

#[tokio::test]
async fn while_what_is_remembered_cannot_be_read_the_agent_asks_again() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    aggregator.journal.fail(true);
    let (agent, answer, _) = Agent::start_asking(&authority, "node-1", aggregator.address);
    eventually(|| agent.ended(Reason::unavailable) > 1).await;
    aggregator.journal.fail(false);
    assert_eq!(answer.await.unwrap(), remembered(vec![]));
}
