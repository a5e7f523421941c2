use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::sinks::tests::journal::Memory;
use crate::sinks::tests::looping;
use crate::sinks::{Delivery, Failure, FailureClass, Limits, Outcome};

/// A sink that does as it is told, and keeps what it took.
struct Scripted {
    limits: Limits,
    script: Script,
    took: Took,
}

/// What becomes of a delivery; none: the attempt hangs.
type Script = Box<dyn FnMut(&Delivery) -> Option<Outcome> + Send>;
type Took = Arc<Mutex<Vec<(u64, String)>>>;

fn scripted(script: impl FnMut(&Delivery) -> Option<Outcome> + Send + 'static) -> (Scripted, Took) {
    let took = Took::default();
    let limits = Limits { records: 8, bytes: 1 << 20, wait: Duration::ZERO };
    (Scripted { limits, script: Box::new(script), took: Arc::clone(&took) }, took)
}

impl Sink for Scripted {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn deliver(&mut self, batch: &[Delivery], report: &mut Report) {
        for (index, delivery) in batch.iter().enumerate() {
            match (self.script)(delivery) {
                Some(Outcome::Delivered) => {
                    self.took.lock().unwrap().push((delivery.position.0, delivery.object.to_string()));
                    report.set(index, Outcome::Delivered);
                }
                Some(retry @ Outcome::Retry(_)) => return report.set(index, retry),
                Some(refused) => report.set(index, refused),
                None => std::future::pending().await,
            }
        }
    }
}

fn down() -> Option<Outcome> {
    Some(Outcome::Retry(Failure { class: FailureClass::Unavailable, reason: "down".to_owned(), after: None }))
}

fn run<S: Sink>(
    name: &str,
    journal: &Memory,
    sink: S,
) -> (CancellationToken, tokio::task::JoinHandle<()>, SinkMetrics) {
    let (delivering, metrics) = looping(name, journal, Encoder::default(), sink);
    let stop = CancellationToken::new();
    let token = stop.clone();
    (stop, tokio::spawn(async move { delivering.run(token).await.unwrap() }), metrics)
}

#[tokio::test(start_paused = true)]
async fn a_sink_gets_what_was_there_before_it_and_what_comes_later_in_order() {
    let journal = Memory::new();
    for _ in 0..700 {
        journal.event("a", "old");
    }
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (stop, task, metrics) = run("s", &journal, sink);
    journal.reached("s", 700).await;
    journal.event("a", "new");
    journal.reached("s", 701).await;
    stop.cancel();
    task.await.unwrap();
    let positions: Vec<u64> = took.lock().unwrap().iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=701).collect::<Vec<_>>());
    assert_eq!((metrics.delivered.get(), metrics.lag_records.get()), (701, 0));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_for_ten_minutes_gets_everything_in_order_and_holds_up_nobody() {
    let journal = Memory::new();
    for index in 0..50 {
        journal.event(if index % 2 == 0 { "a" } else { "b" }, "x");
    }
    let began = Instant::now();
    let (sick, late) =
        scripted(move |_| if began.elapsed().as_secs() < 600 { down() } else { Some(Outcome::Delivered) });
    let (well, soon) = scripted(|_| Some(Outcome::Delivered));
    let (stop, sick_task, metrics) = run("sick", &journal, sick);
    let (_, _well_task, _) = run("well", &journal, well);

    journal.reached("well", 50).await;
    assert!(began.elapsed() < Duration::from_secs(1), "the sink that is well waited {:?}", began.elapsed());
    assert_eq!(soon.lock().unwrap().len(), 50);
    assert!(late.lock().unwrap().is_empty());
    assert_eq!(journal.cursor_of("sick"), Some(Position(0)));

    journal.reached("sick", 50).await;
    assert!(began.elapsed() < Duration::from_secs(600 + 61));
    stop.cancel();
    sick_task.await.unwrap();
    let mut of: HashMap<String, Vec<u64>> = HashMap::new();
    for (position, object) in late.lock().unwrap().iter() {
        of.entry(object.clone()).or_default().push(*position);
    }
    assert_eq!(of["a"], (1..=50).step_by(2).collect::<Vec<_>>());
    assert_eq!(of["b"], (2..=50).step_by(2).collect::<Vec<_>>());
    assert!(metrics.retried.get() >= 10 && metrics.retried.get() < 60, "{} tries", metrics.retried.get());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_event_and_records_that_are_refused_are_dead_letters_and_the_rest_goes_on() {
    let journal = Memory::new();
    journal.event("a", "fine");
    journal.raw("{not json");
    journal.event("poison", "x");
    journal.event("a", "fine");
    let (sink, took) = scripted(|delivery| {
        Some(if &*delivery.object == "poison" {
            Outcome::Refused("never".to_owned())
        } else {
            Outcome::Delivered
        })
    });
    let (_stop, _task, metrics) = run("s", &journal, sink);
    journal.reached("s", 4).await;
    assert_eq!(took.lock().unwrap().iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 4]);
    let dead = journal.dead("s");
    assert_eq!(dead.len(), 2, "{dead:?}");
    assert!(
        dead.iter().any(|(position, reason)| *position == 2 && reason.starts_with("not an Event")),
        "{dead:?}"
    );
    assert!(dead.contains(&(3, "never".to_owned())), "{dead:?}");
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_a_batch_delivered_before_it_failed_is_not_sent_again() {
    let journal = Memory::new();
    for _ in 0..8 {
        journal.event("a", "x");
    }
    let mut failed = false;
    let (sink, took) = scripted(move |delivery| {
        if delivery.position == Position(5) && !std::mem::replace(&mut failed, true) {
            return down();
        }
        Some(Outcome::Delivered)
    });
    let (_stop, _task, metrics) = run("s", &journal, sink);
    journal.reached("s", 8).await;
    assert_eq!(
        took.lock().unwrap().iter().map(|(position, _)| *position).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!((metrics.delivered.get(), metrics.retried.get()), (8, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_delivered_until_the_cursor_of_what_was_is_durable() {
    let journal = Memory::new();
    for _ in 0..16 {
        journal.event("a", "x");
    }
    journal.set_cursor("s", 0);
    journal.fail_commits(3);
    let early = Arc::new(Mutex::new(0));
    let (counted, cursor) = (Arc::clone(&early), journal.clone());
    let (sink, took) = scripted(move |_| {
        *counted.lock().unwrap() += usize::from(cursor.cursor_of("s") == Some(Position(0)));
        Some(Outcome::Delivered)
    });
    let (_stop, _task, _) = run("s", &journal, sink);
    journal.reached("s", 16).await;
    assert_eq!(took.lock().unwrap().len(), 16);
    assert_eq!(*early.lock().unwrap(), 8, "one batch, no more");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_is_stopped_waits_for_its_batch_only_so_long_and_commits_what_was_delivered() {
    let journal = Memory::new();
    for _ in 0..4 {
        journal.event("a", "x");
    }
    let (sink, took) = scripted(|delivery| (delivery.position < Position(3)).then_some(Outcome::Delivered));
    let (stop, task, _) = run("s", &journal, sink);
    while took.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    stop.cancel();
    task.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(journal.cursor_of("s"), Some(Position(2)));
}

#[tokio::test(start_paused = true)]
async fn a_sink_goes_on_where_its_cursor_stands_and_counts_what_retention_took_from_it() {
    let journal = Memory::new();
    for _ in 0..10 {
        journal.event("a", "x");
    }
    journal.set_cursor("s", 3);
    journal.drop_up_to(6);
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (_stop, _task, metrics) = run("s", &journal, sink);
    journal.reached("s", 10).await;
    assert_eq!(took.lock().unwrap().iter().map(|(position, _)| *position).collect::<Vec<_>>(), [7, 8, 9, 10]);
    assert_eq!(metrics.missed.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_new_sink_misses_nothing_by_what_retention_took_before_it() {
    let journal = Memory::new();
    for _ in 0..10 {
        journal.event("a", "x");
    }
    journal.drop_up_to(6);
    let (sink, _) = scripted(|_| Some(Outcome::Delivered));
    let (_stop, _task, metrics) = run("s", &journal, sink);
    journal.reached("s", 10).await;
    assert_eq!((metrics.delivered.get(), metrics.missed.get()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_passes_what_is_gone_whole_only_after_some_tries() {
    let journal = Memory::new();
    for _ in 0..10 {
        journal.event("a", "x");
    }
    journal.set_cursor("s", 3);
    journal.drop_up_to(10);
    let (sink, _) = scripted(|_| Some(Outcome::Delivered));
    let (_stop, _task, metrics) = run("s", &journal, sink);
    journal.reached("s", 10).await;
    assert_eq!(metrics.missed.get(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_journal_is_not_trusted() {
    let journal = Memory::new();
    journal.event("a", "x");
    journal.set_cursor("s", 1000);
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (_stop, _task, _) = run("s", &journal, sink);
    journal.reached("s", 1).await;
    assert_eq!(took.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_starts_now_gets_only_what_is_new() {
    let journal = Memory::new();
    journal.event("a", "old");
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (mut delivering, _) = looping("s", &journal, Encoder::default(), sink);
    delivering.start = Position(1);
    journal.event("a", "new, and taken before the loop first ran");
    let task = tokio::spawn(delivering.run(CancellationToken::new()));
    journal.reached("s", 2).await;
    assert_eq!(journal.commits(), 2, "the start is durable before anything is delivered");
    assert_eq!(took.lock().unwrap().iter().map(|(position, _)| *position).collect::<Vec<_>>(), [2]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_began_with_an_empty_journal_and_never_delivered_goes_on_from_there_after_a_restart() {
    let journal = Memory::new();
    let (sink, _) = scripted(|_| down());
    let (stop, task, metrics) = run("s", &journal, sink);
    journal.reached("s", 0).await;
    journal.event("a", "the first");
    while metrics.retried.get() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.cancel();
    task.await.unwrap();
    journal.event("a", "while it was away");
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (mut delivering, _) = looping("s", &journal, Encoder::default(), sink);
    delivering.start = Position(2);
    let task = tokio::spawn(delivering.run(CancellationToken::new()));
    journal.reached("s", 2).await;
    assert_eq!(took.lock().unwrap().iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 2]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_retention_takes_from_a_sink_that_never_delivered_is_missed_after_a_restart_too() {
    let journal = Memory::new();
    for _ in 0..10 {
        journal.event("a", "x");
    }
    journal.drop_up_to(2);
    let (sink, _) = scripted(|_| down());
    let (stop, task, _) = run("s", &journal, sink);
    journal.reached("s", 2).await;
    stop.cancel();
    task.await.unwrap();
    journal.drop_up_to(6);
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (_stop, _task, metrics) = run("s", &journal, sink);
    journal.reached("s", 10).await;
    assert_eq!((took.lock().unwrap().len(), metrics.missed.get()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_the_sink_moves_its_cursor_with_few_commits() {
    let journal = Memory::new();
    for _ in 0..5000 {
        journal.event("a", "x");
    }
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (mut delivering, _) = looping("s", &journal, Encoder::default(), sink);
    delivering.dispatcher = crate::sinks::tests::dispatcher(&[None], &Encoder::default());
    let task = tokio::spawn(delivering.run(CancellationToken::new()));
    journal.reached("s", 5000).await;
    assert!(took.lock().unwrap().is_empty());
    assert_eq!(journal.commits(), 2, "its start, and its end");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn when_the_loop_is_stopped_the_batch_in_flight_ends_and_the_rest_follows() {
    let journal = Memory::new();
    for _ in 0..16 {
        journal.event("a", "x");
    }
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let (sink, took) = scripted(move |delivery| {
        if delivery.position == Position(3) {
            stopping.cancel();
        }
        Some(Outcome::Delivered)
    });
    let (delivering, _) = looping("s", &journal, Encoder::default(), sink);
    delivering.run(stop).await.unwrap();
    assert_eq!(took.lock().unwrap().len(), 16);
    assert_eq!(journal.cursor_of("s"), Some(Position(16)));
}

#[tokio::test(start_paused = true)]
async fn while_the_sink_has_a_batch_the_next_one_is_read_and_not_delivered() {
    let journal = Memory::new();
    let first = journal.event("a", "in the sink's hands");
    let mut asked = 0;
    let (sink, _) = scripted(move |_| {
        asked += 1;
        assert_eq!(asked, 1, "a second batch was given to the sink before the first was settled");
        None
    });
    let (_stop, task, metrics) = run("s", &journal, sink);
    let read = async {
        journal.was_read(first).await;
        journal.was_read(journal.event("a", "next")).await;
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
    let account = metrics.account();
    assert_eq!((account.read, account.delivered, journal.cursor_of("s")), (2, 0, Some(Position(0))));
    assert!(!task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn while_an_attempt_hangs_no_more_dead_letters_are_read_than_there_is_room_for() {
    let journal = Memory::new();
    journal.event("a", "in the sink's hands");
    for _ in 0..10_000 {
        journal.raw("{not json");
    }
    let (sink, _) = scripted(|_| None);
    let (_stop, _task, metrics) = run("s", &journal, sink);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let read = metrics.account().read;
    assert!((1..=2 * CHUNK as u64).contains(&read), "{read}");
}

#[tokio::test(start_paused = true)]
async fn while_a_sink_is_down_its_lag_is_told() {
    let journal = Memory::new();
    for _ in 0..20 {
        journal.event("a", "x");
    }
    let (tried, mut tries) = tokio::sync::watch::channel(0);
    let (sink, _) = scripted(move |_| {
        tried.send_modify(|tries| *tries += 1);
        down()
    });
    let (_stop, _task, metrics) = run("s", &journal, sink);
    tries.wait_for(|tries| *tries == 4).await.unwrap();
    assert_eq!(metrics.lag_records.get(), 20);
    assert!(metrics.lag_seconds.get() > 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_lag_in_seconds_is_the_age_of_the_oldest_record_and_of_none_it_is_nothing() {
    const HOUR: i64 = 3_600 * 1_000_000_000;
    let journal = Memory::new();
    journal.event("a", "an hour ago");
    journal.age(HOUR);
    journal.event("a", "now");
    journal.fail_reads(true);
    let taken = Arc::new(Mutex::new(false));
    let takes = Arc::clone(&taken);
    let (sink, _) = scripted(move |_| if *takes.lock().unwrap() { Some(Outcome::Delivered) } else { down() });
    let (_stop, _task, metrics) = run("s", &journal, sink);
    let told = async |so: fn(f64) -> bool| {
        while !so(metrics.lag_seconds.get()) {
            tokio::time::sleep(TELL_LAG).await;
        }
    };
    // Nothing was read, so its age is not known: it waits since this began.
    told(|lag| lag > 0.0 && lag < 3_600.0).await;
    journal.fail_reads(false);
    told(|lag| (3_600.0..7_200.0).contains(&lag)).await;
    *taken.lock().unwrap() = true;
    journal.reached("s", 2).await;
    told(|lag| lag == 0.0).await;
    // What comes after all was had is as old as it is, and not as the one before it.
    journal.age(HOUR);
    journal.fail_reads(true);
    journal.event("a", "now");
    told(|lag| lag > 0.0).await;
    assert!(metrics.lag_seconds.get() < 3_600.0);
    assert_eq!(metrics.lag_records.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_answered_500_for_ever_becomes_a_dead_letter_and_the_rest_is_delivered_in_order() {
    let journal = Memory::new();
    for object in ["a", "poison", "poison", "a", "b", "a"] {
        journal.event(object, "x");
    }
    let (sink, took) =
        scripted(|delivery| if delivery.position == Position(2) { down() } else { Some(Outcome::Delivered) });
    let (_stop, _task, metrics) = run("s", &journal, sink);
    journal.reached("s", 6).await;
    let mut of: HashMap<String, Vec<u64>> = HashMap::new();
    for (position, object) in took.lock().unwrap().iter() {
        of.entry(object.clone()).or_default().push(*position);
    }
    assert_eq!((&of["a"], &of["b"], &of["poison"]), (&vec![1, 4, 6], &vec![5], &vec![3]));
    let dead = journal.dead("s");
    assert_eq!(dead, [(2, "down; time and again, while other records were taken".to_owned())]);
    assert_eq!((metrics.dead_letters.get(), metrics.delivered.get()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn in_the_journals_order_nothing_overtakes_a_record_however_often_the_sink_fails_on_it() {
    let journal = Memory::new();
    for object in ["a", "b", "c"] {
        journal.event(object, "x");
    }
    let mut failures = 0;
    let (sink, took) = scripted(move |delivery| {
        failures += usize::from(delivery.position == Position(1));
        if delivery.position == Position(1) && failures <= 30 { down() } else { Some(Outcome::Delivered) }
    });
    let (mut delivering, metrics) = looping("s", &journal, Encoder::default(), sink);
    delivering.order = Order::Journal;
    let task = tokio::spawn(delivering.run(CancellationToken::new()));
    journal.reached("s", 3).await;
    assert_eq!(took.lock().unwrap().iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(metrics.dead_letters.get(), 0);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_is_to_stop_delivers_what_is_journalled_until_nothing_more_comes() {
    let journal = Memory::new();
    for _ in 0..30 {
        journal.event("a", "x");
    }
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (mut delivering, _) = looping("s", &journal, Encoder::default(), sink);
    let (stop, drained) = (CancellationToken::new(), CancellationToken::new());
    delivering.drained = drained.clone();
    stop.cancel();
    let task = tokio::spawn(async move { delivering.run(stop).await.unwrap() });
    journal.reached("s", 30).await;
    // The intake has a batch in hand still.
    journal.event("a", "late");
    journal.reached("s", 31).await;
    assert!(!task.is_finished());
    drained.cancel();
    let before = Instant::now();
    task.await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(took.lock().unwrap().len(), 31);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_is_to_stop_ends_when_its_time_is_up_or_its_sink_fails() {
    for hangs in [true, false] {
        let journal = Memory::new();
        for _ in 0..30 {
            journal.event("a", "x");
        }
        let (sink, took) = scripted(move |delivery| match delivery.position.0 {
            20.. if hangs => None,
            20.. => down(),
            _ => Some(Outcome::Delivered),
        });
        let (delivering, _) = looping("s", &journal, Encoder::default(), sink);
        let stop = CancellationToken::new();
        stop.cancel();
        let began = Instant::now();
        delivering.run(stop).await.unwrap();
        assert_eq!(began.elapsed(), if hangs { Duration::from_secs(5) } else { Duration::ZERO });
        assert_eq!(took.lock().unwrap().len(), 19);
        // What was taken of the batch that failed is passed over.
        assert_eq!(journal.cursor_of("s"), Some(Position(19)));
    }
}

/// Defect 22, grafana/agent#6516: it cannot start with a huge backlog, and what is new waits behind it.
#[tokio::test(start_paused = true)]
async fn defect_22_with_half_a_million_records_before_it_what_is_new_goes_first_and_all_of_them_follow() {
    const BACKLOG: u64 = 500_000;
    let journal = Memory::new();
    for number in 0..BACKLOG {
        journal.event(&format!("old-{}", number % 500), "x");
    }
    journal.age(3_600 * 1_000_000_000);
    let (sink, took) = scripted(|_| Some(Outcome::Delivered));
    let (_stop, _task, metrics) = run("s", &journal, sink);
    // Until it knows whom its backlog is about, which takes a look at all of it.
    while metrics.catching_up.get() == 0 {
        tokio::task::yield_now().await;
    }
    let before = took.lock().unwrap().len();
    assert!(before < 5_000, "{before} were delivered before it was ready for what is new");
    let new = journal.event("new", "x");
    journal.reached("s", BACKLOG + 1).await;
    let took = took.lock().unwrap();
    let place = took.iter().position(|(position, _)| *position == new.0).unwrap();
    assert!(place < before + 1_000, "{} of the backlog went before it", place - before);
    let mut of: HashMap<&str, Vec<u64>> = HashMap::new();
    took.iter().for_each(|(position, object)| of.entry(object).or_default().push(*position));
    assert!(of.values().all(|positions| positions.is_sorted()), "each object's in order");
    assert_eq!((took.len() as u64, metrics.delivered.get()), (BACKLOG + 1, BACKLOG + 1));
    assert_eq!(
        took.iter().map(|(position, _)| *position).collect::<std::collections::HashSet<_>>().len(),
        took.len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_asks_to_be_left_alone_when_it_gets_dead_letters_again_is_left_alone_with_what_is_new() {
    let journal = Memory::new();
    journal.event("a", "refused");
    let (tried, mut tries) = tokio::sync::watch::channel(0);
    let (sink, took) = scripted(move |_| {
        tried.send_modify(|tries| *tries += 1);
        let after = Some(Duration::from_secs(600));
        match *tried.borrow() {
            1 => Some(Outcome::Refused("no".to_owned())),
            2 => Some(Outcome::Retry(Failure {
                class: FailureClass::Throttled,
                reason: "429".to_owned(),
                after,
            })),
            _ => Some(Outcome::Delivered),
        }
    });
    let (mut delivering, _) = looping("s", &journal, Encoder::default(), sink);
    let (order, replays) = mpsc::channel(1);
    delivering.replays = replays;
    let task = tokio::spawn(delivering.run(CancellationToken::new()));
    journal.reached("s", 1).await;
    // Orders are of letters refused before they are given.
    order.send(Letters::default()).await.unwrap();
    tries.wait_for(|tries| *tries == 2).await.unwrap();
    let asked = Instant::now();
    journal.event("b", "new");
    journal.reached("s", 2).await;
    assert!(asked.elapsed().as_secs() >= 599, "{:?}", asked.elapsed());
    assert!(took.lock().unwrap().iter().any(|(position, _)| *position == 2));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_keeps_why_it_was_refused_where_the_sink_is_down_when_it_is_delivered_again() {
    let journal = Memory::new();
    journal.event("a", "refused");
    let (tried, mut tries) = tokio::sync::watch::channel(0);
    let (sink, _) = scripted(move |_| {
        tried.send_modify(|tries| *tries += 1);
        if *tried.borrow() == 1 {
            Some(Outcome::Refused("answered 400: no such field".to_owned()))
        } else {
            down()
        }
    });
    let (mut delivering, _) = looping("s", &journal, Encoder::default(), sink);
    let (order, replays) = mpsc::channel(1);
    delivering.replays = replays;
    let task = tokio::spawn(delivering.run(CancellationToken::new()));
    journal.reached("s", 1).await;
    order.send(Letters::default()).await.unwrap();
    tries.wait_for(|tries| *tries == 4).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(*tries.borrow(), 4, "after three failures it goes back to the others");
    assert_eq!(journal.dead("s"), [(1, "answered 400: no such field".to_owned())]);
    task.abort();
}
