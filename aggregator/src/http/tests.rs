use super::*;

#[test]
fn a_commit_under_way_for_more_than_ten_seconds_makes_the_journal_unready() {
    let second = 1_000_000_000;
    assert_eq!(hung(None, 100 * second), None);
    assert_eq!(hung(Some(90 * second), 100 * second), None);
    let said = hung(Some(88 * second), 100 * second);
    assert!(said.is_some_and(|said| said.contains("12 s") && said.contains("journal.path")));
}
