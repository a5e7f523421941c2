//! A process that is killed while it writes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command as Process, Stdio};

use super::*;

const FOLDER: &str = "NODETAP_TEST_KILL_FOLDER";
const START: &str = "NODETAP_TEST_KILL_START";
const BATCH: u64 = 7;

fn batch(start: u64) -> Taken {
    let records = (start..start + BATCH).map(|n| event(&format!("u{n}"), n, 1)).collect();
    Taken { checkpoints: vec![checkpoint(1, &(start + BATCH - 1).to_string())], ..taken(records) }
}

/// What is killed: appends for ever, and says which versions were acknowledged. Without its environment it does nothing.
#[tokio::test]
async fn the_process_that_is_killed() {
    let (Ok(folder), Ok(start)) = (std::env::var(FOLDER), std::env::var(START)) else { return };
    let journal = open(&Settings::new(folder));
    let mut start: u64 = start.parse().unwrap();
    let mut stdout = std::io::stdout();
    loop {
        // Several at once, so that groups are of several batches.
        let appends =
            [batch(start), batch(start + BATCH), batch(start + 2 * BATCH)].map(|batch| journal.append(batch));
        for result in futures_util::future::join_all(appends).await {
            result.unwrap();
        }
        start += 3 * BATCH;
        writeln!(stdout, "acknowledged {}", start - 1).unwrap();
        stdout.flush().unwrap();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..8 {
        // Begins with what was acknowledged already, as an agent does that missed the acknowledgement.
        let start = acknowledged.max(2 * BATCH) - 2 * BATCH + 1;
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::sqlite::tests::kill::the_process_that_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(START, start.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let spread = 1 + (std::process::id() as usize).wrapping_mul(round * 31 + 7) % 40;
        let seen =
            lines.by_ref().filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok()).nth(spread);
        acknowledged = acknowledged.max(seen.expect("the child writes until it is killed"));
        child.kill().unwrap();
        // What it said before the signal came counts as well.
        let last = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok()).last();
        acknowledged = acknowledged.max(last.unwrap_or(0));
        child.wait().unwrap();

        let journal = open(&Settings::new(folder.path()));
        let entries = all(&journal).await;
        let positions: Vec<_> = entries.iter().map(|entry| entry.position.0).collect();
        assert_eq!(positions, (1..=entries.len() as u64).collect::<Vec<_>>(), "round {round}: dense");
        let found: Vec<u64> = versions(&entries).iter().map(|version| version.parse().unwrap()).collect();
        let once: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "round {round}: each once");
        assert!(
            (1..=acknowledged).all(|version| once.contains(&version)),
            "round {round}: all acknowledged are there"
        );
        let checkpoint: u64 = journal.checkpoints().await.unwrap()[0].resource_version.parse().unwrap();
        assert!(once.contains(&checkpoint), "round {round}: a checkpoint never leads its records");
        journal.close().await;
    }
}
