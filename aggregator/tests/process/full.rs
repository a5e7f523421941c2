//! A start on a disk that is full: not ready, which everybody can see, and ready by itself once there is room.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use nodetap_wire::AssignedWatch;

use crate::running::{Home, Running};
use crate::sender::Sender;
use crate::{event, within};

/// Where the journal of a home is, a filesystem of its own.
struct Disk(PathBuf);

impl Disk {
    /// `None`, loudly and to `ci/test`, which counts it, where this user may not mount.
    fn mount(home: &Home) -> Option<Self> {
        let path = home.journal();
        fs::create_dir(&path).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", "size=4m", "tmpfs", &path.display().to_string()]);
        if !mounted {
            let what = "an aggregator's start on a full disk: this user may not mount a tmpfs";
            eprintln!("NOT RUN: {what}");
            if let Some(list) = std::env::var_os("NODETAP_NOT_RUN") {
                let mut list = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
                writeln!(list, "{what}").unwrap();
            }
        }
        mounted.then_some(Self(path))
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        while ballast.write_all(&[0; 4_096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str]) -> bool {
    Command::new("mount").args(arguments).output().is_ok_and(|output| output.status.success())
}

async fn take(
    home: &Home,
    running: &Running,
    held: Option<AssignedWatch>,
    versions: std::ops::RangeInclusive<u64>,
) -> AssignedWatch {
    let mut sender = Sender::connect(&home.agent, running.agents, held).await;
    let last = *versions.end();
    assert!(sender.send(versions.map(event).collect(), last).await);
    assert!(within(sender.settled()).await);
    sender.watch.clone()
}

/// Until the metric of the last look, which is taken every second, says so.
async fn shown(running: &Running, ready: bool) {
    let wanted = format!("nodetap_ready{{check=\"journal\"}} {}\n", u8::from(ready));
    within(async { while !running.get("/metrics").await.contains(&wanted) {} }).await;
}

#[tokio::test]
async fn a_start_without_room_is_not_ready_until_the_journal_can_take() {
    let home = Home::new(serde_json::json!([]));
    let Some(disk) = Disk::mount(&home) else { return };
    let running = home.start().await;
    shown(&running, true).await;
    assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));
    let held = take(&home, &running, None, 1..=10).await;
    running.tell_to_end();
    assert!(running.ended().await.success());

    disk.fill();
    let running = home.start().await;
    let said = running.get("/readyz").await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("make room"), "{said}");
    assert!(said.contains(&home.journal().display().to_string()), "{said}");
    shown(&running, false).await;

    disk.free();
    // Nobody sends anything: who is not ready is perhaps not found by anybody.
    within(async { while !running.get("/readyz").await.starts_with("HTTP/1.1 200") {} }).await;
    shown(&running, true).await;
    take(&home, &running, Some(held), 11..=20).await;
    running.kill().await;
    let journal = home.open_journal();
    let head = *nodetap_aggregator::journal::Journal::head(&journal).borrow();
    assert_eq!(head.0, 20);
    journal.close().await;
}
