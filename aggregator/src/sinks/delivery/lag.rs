//! How long the oldest record has waited that a sink has not got.
//!
//! Synchronous and without a clock of its own, as the queues are.

/// What is known of the time of a record that was not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// No record that waits unread is older, in nanoseconds since 1970. One that was there at the start and cannot be read may be: then
    /// it is how long the sink's loop has waited for it.
    unread_ns: i64,
}

/// What a sink has before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Records that it has not had.
    pub records: u64,
    /// Some of them were not read yet.
    pub is_unread: bool,
    /// When the first of the backlog that was read had been journalled.
    pub backlog_ns: Option<i64>,
    /// When the first of what is live had been.
    pub live_ns: Option<i64>,
}

// === impl Lag ===

impl Lag {
    /// Nothing was read yet.
    pub fn begin(now_ns: i64) -> Self {
        Self { unread_ns: now_ns }
    }

    /// A record was read; what follows it is not older.
    pub fn read(&mut self, taken_ns: i64) {
        self.unread_ns = taken_ns;
    }

    /// Since when the oldest waits, in seconds; to be asked once a second while nothing is unread, which it remembers.
    pub fn seconds(&mut self, waiting: Waiting, now_ns: i64) -> f64 {
        let Waiting { records, is_unread, backlog_ns, live_ns } = waiting;
        let is_unread = is_unread && records > 0;
        if !is_unread {
            // What comes next comes after this look.
            self.unread_ns = now_ns;
        }
        let oldest = backlog_ns.or(is_unread.then_some(self.unread_ns)).or(live_ns).unwrap_or(now_ns);
        now_ns.saturating_sub(oldest).max(0) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn unread(records: u64) -> Waiting {
        Waiting { records, is_unread: records > 0, ..Waiting::default() }
    }

    #[test]
    fn with_nothing_read_yet_a_record_waits_since_the_loop_began() {
        let mut lag = Lag::begin(100 * SECOND);
        assert_eq!(lag.seconds(unread(5), 107 * SECOND), 7.0);
        assert_eq!(lag.seconds(unread(9), 160 * SECOND), 60.0);
        // The first of them tells its own age, and of those behind it that they are not older.
        lag.read(40 * SECOND);
        let first = Waiting { backlog_ns: Some(40 * SECOND), ..unread(9) };
        assert_eq!(lag.seconds(first, 161 * SECOND), 121.0);
        assert_eq!(lag.seconds(unread(8), 161 * SECOND), 121.0);
    }

    #[test]
    fn after_an_idle_hour_a_record_waits_since_it_came() {
        let mut lag = Lag::begin(0);
        lag.read(10 * SECOND);
        for second in 11..3_611 {
            assert_eq!(lag.seconds(unread(0), second * SECOND), 0.0);
        }
        assert_eq!(lag.seconds(unread(1), 3_612 * SECOND), 2.0, "not since the one before it");
    }

    #[test]
    fn the_oldest_is_of_the_backlog_and_what_is_live_counts_where_there_is_none() {
        let mut lag = Lag::begin(0);
        lag.read(50 * SECOND);
        let live = Waiting { records: 3, live_ns: Some(90 * SECOND), ..Waiting::default() };
        let both = Waiting { is_unread: true, ..live };
        let all = Waiting { backlog_ns: Some(20 * SECOND), ..both };
        assert_eq!([all, both, live].map(|waiting| lag.seconds(waiting, 100 * SECOND)), [80.0, 50.0, 10.0]);
        let later = Waiting { live_ns: Some(101 * SECOND), ..live };
        assert_eq!(lag.seconds(later, 100 * SECOND), 0.0, "a clock that goes back");
    }
}
