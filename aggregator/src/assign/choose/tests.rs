use nodetap_wire::{Finding, Findings};

use super::{Known, Partition, Watch, Wish};

fn findings(host: Finding, shards: Finding) -> Findings {
    Findings {
        version: "v1.36.3".to_owned(),
        host_selector: host.into(),
        shard_selector: shards.into(),
        ..Findings::default()
    }
}

fn known(findings: &Findings) -> Known<'_> {
    Known {
        findings: Some(findings),
        agents: 20,
        namespaces: None,
        events_per_second: Some(10.0),
        current: Partition::Cluster,
    }
}

fn auto(allow_shards: bool, known: &Known<'_>) -> Partition {
    Wish { allow_shards, ..Wish::default() }.choose(known).partition
}

#[test]
fn auto_takes_a_watch_a_node_where_the_selector_is_accepted_and_the_cluster_is_small() {
    let findings = findings(Finding::Accepted, Finding::Accepted);
    assert_eq!(auto(true, &known(&findings)), Partition::Host);
    assert_eq!(auto(true, &Known { agents: 50, ..known(&findings) }), Partition::Host);
}

#[test]
fn auto_takes_one_watch_where_the_selector_is_accepted_and_the_cluster_is_large() {
    let findings = findings(Finding::Accepted, Finding::Refused);
    assert_eq!(auto(true, &Known { agents: 51, ..known(&findings) }), Partition::Cluster);
}

#[test]
fn auto_takes_one_watch_where_nothing_is_accepted_and_little_happens() {
    let findings = findings(Finding::Refused, Finding::Refused);
    assert_eq!(auto(true, &known(&findings)), Partition::Cluster);
    assert_eq!(
        auto(true, &Known { events_per_second: Some(1_000.0), ..known(&findings) }),
        Partition::Cluster
    );
}

#[test]
fn auto_takes_ranges_where_much_happens_and_they_are_allowed_and_accepted() {
    let findings = findings(Finding::Refused, Finding::Accepted);
    let busy = Known { events_per_second: Some(1_001.0), ..known(&findings) };
    assert_eq!(auto(true, &busy), Partition::Ranges(8));
}

#[test]
fn auto_takes_namespaces_where_much_happens_and_ranges_are_not_allowed_or_not_accepted() {
    let accepted = findings(Finding::Refused, Finding::Accepted);
    assert_eq!(
        auto(false, &Known { events_per_second: Some(2_000.0), ..known(&accepted) }),
        Partition::Namespaces
    );
    let refused = findings(Finding::Refused, Finding::Refused);
    assert_eq!(
        auto(true, &Known { events_per_second: Some(2_000.0), ..known(&refused) }),
        Partition::Namespaces
    );
    let crowded =
        Known { events_per_second: Some(2_000.0), agents: 3, namespaces: Some(10_000), ..known(&refused) };
    assert_eq!(auto(true, &crowded), Partition::Cluster, "more watches than the agents can hold");
}

#[test]
fn auto_takes_one_watch_while_nothing_was_found_out() {
    let nothing = Known { findings: None, ..known(&Findings::default()) };
    assert_eq!(auto(true, &nothing), Partition::Cluster);
    let failed = Findings { failure: "timeout".to_owned(), ..Findings::default() };
    assert_eq!(auto(true, &known(&failed)), Partition::Cluster);
}

#[test]
fn auto_goes_back_to_one_watch_only_when_much_less_happens() {
    let findings = findings(Finding::Refused, Finding::Refused);
    let shared = Known { current: Partition::Namespaces, ..known(&findings) };
    assert_eq!(auto(false, &Known { events_per_second: Some(600.0), ..shared }), Partition::Namespaces);
    assert_eq!(auto(false, &Known { events_per_second: Some(500.0), ..shared }), Partition::Cluster);
}

#[test]
fn what_is_configured_is_taken_only_where_it_is_accepted_and_says_why_not() {
    let refused = findings(Finding::Refused, Finding::Refused);
    let accepted = findings(Finding::Accepted, Finding::Accepted);
    for (watch, partition) in [(Watch::Host, Partition::Host), (Watch::Shards, Partition::Ranges(8))] {
        let wish = Wish { watch, ..Wish::default() };
        assert_eq!(wish.choose(&known(&accepted)).partition, partition);
        let choice = wish.choose(&known(&refused));
        assert_eq!(choice.partition, Partition::Cluster);
        assert!(choice.why.contains("does not"), "{}", choice.why);
        let unasked = Known { findings: None, ..known(&refused) };
        assert_eq!(wish.choose(&unasked).partition, Partition::Cluster);
        let held = Known { current: partition, ..unasked };
        assert_eq!(wish.choose(&held).partition, partition, "what is held stays until somebody has asked");
    }
    let wish = |watch| Wish { watch, ..Wish::default() }.choose(&known(&refused)).partition;
    assert_eq!(wish(Watch::Namespaces), Partition::Namespaces);
    assert_eq!(wish(Watch::Cluster), Partition::Cluster);
}

#[test]
fn auto_keeps_more_than_one_watch_while_it_was_not_measured_how_much_happens() {
    let findings = findings(Finding::Refused, Finding::Refused);
    let unmeasured = Known { events_per_second: None, ..known(&findings) };
    assert_eq!(auto(false, &unmeasured), Partition::Cluster);
    let shared = Known { current: Partition::Namespaces, ..unmeasured };
    assert_eq!(auto(false, &shared), Partition::Namespaces);
}
