#![allow(clippy::unwrap_used)]

use super::*;

struct Kept {
    connection: Connection,
    bases: Bases,
}

fn entry(uid: &str, state: &str) -> LedgerEntry {
    LedgerEntry { pod_uid: uid.into(), version: 1, state: state.as_bytes().to_vec().into() }
}

fn changes(instance: &str, sequence: u64, first: bool, entries: Vec<LedgerEntry>) -> LedgerChanges {
    LedgerChanges { instance: instance.into(), sequence, first, entries }
}

// === impl Kept ===

impl Kept {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        make_tables(&connection).unwrap();
        Self { connection, bases: Bases::default() }
    }

    fn take(&mut self, changes: &LedgerChanges) -> LedgerKept {
        let base = self.bases.get("node-1");
        let (base, kept) = write(&self.connection, base, "node-1", changes, 1).unwrap();
        self.bases.set("node-1".into(), base);
        // What is remembered in memory is what the file says.
        let mut read_again = Bases::default();
        read(&self.connection, &mut read_again).unwrap();
        assert_eq!(read_again.of, self.bases.of);
        assert_eq!(read_again.bytes(), self.bases.bytes());
        let bytes: usize = self.recalled().entries.iter().map(|entry| entry.state.len()).sum();
        assert_eq!(bytes, self.bases.bytes());
        kept
    }

    fn recalled(&self) -> RememberedLedger {
        recall(&self.connection, &self.bases, "node-1").unwrap()
    }

    fn states(&self) -> Vec<(String, String)> {
        let text = |entry: LedgerEntry| (entry.pod_uid, String::from_utf8(entry.state.to_vec()).unwrap());
        self.recalled().entries.into_iter().map(text).collect()
    }
}

#[test]
fn changes_of_one_process_add_up_and_what_is_forgotten_goes() {
    let mut kept = Kept::new();
    kept.take(&changes("a", 1, true, vec![entry("", "node"), entry("p1", "one"), entry("p2", "two")]));
    kept.take(&changes("a", 2, false, vec![entry("p1", "one more"), entry("p2", ""), entry("p3", "three")]));
    let states = [("", "node"), ("p1", "one more"), ("p3", "three")];
    assert_eq!(kept.states(), states.map(|(uid, state)| (uid.to_owned(), state.to_owned())));
    assert!(!kept.recalled().partial);
}

#[test]
fn a_batch_that_comes_again_puts_nothing_older_in_the_place_of_what_is_remembered() {
    let mut kept = Kept::new();
    kept.take(&changes("a", 1, true, vec![entry("p1", "old")]));
    kept.take(&changes("a", 3, false, vec![entry("p1", "new")]));
    for sequence in [1, 2, 3] {
        kept.take(&changes("a", sequence, sequence == 1, vec![entry("p1", "old")]));
        assert_eq!(kept.states(), [("p1".to_owned(), "new".to_owned())]);
    }
}

#[test]
fn what_changes_nothing_that_is_remembered_is_not_taken_and_all_is_to_be_told_again() {
    let mut kept = Kept::new();
    assert!(kept.take(&changes("a", 7, false, vec![entry("p1", "part")])).without_base);
    assert!(kept.states().is_empty());
    kept.take(&changes("a", 8, true, vec![entry("p1", "whole")]));
    assert!(kept.take(&changes("b", 1, false, vec![entry("p2", "part")])).without_base);
    assert_eq!(kept.states(), [("p1".to_owned(), "whole".to_owned())], "and what there is stays until it is");
    kept.take(&changes("b", 2, true, vec![entry("p3", "of another process")]));
    assert_eq!(kept.states(), [("p3".to_owned(), "of another process".to_owned())]);
}

#[test]
fn a_node_takes_no_more_room_than_it_has_and_the_rest_is_counted_and_told_to_be_partial() {
    let mut kept = Kept::new();
    let large = "x".repeat(MAX_ENTRY_BYTES);
    let entries = (0..9).map(|number| entry(&number.to_string(), &large)).collect();
    assert_eq!(kept.take(&changes("a", 1, true, entries)).refused, 1);
    assert!(kept.recalled().partial && kept.bases.bytes() == MAX_NODE_BYTES);
    let longer = large.clone() + "x";
    assert_eq!(kept.take(&changes("a", 2, false, vec![entry("0", &longer)])).refused, 1);
    assert_eq!(kept.recalled().entries.len(), 7, "what it was before it grew does not hold any longer");
    assert_eq!(kept.take(&changes("a", 3, false, vec![entry("9", "fits")])).refused, 0);
    assert!(kept.recalled().partial, "until all is told again");
    let entries = (0..=MAX_ENTRIES).map(|number| entry(&number.to_string(), "x")).collect();
    assert_eq!(kept.take(&changes("a", 4, true, entries)).refused, 1);
    kept.take(&changes("a", 5, true, vec![entry("0", "x")]));
    assert!(!kept.recalled().partial);
    assert_eq!(kept.take(&changes("a", 6, false, vec![entry(&"u".repeat(129), "x")])).refused, 1);
}

#[test]
fn a_node_of_which_nothing_is_to_be_remembered_takes_no_room() {
    let mut kept = Kept::new();
    kept.take(&changes("a", 1, true, vec![entry("p1", "x")]));
    kept.take(&changes("", 0, true, vec![]));
    assert!(kept.recalled().entries.is_empty() && kept.bases.len() == 0 && kept.bases.bytes() == 0);
}

#[test]
fn a_node_that_was_not_heard_of_for_long_goes_with_the_next_file() {
    let mut kept = Kept::new();
    kept.take(&changes("a", 1, true, vec![entry("p1", "x")]));
    kept.bases.forget(1);
    assert_eq!(kept.bases.len(), 1);
    kept.bases.forget(2);
    assert_eq!((kept.bases.len(), kept.bases.bytes()), (0, 0));
    assert!(kept.recalled().entries.is_empty());
}
