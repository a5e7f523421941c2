use super::*;
use crate::sinks::FailureClass;
use crate::sinks::tests::delivery;

const LIMITS: Limits = Limits { records: 3, bytes: 1000, wait: Duration::from_secs(1) };

fn queue(limits: Limits, positions: std::ops::RangeInclusive<u64>) -> (Queue, Instant) {
    let now = Instant::now();
    let mut queue = Queue::new(limits, Position(positions.start() - 1), now);
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
    queue.batch(100).iter().map(|delivery| delivery.position.0).collect()
}

#[test]
fn a_batch_is_sent_when_it_is_full_or_its_first_record_has_waited_long_enough() {
    let (mut queue, now) = queue(LIMITS, 1..=2);
    assert_eq!(queue.ready(now, false), 0);
    assert_eq!(queue.wake(now), Some(now + LIMITS.wait));
    assert_eq!(queue.ready(now + LIMITS.wait, false), 2);
    assert_eq!(queue.ready(now, true), 2);
    queue.take(Position(3), [delivery(3, "a")], now);
    queue.take(Position(4), [delivery(4, "a")], now);
    assert_eq!(queue.ready(now, false), 3);
}

#[test]
fn a_batch_is_bounded_in_bytes_and_a_larger_record_goes_alone() {
    let now = Instant::now();
    let limits = Limits { records: 10, bytes: 50, wait: Duration::from_secs(1) };
    let (mut queue, _) = queue(limits, 1..=3);
    assert_eq!(delivery(1, "a").body.len(), 20);
    assert_eq!(queue.ready(now, false), 2);
    let mut large = delivery(9, "a");
    large.body = vec![b'x'; 5000].into();
    queue = Queue::new(limits, Position(0), now);
    queue.take(Position(9), [large], now);
    queue.take(Position(10), [delivery(10, "a")], now);
    assert_eq!(queue.ready(now, false), 1);
    assert_eq!(queue.wants(), 0);
}

#[test]
fn what_was_delivered_is_not_sent_again_and_what_was_not_goes_first() {
    let (mut queue, now) = queue(LIMITS, 1..=4);
    let outcomes = vec![Some(Outcome::Delivered), retry(None), Some(Outcome::Delivered)];
    let settled = queue.settle(outcomes, now, 1.0);
    assert_eq!((settled.delivered, settled.retried), (2, 1));
    assert_eq!(positions(&queue), [2, 4]);
    assert_eq!(queue.cursor(), Position(1), "the cursor stands before what is not settled");
    let wait = Duration::from_millis(500);
    assert_eq!(settled.failure.unwrap().1, wait);
    assert_eq!(queue.ready(now + wait / 2, true), 0);
    assert_eq!(queue.wake(now), Some(now + wait));
    assert_eq!(queue.ready(now + wait, false), 2, "a record that was tried waits for no other");
}

#[test]
fn a_refused_record_is_a_dead_letter_that_is_committed_with_the_cursor() {
    let (mut queue, now) = queue(LIMITS, 1..=2);
    let refused = Some(Outcome::Refused("answered 400 Bad Request: no".to_owned()));
    queue.settle(vec![refused, Some(Outcome::Delivered)], now, 1.0);
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
    let settled = queue.settle(vec![Some(Outcome::Delivered), None, None], now, 1.0);
    assert_eq!(settled.failure, None);
    assert_eq!(queue.ready(now, false), 2, "what was not tried is tried at once");
    let settled = queue.settle(vec![None, None], now, 1.0);
    assert_eq!(settled.failure.unwrap().0, Failure::interrupted());
    assert_eq!(queue.ready(now, true), 0);
}

#[test]
fn the_longest_retry_after_of_a_batch_is_honoured_and_progress_starts_the_backoff_over() {
    let (mut queue, now) = queue(LIMITS, 1..=3);
    let settled = queue.settle(vec![retry(Some(5)), retry(Some(30)), retry(None)], now, 1.0);
    assert_eq!(settled.failure.unwrap().1, Duration::from_secs(30));
    queue.settle(vec![retry(None)], now, 1.0);
    assert_eq!(queue.failures(), 2);
    let settled = queue.settle(vec![Some(Outcome::Delivered), retry(None)], now, 1.0);
    assert_eq!(settled.failure.unwrap().1, Duration::from_millis(500));
}

#[test]
fn a_cursor_that_moves_only_over_other_sinks_records_is_committed_by_number_or_by_time() {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), now);
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
fn of_a_record_that_goes_twice_the_cursor_passes_only_when_both_are_there() {
    let now = Instant::now();
    let mut queue = Queue::new(LIMITS, Position(0), now);
    queue.take(Position(1), [delivery(1, "a"), delivery(1, "a")], now);
    queue.settle(vec![Some(Outcome::Delivered), retry(None)], now, 1.0);
    assert_eq!(queue.cursor(), Position(0));
    queue.settle(vec![Some(Outcome::Delivered)], now, 1.0);
    assert_eq!(queue.cursor(), Position(1));
}
