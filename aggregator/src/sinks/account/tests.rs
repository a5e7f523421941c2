use super::*;

#[test]
fn every_position_and_every_delivery_is_accounted_for_at_each_step() {
    let mut account = Account::begin(Position(10));
    account.begin_later(Position(20));
    assert!(account.adds_up() && account.from == 20);
    let steps: [fn(&mut Account); 6] = [
        |account| account.take(Position(21), 0),
        |account| account.take(Position(22), 2),
        |account| account.take_dead(Position(23)),
        |account| account.miss(Position(30)),
        |account| account.settle(1, 0),
        |account| account.settle(0, 1),
    ];
    for step in steps {
        step(&mut account);
        assert!(account.adds_up(), "{account:?}");
    }
    let expected = Account {
        from: 20,
        read: 30,
        passed: 1,
        missed: 7,
        routed: 2,
        deliveries: 3,
        delivered: 1,
        dead: 2,
        pending: 0,
    };
    assert_eq!(account, expected);
    assert!(!Account { delivered: 2, ..account }.adds_up());
    assert!(!Account { read: 31, ..account }.adds_up());
}
