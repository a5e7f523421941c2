#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;

use super::*;

const POD: &str = "shop_web-0_8f0c";

async fn until(stirs: &mut mpsc::Receiver<Stir>, ordinal: u32) {
    let wanted = LogSeen { pod_uid: "8f0c".into(), container: "app".into(), ordinal };
    loop {
        if stirs.recv().await.unwrap().logs.contains(&wanted) {
            return;
        }
    }
}

#[tokio::test]
async fn new_pods_containers_and_logs_are_told() {
    let root = tempfile::tempdir().unwrap();
    let old = root.path().join("shop_old-0_8f0c").join("app");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("4.log"), "").unwrap();
    let mut stirs = spawn(root.path().to_owned(), Held::default(), Metrics::default());
    until(&mut stirs, 4).await;
    let folder = root.path().join(POD).join("app");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0.log"), "x").unwrap();
    until(&mut stirs, 0).await;
    fs::write(folder.join("1.log"), "x").unwrap();
    until(&mut stirs, 1).await;
}

#[tokio::test]
async fn the_end_of_a_container_stirs_when_its_log_is_closed_and_holds_the_log() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(POD).join("app");
    fs::create_dir_all(&folder).unwrap();
    let open = fs::File::create(folder.join("0.log")).unwrap();
    let held = Held::default();
    let mut stirs = spawn(root.path().to_owned(), held.clone(), Metrics::default());
    until(&mut stirs, 0).await;
    (&open).write_all(b"2026-11-22T00:00:00Z stderr F the end\n").unwrap();
    drop(open);
    assert!(stirs.recv().await.unwrap().changed);
    fs::remove_dir_all(&folder).unwrap();
    let log = LogSeen { pod_uid: "8f0c".into(), container: "app".into(), ordinal: 0 };
    assert_eq!(held.last_lines(&log).unwrap().last().unwrap().text, "the end");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_absent_or_replaced_is_looked_for_again() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("pods");
    let metrics = Metrics::default();
    let mut stirs = spawn(root.clone(), Held::default(), metrics.clone());
    tokio::task::yield_now().await;
    let make = |number: u32| {
        let folder = root.join(POD).join("app");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number}.log")), "x").unwrap();
    };
    make(0);
    until(&mut stirs, 0).await;
    fs::rename(&root, parent.path().join("old")).unwrap();
    make(7);
    until(&mut stirs, 7).await;
}
