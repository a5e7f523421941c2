use super::*;

#[test]
fn waits_grow_to_thirty_seconds_and_start_again_after_progress() {
    for seed in 0..200 {
        let mut backoff = Backoff::new(seed);
        for most in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000] {
            let wait = backoff.wait(None);
            assert!(wait >= SHORTEST && wait <= Duration::from_millis(most), "{wait:?} of {most}");
        }
        backoff.reset();
        assert!(backoff.wait(None) <= FIRST);
    }
}

#[test]
fn waits_are_spread_over_their_whole_range() {
    let mut backoff = Backoff::new(7);
    for _ in 0..10 {
        backoff.wait(None);
    }
    let waits: Vec<_> = (0..200).map(|_| backoff.wait(None)).collect();
    assert!(waits.iter().any(|wait| *wait < Duration::from_secs(5)));
    assert!(waits.iter().any(|wait| *wait > Duration::from_secs(25)));
}

#[test]
fn a_wait_is_as_long_as_the_server_asks_but_not_absurd() {
    let mut backoff = Backoff::new(1);
    let wait = backoff.wait(Some(Duration::from_secs(7)));
    assert!(wait >= Duration::from_secs(7) && wait < Duration::from_secs(8), "{wait:?}");
    let wait = backoff.wait(Some(Duration::MAX));
    assert!(wait <= LONGEST_ASKED + Duration::from_secs(1), "{wait:?}");
}

#[test]
fn it_fails_for_ever_without_overflow() {
    let mut backoff = Backoff { failures: u32::MAX - 1, random: 0 };
    for _ in 0..5 {
        assert!(backoff.wait(None) <= LONGEST);
    }
}
