//! Counts by each field, of segments in memory, in files, and of records that are in none yet.

use super::*;
use crate::history::conformance;

#[tokio::test]
async fn counts_are_by_each_field_as_the_records_themselves_say_wherever_their_index_is() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let journal = open(&clock.settings(folder.path()));
    let records = conformance::records();
    let half = records.len() / 2;
    journal.append(taken(records[..half].to_vec())).await.unwrap();
    clock.advance(DAY);
    journal.append(taken(records[half..].to_vec())).await.unwrap();
    while journal.shared.directory.read(|state| state.stored.is_empty()) {
        tokio::task::yield_now().await;
    }
    let entries = all(&journal).await;
    assert_eq!(entries.len(), records.len());
    conformance::conforms(&journal, &entries, &conformance::filters()).await;
}
