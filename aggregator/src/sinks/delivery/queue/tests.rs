use super::*;
use crate::sinks::FailureClass;
use crate::sinks::chunk::Chunk;
use crate::sinks::tests::delivery;

const LIMITS: Limits = Limits { records: 3, bytes: 1000, wait: Duration::from_secs(1) };

fn queue(limits: Limits, positions: std::ops::RangeInclusive<u64>) -> (Queue, Instant) {
    let now = Instant::now();
    let mut queue = Queue::new(limits, Position(positions.start() - 1), 3, now);
    for position in positions {
        queue.take(Position(position), [delivery(position, "a")], now);
    }
    (queue, now)
}

fn retry(seconds: Option<u64>) -> Option<Outcome> {
    let after = seconds.map(Duration::from_secs);
    Some(Outcome::Retry(Failure { class: FailureClass::Unavailable, reason: "down".to_owned(), after }))
}

fn positions(queue: &Queue) -> Vec<u64> {
    queue.batch(0..100).iter().map(|delivery| delivery.position.0).collect()
}

#[test]
fn a_batch_is_sent_when_it_is_full_or_its_first_record_has_waited_long_enough() {
    let (mut queue, now) = queue(LIMITS, 1..=2);
    assert_eq!(queue.ready(now, false), 0..0);
    assert_eq!(queue.wake(now), Some(now + LIMITS.wait));
    assert_eq!(queue.ready(now + LIMITS.wait, false), 0..2);
    assert_eq!(queue.ready(now, true), 0..2);
    queue.take(Position(3), [delivery(3, "a")], now);
    queue.take(Position(4), [delivery(4, "a")], now);
    assert_eq!(queue.ready(now, false), 0..3);
}

#[test]
fn a_batch_is_bounded_in_bytes_and_a_larger_record_goes_alone() {
    let now = Instant::now();
    let limits = Limits { records: 10, bytes: 50, wait: Duration::from_secs(1) };
    let (mut queue, _) = queue(limits, 1..=3);
    assert_eq!(delivery(1, "a").body.len(), 20);
    assert_eq!(queue.ready(now, false), 0..2);
    let mut large = delivery(9, "a");
    large.body = vec![b'x'; 5000].into();
    queue = Queue::new(limits, Position(0), 3, now);
    queue.take(Position(9), [large], now);
    queue.take(Position(10), [delivery(10, "a")], now);
    assert_eq!(queue.ready(now, false), 0..1);
    assert_eq!(queue.wants(), 0);
}

#[test]
fn what_was_delivered_is_not_sent_again_and_what_was_not_goes_first() {
    let (mut queue, now) = queue(LIMITS, 1..=4);
    let outcomes = vec![Some(Outcome::Delivered), retry(None), Some(Outcome::Delivered)];
    let settled = queue.settle(0..9, outcomes, now, 1.0);
    assert_eq!((settled.delivered, settled.retried), (2, 1));
    assert_eq!(positions(&queue), [2, 4]);
    assert_eq!(queue.cursor(), Position(1), "the cursor stands before what is not settled");
    let wait = Duration::from_millis(500);
    assert_eq!(settled.failure.unwrap().1, wait);
    assert_eq!(queue.ready(now + wait / 2, true), 0..0);
    assert_eq!(queue.wake(now), Some(now + wait));
    assert_eq!(queue.ready(now + wait, false), 0..2, "a record that was tried waits for no other");
}

#[test]
fn a_refused_record_is_a_dead_letter_that_is_committed_with_the_cursor() {
    let (mut queue, now) = queue(LIMITS, 1..=2);
    let refused = Some(Outcome::Refused("answered 400 Bad Request: no".to_owned()));
    queue.settle(0..9, vec![refused, Some(Outcome::Delivered)], now, 1.0);
    let (cursor, dead) = queue.commit(now, false).unwrap();
    assert_eq!(cursor, Position(2));
    assert_eq!(
        dead,
        [DeadLetter { position: Position(1), reason: "answered 400 Bad Request: no".to_owned() }]
    );
    assert!(queue.commit(now, false).is_some(), "until it is durable it is asked for again");
    queue.committed(cursor, dead.len(), now);
    assert_eq!(queue.commit(now + Duration::from_secs(60), true), None);
}

#[test]
fn an_attempt_cut_short_counts_as_failed_unless_something_was_settled() {
    let (mut queue, now) = queue(LIMITS, 1..=3);
    let settled = queue.settle(0..9, vec![Some(Outcome::Delivered), None, None], now, 1.0);
    assert_eq!(settled.failure, None);
    assert_eq!(queue.ready(now, false), 0..2, "what was not tried is tried at once");
    let settled = queue.settle(0..9, vec![None, None], now, 1.0);
    assert_eq!(settled.failure.unwrap().0, Failure::interrupted());
    assert_eq!(queue.ready(now, true), 0..0);
}

#[test]
fn the_longest_retry_after_of_a_batch_is_honoured_and_progress_starts_the_backoff_over() {
    let (mut queue, now) = queue(LIMITS, 1..=3);
    let settled = queue.settle(0..9, vec![retry(Some(5)), retry(Some(30)), retry(None)], now, 1.0);
    assert_eq!(settled.failure.unwrap().1, Duration::from_secs(30));
    queue.settle(0..9, vec![retry(None)], now, 1.0);
    assert_eq!(queue.failures(), 2);
    let settled = queue.settle(0..9, vec![Some(Outcome::Delivered), retry(None)], now, 1.0);
    assert_eq!(settled.failure.unwrap().1, Duration::from_millis(500));
}

#[test]
fn a_cursor_that_moves_only_over_other_sinks_records_is_committed_by_number_or_by_time() {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), 3, now);
    queue.take(Position(IDLE_RECORDS - 1), None, now);
    assert_eq!(queue.commit(now, false), None);
    assert_eq!(queue.wake(now), Some(now + IDLE_TIME));
    assert_eq!(queue.commit(now + IDLE_TIME, false), Some((Position(IDLE_RECORDS - 1), Vec::new())));
    queue.take(Position(IDLE_RECORDS), None, now);
    assert_eq!(queue.commit(now, false), Some((Position(IDLE_RECORDS), Vec::new())));
}

#[test]
fn no_more_is_read_while_two_batches_wait() {
    let (queue, _) = queue(LIMITS, 1..=4);
    assert_eq!(queue.wants(), 2);
    let (queue, _) = self::queue(LIMITS, 1..=6);
    assert_eq!(queue.wants(), 0);
}

#[test]
fn no_more_is_read_while_two_batches_of_dead_letters_are_not_durable() {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), 3, now);
    for position in 1..=6 {
        queue.take_dead(DeadLetter { position: Position(position), reason: "no template".to_owned() });
    }
    assert_eq!(queue.wants(), 0);
    let (cursor, dead) = queue.commit(now, false).unwrap();
    queue.committed(cursor, dead.len(), now);
    assert_eq!(queue.wants(), 6);
}

#[test]
fn of_a_record_that_goes_twice_the_cursor_passes_only_when_both_are_there() {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), 3, now);
    queue.take(Position(1), [delivery(1, "a"), delivery(1, "a")], now);
    queue.settle(0..9, vec![Some(Outcome::Delivered), retry(None)], now, 1.0);
    assert_eq!(queue.cursor(), Position(0));
    queue.settle(0..9, vec![Some(Outcome::Delivered)], now, 1.0);
    assert_eq!(queue.cursor(), Position(1));
}

/// Tries what is ready: `poison` is refused by failures, and so is everything while the sink is down.
fn attempt(queue: &mut Queue, now: &mut Instant, poison: u64, down: bool) -> Settled {
    *now += Duration::from_secs(3600);
    let range = queue.ready(*now, true);
    let mut stopped = false;
    let batch = queue.batch(range.clone());
    let outcomes = batch.iter().map(|delivery| {
        let fails = down || delivery.position.0 == poison;
        let outcome = match (stopped, fails) {
            (true, _) => None,
            (false, true) => retry(None),
            (false, false) => Some(Outcome::Delivered),
        };
        stopped |= fails;
        outcome
    });
    let outcomes = outcomes.collect();
    queue.settle(range, outcomes, *now, 1.0)
}

fn of_two_objects(tolerance: u32) -> (Queue, Instant) {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), tolerance, now);
    for (position, object) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "a")] {
        queue.take(Position(position), [delivery(position, object)], now);
    }
    (queue, now)
}

#[test]
fn a_record_that_is_failed_on_while_others_are_taken_becomes_a_dead_letter_and_holds_up_nobody() {
    let (mut queue, mut now) = of_two_objects(3);
    for _ in 0..3 {
        assert_eq!(attempt(&mut queue, &mut now, 1, false).at_fault, None);
        assert_eq!(positions(&queue), [1, 2, 3, 4, 5]);
    }
    assert_eq!(attempt(&mut queue, &mut now, 1, false).delivered, 1);
    assert_eq!(positions(&queue), [1, 2, 4, 5], "the first of another object, and none of its own");
    assert_eq!(queue.cursor(), Position(0));
    let letter = attempt(&mut queue, &mut now, 1, false).at_fault.unwrap();
    assert_eq!(letter.position, Position(1));
    assert_eq!(letter.reason, "down; time and again, while other records were taken");
    assert_eq!(queue.commit(now, false), Some((Position(1), vec![letter])));
    attempt(&mut queue, &mut now, 1, false);
    assert_eq!(positions(&queue), [0_u64; 0]);
    assert_eq!(queue.cursor(), Position(5));
}

#[test]
fn a_sink_that_is_down_keeps_every_record_however_long_and_gets_them_in_order() {
    let (mut queue, mut now) = of_two_objects(3);
    for _ in 0..100 {
        let settled = attempt(&mut queue, &mut now, 0, true);
        assert_eq!((settled.delivered, settled.at_fault), (0, None));
    }
    assert_eq!(positions(&queue), [1, 2, 3, 4, 5]);
    while !positions(&queue).is_empty() {
        assert_eq!(attempt(&mut queue, &mut now, 0, false).at_fault, None);
    }
}

#[test]
fn where_all_that_waits_is_of_one_object_more_is_read_until_there_is_another() {
    let (mut queue, mut now) = queue(LIMITS, 1..=6);
    assert_eq!(queue.wants(), 0);
    for _ in 0..3 {
        attempt(&mut queue, &mut now, 1, false);
    }
    assert_eq!(queue.wants(), 42);
    assert_eq!(attempt(&mut queue, &mut now, 1, false).at_fault, None);
    assert_eq!(positions(&queue), [1, 2, 3, 4, 5, 6], "an object's order is not given up for it");
    queue.take(Position(7), [delivery(7, "b")], now);
    assert_eq!(queue.wants(), 0);
    attempt(&mut queue, &mut now, 1, false);
    assert_eq!(attempt(&mut queue, &mut now, 1, false).at_fault.unwrap().position, Position(1));
}

#[test]
fn what_is_tried_again_does_not_keep_the_memory_of_what_was_delivered_beside_it() {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), 3, now);
    let mut chunk = Chunk::default();
    for position in 1..=3 {
        let (id, object) = (chunk.text("id"), chunk.text("web"));
        let body = chunk.json(|json| Ok(serde_json::to_writer(json, "body")?)).unwrap();
        queue.take(Position(position), [Delivery { id, object, body, ..delivery(position, "a") }], now);
    }
    drop(chunk);
    let body = |queue: &Queue| queue.waiting.front().unwrap().delivery.body.clone();
    assert_eq!(body(&queue), "\"body\"");
    queue.settle(0..3, vec![Some(Outcome::Delivered), retry(None), Some(Outcome::Delivered)], now, 1.0);
    let kept = queue.waiting.pop_front().unwrap().delivery;
    assert_eq!((&*kept.id, &*kept.object, &kept.body[..]), ("id", "web", &b"\"body\""[..]));
    for bytes in [kept.id.bytes(), kept.object.bytes(), &kept.body] {
        assert!(bytes.is_unique(), "shares its memory with what was delivered");
    }
}

#[test]
fn what_waits_behind_two_batches_holds_nothing_but_itself() {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), 3, now);
    let mut chunk = Chunk::default();
    for position in 1..=8 {
        let object = chunk.text("web");
        queue.take(Position(position), [Delivery { object, ..delivery(position, "a") }], now);
    }
    drop(chunk);
    let is_alone = |waiting: &Waiting| waiting.delivery.object.bytes().is_unique();
    assert!(queue.waiting.range(..6).all(|waiting| !is_alone(waiting)), "six share a chunk");
    assert!(queue.waiting.range(6..).all(is_alone));
}
