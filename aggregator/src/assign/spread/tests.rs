#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{Candidate, Effort, Piece, spread};

const MOST: usize = 20_000;

fn names(kind: &str, number: usize) -> Vec<String> {
    (0..number).map(|at| format!("{kind}-{at}")).collect()
}

fn agents(names: &[String]) -> Vec<Candidate<'_>> {
    names.iter().map(|node| Candidate { node, weight: 1, takes: true }).collect()
}

fn pieces<'a>(names: &'a [String], holders: &[Option<usize>]) -> Vec<Piece<'a>> {
    let piece = |(name, holder): (&'a String, &Option<usize>)| Piece { name, holder: *holder, is_hot: false };
    names.iter().zip(holders).map(piece).collect()
}

fn counts(agents: usize, holders: &[Option<usize>]) -> Vec<usize> {
    let mut counts = vec![0; agents];
    holders.iter().flatten().for_each(|at| counts[*at] += 1);
    counts
}

/// From nothing: who holds what.
fn first(agents: &[Candidate<'_>], shares: &[String]) -> Vec<Option<usize>> {
    spread(agents, &pieces(shares, &vec![None; shares.len()]), MOST, Effort::Balance)
}

fn moved(before: &[Option<usize>], after: &[Option<usize>]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

/// Few agents often, and now and then as many as there can be.
fn sizes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![
        20 => (1_usize..40, 0_usize..200),
        4 => (200_usize..700, 0_usize..2_000),
        1 => (14_000_usize..=15_000, 9_000_usize..=10_000),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_held_and_nobody_holds_more_than_a_fair_share_plus_one((many, shares) in sizes()) {
        let (nodes, shares) = (names("node", many), names("ns", shares));
        let agents = agents(&nodes);
        let holders = first(&agents, &shares);
        prop_assert!(holders.iter().all(Option::is_some));
        let fair = shares.len() as f64 / many as f64;
        for count in counts(many, &holders) {
            prop_assert!(count as f64 <= fair + 1.0 && count >= fair.floor() as usize, "{count} of {fair}");
        }
        let again = spread(&agents, &pieces(&shares, &holders), MOST, Effort::Balance);
        prop_assert_eq!(moved(&holders, &again), 0, "what is balanced stays");
        prop_assert_eq!(first(&agents, &shares), holders, "the same again");
    }

    #[test]
    fn one_agent_less_moves_only_what_it_held((many, shares) in sizes(), gone in any::<prop::sample::Index>()) {
        prop_assume!(many > 1);
        let (nodes, shares) = (names("node", many), names("ns", shares));
        let mut agents = agents(&nodes);
        let before = first(&agents, &shares);
        let gone = gone.index(many);
        agents[gone].weight = 0;
        let after = spread(&agents, &pieces(&shares, &before), MOST, Effort::Balance);
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(*before == Some(gone) || before == after);
            prop_assert!(*after != Some(gone) && after.is_some());
        }
        let fair = shares.len() as f64 / (many - 1) as f64;
        prop_assert!(counts(many, &after).iter().all(|count| *count as f64 <= fair + 1.0));
    }

    #[test]
    fn one_agent_more_moves_at_most_its_fair_share_and_one((many, shares) in sizes()) {
        let (nodes, shares) = (names("node", many + 1), names("ns", shares));
        let all = agents(&nodes);
        let before = first(&all[..many], &shares);
        let after = spread(&all, &pieces(&shares, &before), MOST, Effort::Balance);
        let fair = shares.len() as f64 / (many + 1) as f64;
        prop_assert!(moved(&before, &after) as f64 <= fair + 1.0, "{} of {fair}", moved(&before, &after));
        prop_assert!(counts(many + 1, &after)[many] >= fair.floor() as usize, "it takes its share");
    }

    #[test]
    fn an_agent_of_another_weight_moves_about_as_much_as_its_share_changes(
        many in 2_usize..300, shares in 0_usize..1_500, which in any::<prop::sample::Index>(), to in 0_usize..3,
    ) {
        let (nodes, shares) = (names("node", many), names("ns", shares));
        let mut agents = agents(&nodes);
        agents.iter_mut().for_each(|agent| agent.weight = 2);
        let before = first(&agents, &shares);
        let which = which.index(many);
        agents[which].weight = [1, 2, 4][to];
        let after = spread(&agents, &pieces(&shares, &before), MOST, Effort::Balance);
        let moved = moved(&before, &after);
        let fair = shares.len() as f64 * 4.0 / (2 * many) as f64;
        prop_assert!(moved as f64 <= fair + 2.0, "{moved} of {fair}");
        prop_assert!(after.iter().all(Option::is_some));
        let again = spread(&agents, &pieces(&shares, &after), MOST, Effort::Balance);
        prop_assert_eq!(self::moved(&after, &again), 0, "what is balanced stays");
    }

    #[test]
    fn what_those_who_take_nothing_more_do_not_hold_is_held_by_the_others(
        many in 2_usize..100, shares in 0_usize..500, takers in 1_usize..100,
    ) {
        let (nodes, shares) = (names("node", many), names("ns", shares));
        let mut agents = agents(&nodes);
        let takers = takers.min(many);
        agents.iter_mut().skip(takers).for_each(|agent| agent.takes = false);
        let holders = spread(&agents, &pieces(&shares, &vec![None; shares.len()]), MOST, Effort::Place);
        prop_assert!(holders.iter().all(Option::is_some));
        let fair = shares.len() as f64 / takers as f64;
        for (at, count) in counts(many, &holders).into_iter().enumerate() {
            let most = if at < takers { fair + 1.0 } else { 0.0 };
            prop_assert!(count as f64 <= most, "{} of {}", count, most);
        }
    }

    #[test]
    fn fewer_shares_than_agents_go_to_those_of_the_greatest_weight(many in 2_usize..600, near in 1_usize..50) {
        let near = near.min(many - 1);
        let (nodes, shares) = (names("node", many), names("ns", near.min(many / 8).max(1)));
        let mut agents = agents(&nodes);
        agents.iter_mut().enumerate().for_each(|(at, agent)| agent.weight = if at < near { 2 } else { 1 });
        let holders = first(&agents, &shares);
        prop_assert!(holders.iter().all(|at| at.is_some_and(|at| at < near)), "{holders:?}");
    }

    #[test]
    fn weights_are_kept_to(many in 2_usize..400, shares in 0_usize..3_000) {
        let (nodes, shares) = (names("node", many), names("ns", shares));
        let mut agents = agents(&nodes);
        for (at, agent) in agents.iter_mut().enumerate() {
            agent.weight = 1 + (at % 4) as u32;
        }
        let all: u32 = agents.iter().map(|agent| agent.weight).sum();
        let holders = first(&agents, &shares);
        for (agent, count) in agents.iter().zip(counts(many, &holders)) {
            let fair = shares.len() as f64 * f64::from(agent.weight) / f64::from(all);
            prop_assert!(count as f64 <= fair + 1.0 && count >= fair.floor() as usize);
        }
    }
}

#[test]
fn placing_moves_nothing_that_is_held() {
    let (nodes, shares) = (names("node", 10), names("ns", 100));
    let agents = agents(&nodes);
    // All with one, and ten with nobody.
    let mut before = vec![Some(3); 90];
    before.resize(100, None);
    let after = spread(&agents, &pieces(&shares, &before), MOST, Effort::Place);
    assert_eq!(before[..90], after[..90]);
    assert!(after[90..].iter().all(|holder| holder.is_some_and(|holder| holder != 3)));
}

#[test]
fn one_that_takes_nothing_more_keeps_what_it_has_and_one_of_no_weight_does_not() {
    let (nodes, shares) = (names("node", 4), names("ns", 40));
    let mut agents = agents(&nodes);
    let before = first(&agents, &shares);
    agents[0].takes = false;
    agents[1].weight = 0;
    let after = spread(&agents, &pieces(&shares, &before), MOST, Effort::Balance);
    assert!(before.iter().zip(&after).all(|(before, after)| *before != Some(0) || *after == Some(0)));
    let counts = counts(4, &after);
    assert_eq!((counts[0], counts[1]), (10, 0));
    assert_eq!(counts.iter().sum::<usize>(), 40, "and the others hold the rest");
}

#[test]
fn a_share_that_is_hot_alone_has_its_agent_to_itself() {
    let (nodes, shares) = (names("node", 10), names("ns", 100));
    let agents = agents(&nodes);
    let before = first(&agents, &shares);
    let mut pieces = pieces(&shares, &before);
    pieces[17].is_hot = true;
    let after = spread(&agents, &pieces, MOST, Effort::Balance);
    assert_eq!(after[17], before[17], "it stays, and its neighbours go");
    assert_eq!(counts(10, &after)[after[17].unwrap()], 1);
    let others: Vec<_> = (0..100).filter(|at| before[*at] != before[17]).collect();
    assert!(others.iter().all(|at| before[*at] == after[*at]), "nobody else's move");
}

#[test]
fn nobody_holds_more_than_it_can_and_the_rest_waits() {
    let (nodes, shares) = (names("node", 3), names("ns", 100));
    let holders = spread(&agents(&nodes), &pieces(&shares, &[None; 100]), 20, Effort::Balance);
    assert_eq!(counts(3, &holders), [20, 20, 20]);
    assert_eq!(holders.iter().flatten().count(), 60);
}

#[test]
fn without_agents_nothing_is_held() {
    assert_eq!(first(&[], &names("ns", 3)), [None; 3]);
    assert_eq!(first(&agents(&names("node", 3)), &[]), []);
}
