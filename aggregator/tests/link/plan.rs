//! Hand-overs of watches between real sides.

use nodetap_agent::outbox::Taken;
use nodetap_aggregator::admit::Limits;
use nodetap_aggregator::admit::metrics::EndReason;
use nodetap_aggregator::assign::choose::{Watch, Wish};
use nodetap_aggregator::assign::plan::{Patience, Plan};
use nodetap_aggregator::assign::{self, Said, metrics::Metrics};
use nodetap_aggregator::journal::lost::What;
use nodetap_wire::{Checkpoint, Finding, Findings, Hello, Shard, WatchState};
use tokio_util::sync::CancellationToken;

use crate::certificates::Authority;
use crate::journal::Memory;
use crate::proxy::Proxy;
use crate::sides::{Agent, Aggregator};
use crate::{death, event, eventually};

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
    aggregator.losses.lose(1, What::Hole);
    eventually(|| agent.watches() == [("cluster".to_owned(), 2)]).await;
    assert_eq!(agent.assigned().await.resource_version, "");
}

#[tokio::test]
async fn an_agent_that_was_promised_more_than_the_journal_has_goes_back_to_its_checkpoint_and_tells_deaths_again()
 {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let mut agent = Agent::start(&authority, "node-1", proxy.address);
    let watch = agent.assigned().await;
    agent.watch_all().await;
    let mut kept = 0;
    for version in [41, 42] {
        kept = aggregator.journal.batches();
        agent.take(event(version)).await;
        let checkpoint =
            Checkpoint { shard: watch.shard.clone(), epoch: 1, resource_version: version.to_string() };
        agent.intake.take(Taken::Checkpoint(checkpoint)).await.unwrap();
        aggregator.journal.holds(version as u64 - 40).await;
        agent.all_acknowledged().await;
    }
    // Another process opens it again, with all of it, and another one with less.
    for (batches, epoch, version, losses) in [(aggregator.journal.batches(), 1, "", 0), (kept, 2, "41", 1)] {
        let journal = aggregator.journal.cut(batches);
        let next =
            Aggregator::start_with(authority.server("nodetap-aggregator"), Limits::default(), journal).await;
        proxy.lead_to(next.address);
        proxy.cut();
        eventually(|| next.metrics.agents.get() == 1).await;
        eventually(|| agent.watches() == [("cluster".to_owned(), epoch)]).await;
        assert_eq!(agent.assigned().await.resource_version, version);
        agent.lost.wait_for(|lost| *lost == losses).await.unwrap();
        // Told once, however often it connects.
        proxy.cut();
        eventually(|| {
            next.ended(EndReason::cut) + next.ended(EndReason::closed) == 1 && next.metrics.agents.get() == 1
        })
        .await;
        assert_eq!((agent.watches(), *agent.lost.borrow()), (vec![("cluster".to_owned(), epoch)], losses));
    }
}

#[tokio::test]
async fn an_agent_that_was_away_while_a_loss_was_found_is_told_of_it_by_the_process_after() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let agent = Agent::start(&authority, "node-1", proxy.address);
    agent.assigned().await;
    agent.take(event(41)).await;
    aggregator.journal.holds(1).await;
    agent.all_acknowledged().await;
    // A process that it never meets finds it, and the ones after have all that the agent was promised.
    let mut journal = aggregator.journal.cut(aggregator.journal.batches());
    journal.losses.lose(1, What::Old);
    let mut next = aggregator;
    for version in [42, 43] {
        journal = journal.cut(journal.batches());
        let identity = authority.server("nodetap-aggregator");
        next = Aggregator::start_with(identity, Limits::default(), journal.clone()).await;
        proxy.lead_to(next.address);
        proxy.cut();
        eventually(|| next.metrics.agents.get() == 1).await;
        eventually(|| *agent.lost.borrow() == 1).await;
        agent.take(event(version)).await;
        journal.holds(version as u64 - 40).await;
        agent.all_acknowledged().await;
        assert_eq!(*agent.lost.borrow(), 1, "told once");
    }
    // A process that begins was promised nothing.
    let another = Agent::start(&authority, "node-2", next.address);
    another.take(death("node-2", 1)).await;
    journal.holds(4).await;
    another.all_acknowledged().await;
    assert_eq!(*another.lost.borrow(), 0);
}

#[tokio::test]
async fn a_holder_that_alone_does_not_reach_the_api_server_is_replaced_and_goes_on_trying_until_the_next_one_watches()
 {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let first = Agent::start(&authority, "node-1", aggregator.address);
    first.assigned().await;
    first.watch_all().await;
    first.answer(true).await;
    let second = Agent::start(&authority, "node-2", aggregator.address);
    eventually(|| second.health().connected).await;
    second.answer(true).await;
    let before = [&first, &second].map(|agent| *agent.reach.asked().borrow());
    first.report_all(WatchState::BackingOff).await;
    // Both are asked anew.
    for (agent, before, reached) in [(&second, before[1], true), (&first, before[0], false)] {
        agent.reach.asked().wait_for(|number| *number > before).await.unwrap();
        agent.answer(reached).await;
    }
    assert_eq!(second.assigned().await.epoch, 2);
    assert_eq!(first.watches(), [("cluster".to_owned(), 1)], "it may be back sooner");
    second.watch_all().await;
    eventually(|| first.watches().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn what_many_say_at_once_is_settled_once_and_a_disk_that_does_not_answer_is_not_waited_for_each_time() {
    let journal = Memory::new();
    journal.stall(true);
    let plan = Plan::cluster(std::time::Instant::now(), Patience::default());
    let settings = assign::Settings::fixed(Wish::default());
    let (assigner, driver) =
        assign::assign(plan, journal.clone(), settings, Metrics::default()).await.unwrap();
    let stop = CancellationToken::new();
    let started = tokio::time::Instant::now();
    tokio::spawn(driver.run(stop.clone()));
    let nodes: Vec<String> = (0..200).map(|number| format!("node-{number}")).collect();
    let joins = nodes.iter().zip(1..).map(|(node, stream)| assigner.join(node, stream, Hello::default()));
    let mut members: Vec<_> =
        futures_util::future::join_all(joins).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(journal.notes(), 1);
    let holder = members.iter().position(|member| !member.assignments.borrow().watches.is_empty()).unwrap();
    let watches = |members: &[assign::Membership]| {
        members.iter().filter(|member| !member.assignments.borrow().watches.is_empty()).count()
    };
    assert_eq!(watches(&members), 1);
    let before = started.elapsed();
    assert!(before < std::time::Duration::from_secs(3), "{before:?}");
    members[holder].say(Said::Draining).await.unwrap();
    while watches(&members) < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(journal.notes(), 1, "the disk was just found not to answer");
    assert!(started.elapsed() - before < std::time::Duration::from_millis(500));
    journal.stall(false);
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    drop(members.remove(holder));
    let next = members.iter().position(|member| !member.assignments.borrow().watches.is_empty()).unwrap();
    members[next].say(Said::Draining).await.unwrap();
    while journal.notes() == 1 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    stop.cancel();
}
