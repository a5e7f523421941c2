use super::*;

const QUICK: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(290);

fn watch_from(next: &Next) -> &str {
    match next {
        Next::Send(Request::Watch { resource_version, .. }) => resource_version,
        other => panic!("{other:?} is no watch"),
    }
}

fn is_streamed_list(next: &Next) -> bool {
    matches!(next, Next::Send(Request::StreamedList { .. }))
}

fn first_page() -> Next {
    Next::Send(Request::Page { continue_token: String::new(), limit: PAGE_ITEMS })
}

fn refused(code: u16) -> Input<'static> {
    Input::Refused { code, retry_after: None, message: "refused" }
}

fn broken(how: Break, after: Duration) -> Input<'static> {
    Input::Broken { how, after, message: "broken" }
}

/// A machine that watches after `position`, answered.
fn watching(position: &str) -> Machine {
    let mut machine = Machine::new(position, 1);
    assert_eq!(watch_from(&machine.start()), position);
    machine.step(Input::Begun);
    machine
}

/// A machine whose server streams no lists, asked for the first page.
fn paging() -> Machine {
    let mut machine = Machine::new("", 1);
    assert!(is_streamed_list(&machine.start()));
    assert_eq!(machine.step(refused(422)).next, first_page());
    machine
}

/// The wait that a step asks for, and what is asked for after it.
fn after_wait(machine: &mut Machine, step: Step) -> (Duration, Next) {
    let Next::Wait(wait) = step.next else { panic!("{step:?} is no wait") };
    assert_eq!(machine.state(), WatchState::BackingOff);
    (wait, machine.step(Input::TimeIsUp).next)
}

fn take(machine: &mut Machine, resource_version: &str) {
    assert_eq!(machine.step(Input::Taken { resource_version }).next, Next::Read);
}

#[test]
fn a_checkpoint_is_watched_from_without_a_list() {
    let mut machine = watching("41");
    assert_eq!(machine.state(), WatchState::Watching);
    assert!(!machine.is_listing());
    assert_eq!(machine.checkpoint(), None);
}

#[test]
fn a_streamed_list_becomes_the_watch_at_its_bookmark() {
    let mut machine = Machine::new("", 1);
    assert!(is_streamed_list(&machine.start()));
    assert_eq!(machine.state(), WatchState::Listing);
    machine.step(Input::Begun);
    take(&mut machine, "90");
    take(&mut machine, "12");
    assert!(machine.is_listing());
    assert_eq!(machine.checkpoint(), None, "nothing is certain before the list's end");

    let step = machine.step(Input::Bookmark { resource_version: "95", ends_list: true });
    assert_eq!(step.next, Next::Read);
    assert_eq!(machine.state(), WatchState::Watching);
    assert_eq!(machine.checkpoint(), Some("95"));
    assert_eq!(machine.checkpoint(), None, "a checkpoint is told once");
    take(&mut machine, "96");
    assert_eq!(machine.checkpoint(), Some("96"));
}

#[test]
fn a_server_that_refuses_to_stream_is_paged_at_once_and_for_good() {
    for code in [400, 422, 501] {
        let mut machine = Machine::new("", 1);
        machine.start();
        let step = machine.step(refused(code));
        assert_eq!((step.next, step.lost), (first_page(), Some(Lost::Unsupported)));
        machine.step(Input::Page { resource_version: "7", continue_token: "" });
        machine.step(Input::Begun);
        assert_eq!(machine.step(refused(410)).next, first_page(), "{code} is remembered");
    }
}

#[test]
fn a_stream_that_ends_without_its_bookmark_is_paged() {
    let mut machine = Machine::new("", 1);
    machine.start();
    machine.step(Input::Begun);
    take(&mut machine, "5");
    let step = machine.step(Input::Ended { after: LONG });
    assert_eq!((step.next, step.lost), (first_page(), Some(Lost::Unsupported)));
    assert_eq!(machine.checkpoint(), None);
}

#[test]
fn a_stream_that_falls_silent_before_its_bookmark_is_paged() {
    let mut machine = Machine::new("", 1);
    machine.start();
    machine.step(Input::Begun);
    let step = machine.step(broken(Break::Idle, LONG));
    assert_eq!(after_wait(&mut machine, step).1, first_page());
}

#[test]
fn a_stream_that_is_cut_once_is_streamed_again_and_then_paged() {
    let mut machine = Machine::new("", 1);
    machine.start();
    machine.step(Input::Begun);
    let step = machine.step(broken(Break::Cut, QUICK));
    assert!(is_streamed_list(&after_wait(&mut machine, step).1));
    machine.step(Input::Begun);
    let step = machine.step(broken(Break::Cut, QUICK));
    assert_eq!(after_wait(&mut machine, step).1, first_page());
}

#[test]
fn a_server_that_cannot_be_reached_still_may_stream() {
    let mut machine = Machine::new("", 1);
    let mut next = machine.start();
    for _ in 0..10 {
        assert!(is_streamed_list(&next));
        let step = machine.step(broken(Break::Unanswered, QUICK));
        next = after_wait(&mut machine, step).1;
    }
}

#[test]
fn a_paged_list_is_watched_from_its_first_pages_version() {
    let mut machine = paging();
    machine.step(Input::Begun);
    assert_eq!(machine.state(), WatchState::Listing);
    let step = machine.step(Input::Page { resource_version: "70", continue_token: "t1" });
    let second = Request::Page { continue_token: "t1".to_owned(), limit: PAGE_ITEMS };
    assert_eq!(step.next, Next::Send(second));
    assert_eq!(machine.checkpoint(), None, "no checkpoint within a list");
    let step = machine.step(Input::Page { resource_version: "71", continue_token: "" });
    assert_eq!(watch_from(&step.next), "70");
    assert_eq!(machine.checkpoint(), Some("70"));
    machine.step(Input::Begun);
    assert_eq!(machine.state(), WatchState::Watching);
}

#[test]
fn a_page_that_expires_starts_the_list_again() {
    let mut machine = paging();
    machine.step(Input::Page { resource_version: "70", continue_token: "t1" });
    let step = machine.step(refused(410));
    assert_eq!((step.next, step.lost), (first_page(), Some(Lost::Expired)));
    let step = machine.step(Input::Page { resource_version: "80", continue_token: "" });
    assert_eq!(watch_from(&step.next), "80");
}

#[test]
fn a_page_that_is_too_long_is_asked_for_by_halves() {
    let mut machine = paging();
    machine.step(Input::Page { resource_version: "70", continue_token: "t1" });
    let mut limit = PAGE_ITEMS;
    while limit > 1 {
        limit /= 2;
        let half = Request::Page { continue_token: "t1".to_owned(), limit };
        assert_eq!(machine.step(Input::PageTooLong).next, Next::Send(half));
    }
    let step = machine.step(Input::PageTooLong);
    assert!(matches!(step.next, Next::Wait(_)), "one item alone: {step:?}");
}

#[test]
fn a_page_without_a_version_or_that_leads_to_itself_is_garbage() {
    let mut machine = paging();
    let step = machine.step(Input::Page { resource_version: "", continue_token: "" });
    assert_eq!(step.lost, Some(Lost::Garbage));
    assert_eq!(after_wait(&mut machine, step).1, first_page());
    machine.step(Input::Page { resource_version: "7", continue_token: "t" });
    let step = machine.step(Input::Page { resource_version: "7", continue_token: "t" });
    assert_eq!(step.lost, Some(Lost::Garbage));
    assert_eq!(after_wait(&mut machine, step).1, first_page());
}

#[test]
fn a_list_that_fails_is_tried_for_ever_and_goes_on_where_it_was() {
    let mut machine = paging();
    machine.step(Input::Page { resource_version: "70", continue_token: "t1" });
    for code in [500, 503, 401, 403, 429, 500, 504, 500] {
        let step = machine.step(refused(code));
        let again = Request::Page { continue_token: "t1".to_owned(), limit: PAGE_ITEMS };
        assert_eq!(after_wait(&mut machine, step).1, Next::Send(again));
    }
    let step = machine.step(Input::Page { resource_version: "70", continue_token: "" });
    assert_eq!(watch_from(&step.next), "70");
}

#[test]
fn a_cut_watch_resumes_after_the_last_record() {
    let mut machine = watching("41");
    take(&mut machine, "42");
    take(&mut machine, "47");
    let step = machine.step(broken(Break::Cut, QUICK));
    assert_eq!(step.lost, Some(Lost::Cut));
    let (wait, next) = after_wait(&mut machine, step);
    assert_eq!(watch_from(&next), "47");
    assert!(wait <= super::super::backoff::FIRST, "{wait:?} after progress");
}

#[test]
fn a_watch_that_the_server_ends_in_time_is_no_failure() {
    let mut machine = watching("41");
    for _ in 0..20 {
        let step = machine.step(Input::Ended { after: LONG });
        assert_eq!(step.lost, Some(Lost::Ended));
        assert_eq!(watch_from(&step.next), "41");
        machine.step(Input::Begun);
        assert_eq!(machine.state(), WatchState::Watching);
        assert_eq!(machine.failure(), "");
    }
}

#[test]
fn a_410_lists_again_at_once_and_backs_off_when_it_comes_again() {
    let mut machine = watching("41");
    let step = machine.step(refused(410));
    assert_eq!(step.lost, Some(Lost::Expired));
    assert!(is_streamed_list(&step.next));
    assert!(machine.is_listing());
    machine.step(Input::Begun);
    machine.step(Input::Bookmark { resource_version: "60", ends_list: true });
    assert_eq!(machine.checkpoint(), Some("60"));

    let step = machine.step(refused(410));
    assert!(is_streamed_list(&after_wait(&mut machine, step).1));
    machine.step(Input::Begun);
    machine.step(Input::Bookmark { resource_version: "61", ends_list: true });
    take(&mut machine, "62");
    assert!(is_streamed_list(&machine.step(refused(410)).next), "progress makes it a first one again");
}

#[test]
fn a_410_lists_at_once_after_other_failures_and_after_another_assignment() {
    let mut machine = watching("41");
    for _ in 0..5 {
        let step = machine.step(refused(500));
        assert_eq!(watch_from(&after_wait(&mut machine, step).1), "41");
    }
    assert!(is_streamed_list(&machine.step(refused(410)).next));
    let step = machine.step(refused(500));
    assert!(is_streamed_list(&after_wait(&mut machine, step).1), "a list that fails is waited for");
    let step = machine.step(refused(410));
    assert!(is_streamed_list(&after_wait(&mut machine, step).1), "and so is a second 410");

    machine.restart("43");
    assert!(is_streamed_list(&machine.step(refused(410)).next));
}

#[test]
fn an_error_frame_after_records_loses_none_of_them() {
    let mut machine = watching("41");
    take(&mut machine, "45");
    let step = machine.step(refused(500));
    assert_eq!(step.lost, Some(Lost::Refused));
    assert_eq!(watch_from(&after_wait(&mut machine, step).1), "45");
    assert_eq!(machine.checkpoint(), Some("45"));
}

#[test]
fn refusals_back_off_and_keep_the_position() {
    let reasons = [
        (401, Lost::Denied),
        (403, Lost::Denied),
        (404, Lost::Refused),
        (429, Lost::Throttled),
        (500, Lost::Refused),
    ];
    for (code, lost) in reasons {
        let mut machine = Machine::new("41", 1);
        machine.start();
        let step = machine.step(refused(code));
        assert_eq!(step.lost, Some(lost));
        assert_eq!(machine.failure(), "refused");
        assert_eq!(watch_from(&after_wait(&mut machine, step).1), "41");
    }
}

#[test]
fn retry_after_is_waited_for() {
    let mut machine = Machine::new("41", 1);
    machine.start();
    let asked = Duration::from_secs(17);
    let step = machine.step(Input::Refused { code: 429, retry_after: Some(asked), message: "slower" });
    assert!(after_wait(&mut machine, step).0 >= asked);
}

#[test]
fn waits_grow_without_progress_and_start_again_with_it() {
    let mut machine = Machine::new("41", 3);
    machine.start();
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        let step = machine.step(refused(500));
        longest = longest.max(after_wait(&mut machine, step).0);
    }
    assert!(longest > Duration::from_secs(20) && longest <= super::super::backoff::LONGEST, "{longest:?}");
    machine.step(Input::Begun);
    take(&mut machine, "42");
    let step = machine.step(broken(Break::Cut, QUICK));
    assert!(after_wait(&mut machine, step).0 <= super::super::backoff::FIRST);
}

#[test]
fn an_empty_answer_is_no_success_and_lists_again_after_three() {
    let mut machine = watching("41");
    for round in 1..=3 {
        let step = machine.step(Input::Ended { after: QUICK });
        assert_eq!(step.lost, Some(Lost::Empty));
        let (_, next) = after_wait(&mut machine, step);
        if round < 3 {
            assert_eq!(watch_from(&next), "41");
        } else {
            assert!(is_streamed_list(&next));
        }
        machine.step(Input::Begun);
    }
}

#[test]
fn empty_answers_after_each_list_back_off_ever_longer() {
    let mut machine = watching("41");
    let (mut waited, mut lists) = (Duration::ZERO, 0);
    let mut next = Next::Read;
    for _ in 0..100 {
        if is_streamed_list(&next) {
            lists += 1;
            machine.step(Input::Bookmark { resource_version: "50", ends_list: true });
        }
        let step = machine.step(Input::Ended { after: QUICK });
        let (wait, again) = after_wait(&mut machine, step);
        machine.step(Input::Begun);
        (waited, next) = (waited + wait, again);
    }
    assert!(lists > 10, "{lists} lists");
    assert!(waited > Duration::from_secs(600), "{waited:?} for {lists} lists");
}

#[test]
fn an_empty_answer_among_good_ones_is_forgotten() {
    let mut machine = watching("41");
    for version in 42..60_u32 {
        let step = machine.step(Input::Ended { after: QUICK });
        assert!(!is_streamed_list(&after_wait(&mut machine, step).1));
        machine.step(Input::Begun);
        take(&mut machine, &version.to_string());
        machine.step(Input::Ended { after: QUICK });
        machine.step(Input::Begun);
    }
}

#[test]
fn a_bookmark_that_repeats_the_position_is_no_progress() {
    let mut machine = watching("41");
    machine.step(Input::Bookmark { resource_version: "41", ends_list: false });
    assert_eq!(machine.checkpoint(), None);
    assert_eq!(machine.step(Input::Ended { after: QUICK }).lost, Some(Lost::Empty));
}

#[test]
fn a_bookmark_moves_the_checkpoint_and_an_empty_one_does_not() {
    let mut machine = watching("41");
    machine.step(Input::Bookmark { resource_version: "99", ends_list: false });
    assert_eq!(machine.checkpoint(), Some("99"));
    machine.step(Input::Bookmark { resource_version: "", ends_list: false });
    assert_eq!(machine.checkpoint(), None);
}

#[test]
fn a_deletion_moves_the_position_forwards_only() {
    let mut machine = watching("41");
    machine.step(Input::Deleted { resource_version: "30" });
    assert_eq!(machine.checkpoint(), None);
    machine.step(Input::Deleted { resource_version: "52" });
    assert_eq!(machine.checkpoint(), Some("52"));
    let mut machine = Machine::new("", 1);
    machine.start();
    machine.step(Input::Begun);
    machine.step(Input::Deleted { resource_version: "52" });
    assert_eq!(machine.checkpoint(), None, "nothing is certain within a list");
}

#[test]
fn a_position_that_the_server_cannot_read_is_listed_again() {
    for (code, message) in
        [(400, "invalid resourceVersion"), (504, "Too large resource version: 9, current: 5")]
    {
        let mut machine = Machine::new("999", 1);
        machine.start();
        let step = machine.step(Input::Refused { code, retry_after: None, message });
        assert!(is_streamed_list(&after_wait(&mut machine, step).1), "{code}");
    }
}

#[test]
fn a_new_epoch_keeps_a_watch_that_is_far_enough() {
    let mut machine = watching("41");
    take(&mut machine, "100");
    machine.checkpoint();
    assert!(machine.covers("100"));
    assert!(machine.covers("99"));
    assert!(!machine.covers("101"));
    assert!(!machine.covers("opaque"));
    assert!(!machine.covers(""), "a list is asked for");
    machine.keep();
    assert_eq!(machine.checkpoint(), Some("100"), "the new epoch is told where it stands");
    assert_eq!(watch_from(&machine.restart("150")), "150");
    assert!(is_streamed_list(&machine.restart("")));
    assert!(machine.covers(""));
    assert!(!machine.covers("150"), "a list goes no way back");
    machine.keep();
    assert_eq!(machine.checkpoint(), None);
}

#[test]
fn watches_are_asked_to_end_at_different_times() {
    let ends: std::collections::BTreeSet<u32> = (0..100)
        .map(|seed| match Machine::new("1", seed).start() {
            Next::Send(Request::Watch { timeout_seconds, .. }) => timeout_seconds,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(ends.len() > 20);
    assert!(ends.iter().all(|seconds| TIMEOUT_SECONDS.contains(seconds)));
}
