use super::*;

#[test]
fn every_position_and_every_delivery_is_accounted_for_at_each_step() {
    let mut account = Account::begin(Position(10), 0);
    account.begin_later(Position(20));
    assert!(account.adds_up() && account.from == 20);
    let steps: [fn(&mut Account); 9] = [
        |account| account.take(Position(21), 0),
        |account| account.take(Position(22), 2),
        |account| account.take_dead(Position(23)),
        |account| account.take_ahead(1),
        |account| account.take_ahead(1),
        |account| assert_eq!(account.miss(Position(30), 1, 2), 4),
        |account| account.skip(Position(31)),
        |account| account.settle(3, 0),
        |account| account.settle(0, 1),
    ];
    for step in steps {
        step(&mut account);
        assert!(account.adds_up(), "{account:?}");
    }
    let expected = Account {
        from: 20,
        read: 31,
        passed: 1,
        missed: 4,
        never_given: 2,
        routed: 4,
        deliveries: 5,
        delivered: 3,
        dead: 2,
        pending: 0,
        ahead: 0,
        earlier: 0,
    };
    assert_eq!(account, expected);
    assert!(!Account { delivered: 4, ..account }.adds_up());
    assert!(!Account { read: 32, ..account }.adds_up());
}

#[test]
fn what_was_settled_before_it_began_is_accounted_for_and_not_counted_as_its_own() {
    let mut account = Account::begin(Position(10), 2);
    assert!(account.adds_up());
    account.skip(Position(11));
    account.take(Position(12), 1);
    account.miss(Position(15), 1, 0);
    assert!(account.adds_up(), "{account:?}");
    assert_eq!((account.missed, account.ahead, account.routed), (2, 0, 1));
}
