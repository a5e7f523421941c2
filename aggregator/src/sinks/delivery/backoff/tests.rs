use super::*;

#[test]
fn the_bound_doubles_up_to_a_minute_and_starts_over_after_a_success() {
    let mut backoff = Backoff::default();
    let waits: Vec<u64> = (0..10).map(|_| backoff.next(None, 1.0).as_millis() as u64).collect();
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    backoff.reset();
    assert_eq!(backoff.next(None, 1.0), FIRST);
}

#[test]
fn a_wait_is_a_part_of_the_bound_and_never_nothing() {
    assert_eq!(Backoff::default().next(None, 0.5), Duration::from_millis(250));
    assert_eq!(Backoff::default().next(None, 0.0), Duration::from_millis(50));
    for _ in 0..100 {
        let part = jitter();
        assert!((0.0..1.0).contains(&part), "{part}");
    }
    assert_ne!(jitter(), jitter());
}

#[test]
fn what_the_sink_asks_for_is_honoured_up_to_an_hour() {
    assert_eq!(Backoff::default().next(Some(Duration::from_secs(7)), 1.0), Duration::from_secs(7));
    assert_eq!(Backoff::default().next(Some(Duration::ZERO), 1.0), FIRST);
    assert_eq!(Backoff::default().next(Some(Duration::MAX), 1.0), Duration::from_secs(3600));
}
