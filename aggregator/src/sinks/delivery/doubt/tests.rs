use super::*;

const DOWN: Option<FailureClass> = Some(FailureClass::Unavailable);

fn failed(records: usize, last: u64, first: u64) -> Seen {
    Seen {
        progress: false,
        again: (records, Position(last)),
        failure: DOWN,
        other: false,
        overtaken: false,
        first: Some(Position(first)),
    }
}

fn taken(first: u64) -> Seen {
    Seen {
        progress: true,
        again: (0, Position(0)),
        failure: None,
        other: false,
        overtaken: false,
        first: Some(Position(first)),
    }
}

#[test]
fn a_record_is_at_fault_only_where_another_was_taken_and_it_was_refused_again() {
    let mut doubt = Doubt::new(3);
    for _ in 0..2 {
        assert!(!doubt.is_at_fault(failed(1, 7, 7)));
        assert_eq!(doubt.step(), Step::Batch);
    }
    assert!(!doubt.is_at_fault(failed(1, 7, 7)));
    assert_eq!(doubt.step(), Step::Other);
    assert!(!doubt.is_at_fault(Seen { other: true, ..taken(7) }));
    assert_eq!(doubt.step(), Step::Again);
    assert!(doubt.is_at_fault(failed(1, 7, 8)));
    assert_eq!(doubt.step(), Step::Batch);
}

#[test]
fn a_sink_that_came_up_just_when_another_record_was_tried_keeps_the_first() {
    let mut doubt = Doubt::new(1);
    doubt.is_at_fault(failed(1, 7, 7));
    doubt.is_at_fault(Seen { other: true, ..taken(7) });
    assert!(!doubt.is_at_fault(taken(8)));
    assert_eq!(doubt.step(), Step::Batch);
}

#[test]
fn a_sink_that_takes_no_other_record_either_is_down_and_waited_for() {
    let mut doubt = Doubt::new(2);
    for _ in 0..100 {
        doubt.is_at_fault(failed(1, 7, 7));
        doubt.is_at_fault(failed(1, 7, 7));
        assert_eq!(doubt.step(), Step::Other);
        assert!(!doubt.is_at_fault(Seen { other: true, ..failed(1, 8, 7) }));
        assert_eq!(doubt.step(), Step::Batch);
    }
}

#[test]
fn of_a_batch_that_is_refused_as_a_whole_each_record_is_tried_alone_until_the_one_at_fault_is_found() {
    let mut doubt = Doubt::new(2);
    doubt.is_at_fault(failed(4, 4, 1));
    doubt.is_at_fault(failed(4, 4, 1));
    assert_eq!(doubt.step(), Step::Alone);
    doubt.is_at_fault(taken(2));
    assert_eq!(doubt.step(), Step::Alone);
    doubt.is_at_fault(failed(1, 2, 2));
    assert_eq!(doubt.step(), Step::Other);
    doubt.is_at_fault(Seen { other: true, ..taken(2) });
    assert!(doubt.is_at_fault(failed(1, 2, 4)));
    assert_eq!(doubt.step(), Step::Alone, "the last of the batch may be another such");
    doubt.is_at_fault(taken(5));
    assert_eq!(doubt.step(), Step::Batch);
}

#[test]
fn what_cannot_be_a_records_fault_never_counts_against_one() {
    let mut doubt = Doubt::new(1);
    for class in [FailureClass::Connect, FailureClass::Throttled, FailureClass::Write] {
        doubt.is_at_fault(Seen { failure: Some(class), ..failed(1, 7, 7) });
        assert_eq!(doubt.step(), Step::Batch, "{class:?}");
    }
    let mut never = Doubt::new(0);
    for _ in 0..100 {
        assert!(!never.is_at_fault(failed(1, 7, 7)));
        assert_eq!(never.step(), Step::Batch);
    }
}

#[test]
fn a_connection_that_fails_when_the_first_is_tried_again_is_not_its_fault() {
    let mut doubt = Doubt::new(1);
    doubt.is_at_fault(failed(1, 7, 7));
    doubt.is_at_fault(Seen { other: true, ..taken(7) });
    assert!(!doubt.is_at_fault(Seen { failure: Some(FailureClass::Connect), ..failed(1, 7, 7) }));
    assert_eq!(doubt.step(), Step::Batch);
}

#[test]
fn a_record_that_fails_time_and_again_while_others_are_taken_beside_it_is_at_fault() {
    let mut doubt = Doubt::new(3);
    let beside = |first| Seen { progress: true, overtaken: true, ..failed(1, first, first) };
    assert!(!doubt.is_at_fault(beside(7)));
    assert!(!doubt.is_at_fault(beside(7)));
    assert!(!doubt.is_at_fault(beside(8)), "another one");
    assert!(!doubt.is_at_fault(beside(8)));
    assert!(doubt.is_at_fault(beside(8)));
    let mut patient = Doubt::new(0);
    assert!((0..100).all(|_| !patient.is_at_fault(beside(7))));
}
