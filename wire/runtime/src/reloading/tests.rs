#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Mutex;

use super::*;

#[derive(Debug)]
struct Number(Mutex<Result<&'static str, &'static str>>);

impl Source for Number {
    type Contents = String;
    type Made = i64;
    type Error = String;

    const WHAT: &'static str = "number";

    fn read(&self) -> Result<String, String> {
        self.0.lock().unwrap().map(str::to_owned).map_err(str::to_owned)
    }

    fn make(&self, contents: &String) -> Result<i64, String> {
        contents.parse().map_err(|_| format!("{contents} is no number"))
    }

    fn expires(made: &i64) -> Option<i64> {
        Some(*made)
    }
}

fn put(reloading: &Reloading<Number>, contents: Result<&'static str, &'static str>) {
    *reloading.source().0.lock().unwrap() = contents;
}

#[test]
fn what_is_new_and_good_is_taken_and_what_is_bad_leaves_the_old() {
    let counts = Counts::default();
    let reloading = Reloading::load(Number(Mutex::new(Ok("1"))), counts.clone()).unwrap();
    assert!(!reloading.refresh(), "nothing is new");
    assert_eq!((*reloading.get(), counts.expires.get()), (1, 1));

    for bad in [Ok("one"), Err("no such file")] {
        put(&reloading, bad);
        assert!(!reloading.refresh());
        assert_eq!(*reloading.get(), 1);
    }
    assert!(!reloading.refresh(), "it is still bad, and counted again");
    assert_eq!((counts.failures.get(), counts.reloads.get()), (3, 0));

    put(&reloading, Ok("2"));
    let other = reloading.clone();
    assert!(other.refresh());
    assert_eq!((*reloading.get(), counts.expires.get(), counts.reloads.get()), (2, 2, 1));
}

#[test]
fn what_cannot_be_made_at_first_is_an_error() {
    let load = |contents| Reloading::load(Number(Mutex::new(contents)), Counts::default()).map(|_| ());
    assert_eq!(load(Ok("one")).unwrap_err(), "one is no number");
    assert_eq!(load(Err("no such file")).unwrap_err(), "no such file");
}

#[tokio::test(start_paused = true)]
async fn the_files_are_followed() {
    let reloading = Reloading::load(Number(Mutex::new(Ok("1"))), Counts::default()).unwrap();
    put(&reloading, Ok("2"));
    let counts = reloading.0.counts.clone();
    tokio::select! {
        () = reloading.follow() => {}
        () = async { while counts.reloads.get() == 0 { tokio::time::sleep(POLL).await } } => {}
    }
    assert_eq!(*reloading.get(), 2);
}
