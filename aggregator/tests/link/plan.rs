//! Hand-overs of watches between real sides.

use nodetap_aggregator::admit::Limits;
use nodetap_aggregator::assign::choose::{Watch, Wish};
use nodetap_wire::{Finding, Findings, Shard};

use crate::certificates::Authority;
use crate::eventually;
use crate::journal::Memory;
use crate::proxy::Proxy;
use crate::sides::{Agent, Aggregator};

fn findings() -> Findings {
    let mut findings = Findings { version: "v1.36.3".to_owned(), ..Findings::default() };
    findings.set_shard_selector(Finding::Accepted);
    findings.set_host_selector(Finding::Refused);
    findings
}

#[tokio::test]
async fn an_agent_that_is_told_to_end_watches_until_the_next_one_does() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let first = Agent::start(&authority, "node-1", aggregator.address);
    first.assigned().await;
    first.watch_all().await;
    let second = Agent::start(&authority, "node-2", aggregator.address);
    eventually(|| second.health().connected).await;
    first.drain.cancel();
    assert_eq!(second.assigned().await.epoch, 2);
    assert_eq!(first.watches(), [("cluster".to_owned(), 1)], "both watch for a moment");
    second.watch_all().await;
    eventually(|| first.watches().is_empty()).await;
    assert_eq!(second.watches(), [("cluster".to_owned(), 2)]);
}

#[tokio::test]
async fn an_agent_that_is_told_to_end_while_its_stream_is_cut_says_so_on_the_next_one() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let first = Agent::start(&authority, "node-1", proxy.address);
    first.assigned().await;
    first.watch_all().await;
    let second = Agent::start(&authority, "node-2", aggregator.address);
    eventually(|| second.health().connected).await;
    proxy.cut();
    first.drain.cancel();
    second.assigned().await;
    second.watch_all().await;
    eventually(|| first.watches().is_empty()).await;
}

#[tokio::test]
async fn an_aggregator_that_restarts_lets_the_holders_keep_what_they_hold() {
    let authority = Authority::new();
    let journal = Memory::new();
    let start =
        || Aggregator::start_with(authority.server("nodetap-aggregator"), Limits::default(), journal.clone());
    let aggregator = start().await;
    let proxy = Proxy::start(aggregator.address).await;
    let first = Agent::start(&authority, "node-1", proxy.address);
    first.assigned().await;
    first.watch_all().await;
    let second = Agent::start(&authority, "node-2", proxy.address);
    eventually(|| second.health().connected).await;
    aggregator.stop().await;
    let aggregator = start().await;
    proxy.lead_to(aggregator.address);
    proxy.cut();
    eventually(|| aggregator.metrics.agents.get() == 2 && aggregator.reports() == 1).await;
    assert_eq!(first.watches(), [("cluster".to_owned(), 1)]);
    assert_eq!(second.watches(), []);
}

#[tokio::test]
async fn one_agent_is_asked_what_the_api_server_accepts_and_what_it_finds_decides() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let wish = Wish { watch: Watch::Shards, shards: 2, ..Wish::default() };
    aggregator.wishes.send_replace(wish);
    let proxy = Proxy::start(aggregator.address).await;
    let agents = [
        Agent::start(&authority, "node-1", proxy.address),
        Agent::start(&authority, "node-2", proxy.address),
    ];
    let asked = |agent: &Agent| *agent.negotiations.borrow();
    eventually(|| agents.iter().map(asked).sum::<u64>() == 1).await;
    let [asked, _] = if asked(&agents[0]) > 0 { [0, 1] } else { [1, 0] };
    assert_eq!(aggregator.plan.status().await.unwrap().partition, "cluster", "nothing is assumed");
    agents[asked].findings.send_replace(Some(findings()));
    let ranges = [Shard::uid_range(0, 2).name(), Shard::uid_range(1, 2).name()];
    let held = || agents.iter().flat_map(Agent::watches).map(|watch| watch.0).collect::<Vec<_>>();
    eventually(|| ranges.iter().all(|range| held().contains(range))).await;
    assert!(held().contains(&"cluster".to_owned()), "the old watch goes on");
    for agent in &agents {
        agent.watch_all().await;
    }
    eventually(|| held().len() == 2 && !held().contains(&"cluster".to_owned())).await;
    let status = aggregator.plan.status().await.unwrap();
    assert_eq!((status.partition.as_str(), status.watches.len()), ("shards", 2));
    let server = status.api_server.unwrap();
    assert_eq!((server.version.as_str(), server.shard_selector), ("v1.36.3", Some(true)));

    // Another aggregator is told, and need not ask.
    let next = Aggregator::start(&authority).await;
    next.wishes.send_replace(wish);
    proxy.lead_to(next.address);
    proxy.cut();
    eventually(|| next.metrics.agents.get() == 2).await;
    let status = next.plan.status().await.unwrap();
    assert_eq!(status.partition, "shards", "what the agents hold says what it was");
    assert_eq!(status.api_server.unwrap().version, "v1.36.3");
    assert!(agents.iter().all(|agent| *agent.negotiations.borrow() <= 1));
}

#[tokio::test]
async fn a_journal_that_lost_its_newest_file_has_the_holder_list_again() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    agent.assigned().await;
    agent.watch_all().await;
    aggregator.resets.send_modify(|resets| *resets += 1);
    eventually(|| agent.watches() == [("cluster".to_owned(), 2)]).await;
    assert_eq!(agent.assigned().await.resource_version, "");
}
