use super::*;

#[tokio::test]
async fn the_first_task_to_end_is_named_with_its_error() {
    let mut tasks = Tasks::default();
    let stop = tasks.stop_token();
    tasks.spawn("steady", async move { stop.cancelled().await });
    tasks.spawn_fallible("brittle", async { Err::<(), _>("disk gone") });
    let end = tasks.unexpected_end().await;
    assert_eq!(end, UnexpectedEnd { name: "brittle".into(), reason: "disk gone".into() });
    assert_eq!(end.to_string(), "task brittle ended: disk gone");
}

#[tokio::test]
async fn a_task_that_panics_is_an_unexpected_end() {
    let mut tasks = Tasks::default();
    tasks.spawn("shaky", async { panic!("ouch") });
    assert_eq!(tasks.unexpected_end().await.name, "shaky");
}

#[tokio::test(start_paused = true)]
async fn a_drain_names_the_tasks_that_did_not_end_in_time() {
    let mut tasks = Tasks::default();
    let stop = tasks.stop_token();
    tasks.spawn("obedient", async move { stop.cancelled().await });
    tasks.spawn("deaf", std::future::pending());
    assert_eq!(tasks.drain(Duration::from_secs(1)).await, ["deaf"]);
}
