//! The lanes as the loop drives them, over a journal in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sinks::encode::Encoder;
use crate::sinks::metrics::SinkMetrics;
use crate::sinks::tests::journal::Memory;
use crate::sinks::tests::{delivery, looping};
use crate::sinks::{Failure, FailureClass, Report, Sink};

const LIMITS: Limits = Limits { records: 8, bytes: 1 << 20, wait: Duration::ZERO };

/// Takes a batch in ten milliseconds, while it is up.
#[derive(Clone)]
struct Slow {
    is_up: Arc<AtomicBool>,
    took: watch::Sender<Vec<(u64, String)>>,
}

impl Slow {
    fn new(is_up: bool) -> Self {
        Self { is_up: Arc::new(AtomicBool::new(is_up)), took: watch::Sender::default() }
    }

    fn took(&self) -> Vec<(u64, String)> {
        self.took.borrow().clone()
    }

    /// Waits until it has taken what is meant; looks each time that it takes something.
    async fn until(&self, so: impl FnMut(&Vec<(u64, String)>) -> bool) {
        self.took.subscribe().wait_for(so).await.unwrap();
    }

    /// How many it had taken before a position.
    fn before(&self, position: Position) -> usize {
        self.took().iter().position(|(took, _)| *took == position.0).unwrap()
    }
}

impl Sink for Slow {
    fn limits(&self) -> Limits {
        LIMITS
    }

    async fn deliver(&mut self, batch: &[Delivery], report: &mut Report) {
        sleep(Duration::from_millis(10)).await;
        for (index, delivery) in batch.iter().enumerate() {
            if !self.is_up.load(Ordering::Relaxed) {
                let class = FailureClass::Unavailable;
                return report
                    .set(index, Outcome::Retry(Failure { class, reason: "down".to_owned(), after: None }));
            }
            let one = (delivery.position.0, delivery.object.to_string());
            self.took.send_modify(|took| took.push(one));
            report.set(index, Outcome::Delivered);
        }
    }
}

fn run(journal: &Memory, sink: &Slow, order: Order) -> (JoinHandle<()>, SinkMetrics) {
    let (mut delivering, metrics) = looping("s", journal, Encoder::default(), sink.clone());
    delivering.order = order;
    delivering.live_after = Duration::ZERO;
    let task = tokio::spawn(async move { delivering.run(CancellationToken::new()).await.unwrap() });
    (task, metrics)
}

/// Each object's, in the order in which they first came.
fn by_object(took: &[(u64, String)]) -> HashMap<&str, Vec<u64>> {
    let mut seen = HashSet::new();
    let mut of: HashMap<&str, Vec<u64>> = HashMap::new();
    for (position, object) in took.iter().filter(|(position, _)| seen.insert(*position)) {
        of.entry(object).or_default().push(*position);
    }
    of
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_comes_back_gets_what_is_new_at_once_and_each_objects_records_in_order() {
    let journal = Memory::new();
    for index in 0..4_000 {
        journal.event(&format!("old-{}", index % 40), "x");
    }
    let sink = Slow::new(false);
    let (_task, metrics) = run(&journal, &sink, Order::Object);
    sleep(Duration::from_secs(60)).await;
    let meanwhile = journal.event("came-while-it-was-down", "x");
    sink.is_up.store(true, Ordering::Relaxed);
    sink.until(|took| !took.is_empty()).await;
    let (new, more_of_old) = (journal.event("new", "x"), journal.event("old-3", "x"));
    let again = journal.event("new", "y");
    sink.until(|took| {
        assert!(metrics.account().adds_up(), "{:?}", metrics.account());
        took.len() >= 1_000
    })
    .await;
    assert!(metrics.catching_up.get() == 1 && metrics.lag_records.get() > 2_000);
    journal.reached("s", 4_004).await;
    let took = sink.took();
    assert_eq!(took.len(), 4_004, "each once");
    assert!(
        sink.before(new) < 100 && sink.before(again) < 100,
        "{} and {}",
        sink.before(new),
        sink.before(again)
    );
    assert!(sink.before(more_of_old) > 4_000, "it came before others of its object");
    assert!(sink.before(meanwhile) > 3_900, "it is of the backlog");
    for (object, positions) in by_object(&took) {
        assert!(positions.is_sorted(), "{object}: {positions:?}");
    }
    assert_eq!((metrics.overtook.get(), metrics.left_behind.get()), (2, 1));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((metrics.catching_up.get(), metrics.lag_records.get()), (0, 0));
    let account = metrics.account();
    assert!(account.adds_up() && account.ahead == 0 && account.read == 4_004, "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn where_a_receiver_wants_no_order_whatever_is_new_goes_first_and_where_it_wants_the_journals_nothing_does()
 {
    for (order, overtakes) in [(Order::None, true), (Order::Journal, false)] {
        let journal = Memory::new();
        for _ in 0..2_000 {
            journal.event("old", "x");
        }
        let sink = Slow::new(true);
        let (_task, metrics) = run(&journal, &sink, order);
        sink.until(|took| took.len() >= 100).await;
        let new = journal.event("old", "x");
        journal.reached("s", 2_001).await;
        assert_eq!(sink.before(new) < 300, overtakes, "{order:?}: {}", sink.before(new));
        assert_eq!(sink.took().len(), 2_001, "{order:?}");
        assert!(metrics.account().adds_up(), "{order:?}: {:?}", metrics.account());
    }
}

/// As by kill -9, at moments that differ: in an attempt, before a commit, while the backlog is scouted.
#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_of_catching_up_it_loses_nothing_sends_little_twice_and_keeps_each_objects_order()
 {
    let journal = Memory::new();
    let event = |number: u64| journal.event(&format!("pod-{}", number * number % 601 / 3), "x");
    for number in 0..3_000 {
        event(number);
    }
    let sink = Slow::new(true);
    let (mut last, mut kills) = (3_000, 0);
    loop {
        let (task, metrics) = run(&journal, &sink, Order::Object);
        for tick in 0..kills % 97 + 3 {
            sleep(Duration::from_millis(kills % 13 + 1)).await;
            assert!(metrics.account().adds_up(), "{:?}", metrics.account());
            if last < 4_000 && tick % 3 == 0 {
                event(last);
                last += 1;
            }
            sink.is_up.store((kills + tick) % 17 != 0, Ordering::Relaxed);
        }
        task.abort();
        let _ = task.await;
        kills += 1;
        if journal.cursor_of("s") == Some(Position(4_000)) {
            break;
        }
        assert!(kills < 2_000, "it does not get on: {:?}", journal.cursor_of("s"));
    }
    let took = sink.took();
    let once: HashSet<u64> = took.iter().map(|(position, _)| *position).collect();
    assert_eq!(once.len(), 4_000, "none is lost");
    let most = usize::try_from(kills).unwrap() * LIMITS.records;
    assert!(took.len() - once.len() <= most, "{} twice after {kills} kills", took.len() - once.len());
    for (object, positions) in by_object(&took) {
        assert!(positions.is_sorted(), "{object}: {positions:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_retention_takes_of_a_backlog_is_missed_and_what_went_ahead_of_it_is_not() {
    let journal = Memory::new();
    for index in 0..3_000 {
        journal.event(&format!("old-{}", index % 40), "x");
    }
    let sink = Slow::new(true);
    let (_task, metrics) = run(&journal, &sink, Order::Object);
    sink.until(|took| took.len() >= 100).await;
    let new = journal.event("new", "x");
    journal.event("old-1", "x");
    sink.until(|took| took.iter().any(|(position, _)| *position == new.0)).await;
    assert_eq!(metrics.overtook.get(), 1);
    journal.drop_up_to(3_002);
    journal.event("last", "x");
    journal.reached("s", 3_003).await;
    let took: HashSet<u64> = sink.took().iter().map(|(position, _)| *position).collect();
    assert!(took.contains(&new.0));
    assert_eq!(metrics.missed.get(), 3_003 - took.len() as u64);
    assert!(metrics.account().adds_up(), "{:?}", metrics.account());
}

#[test]
fn a_sink_that_took_some_and_asked_to_be_left_alone_is_left_alone_by_both_lanes() {
    let now = Instant::now();
    let limits = Limits { records: 3, ..LIMITS };
    let settings = Settings { limits, tolerance: 10, order: Order::Object, live_after: Duration::ZERO };
    let mut lanes = Lanes::new(settings, Position(0), Had::load(Vec::new(), Position(0)), now);
    for position in 1..=6 {
        lanes.backlog().take(Position(position), [delivery(position, "old")], now);
    }
    assert!(lanes.begin_live(Position(10), Some(Duration::ZERO), now));
    lanes.leave(Position(8), "old", 1);
    lanes.caught(Position(8));
    for (position, object) in [(9, "new"), (10, "newer")] {
        assert!(lanes.may_overtake(object));
        lanes.overtake(Position(position), [delivery(position, object)], now);
    }
    let (lane, range) = lanes.ready(now, true).unwrap();
    assert_eq!((lane, range.clone()), (Lane::Live, 0..2));
    let after = Some(Duration::from_secs(600));
    let throttled = Failure { class: FailureClass::Throttled, reason: "429".to_owned(), after };
    let outcomes = vec![Some(Outcome::Delivered), Some(Outcome::Retry(throttled))];
    lanes.settle(lane, range, outcomes, now, 1.0);
    assert_eq!(lanes.ready(now + Duration::from_secs(599), true), None);
    assert_eq!(lanes.wake(now), Some(now + Duration::from_secs(600)));
    assert!(lanes.ready(now + Duration::from_secs(600), true).is_some());
}
