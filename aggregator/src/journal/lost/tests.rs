use super::*;

#[test]
fn an_end_that_is_lost_is_said_once_and_counted_as_far_as_it_was_promised() {
    let losses = Losses::default();
    let before = *losses.subscribe().borrow();
    losses.found(Position(10), 0);
    for promised in [9, 10, u64::MAX] {
        losses.promised(Position(promised));
        assert_eq!(losses.subscribe().borrow().since(&before), None, "{promised}");
    }
    for (promised, lost) in [(14, 4), (12, 4), (20, 10)] {
        losses.promised(Position(promised));
        let told = *losses.subscribe().borrow();
        assert_eq!((told.times, told.since(&before)), (1, Some(What::End)), "{promised}");
        assert_eq!(losses.records.get(), lost, "{promised}");
    }
}

#[test]
fn each_opening_has_a_number_of_its_own() {
    let opening = || Losses::default().subscribe().borrow().opening;
    assert_ne!(opening(), opening());
}
