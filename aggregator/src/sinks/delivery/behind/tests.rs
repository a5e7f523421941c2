use super::*;

#[test]
fn an_object_is_behind_from_its_first_record_until_its_last_is_settled() {
    let mut behind = Behind::new();
    assert!(!behind.has("a"));
    behind.add("a", 2);
    behind.add("a", 1);
    assert!(behind.has("a"));
    behind.settle("a", 1);
    assert!(behind.has("a"));
    behind.settle("a", 2);
    assert!(!behind.has("a"));
}

#[test]
fn with_a_million_objects_behind_none_of_them_is_overlooked_and_hardly_another_is_held_back() {
    let mut behind = Behind::new();
    for number in 0..1_000_000 {
        behind.add(&format!("Pod/shop/web-{number}"), 3);
    }
    assert!((0..1_000_000).all(|number| behind.has(&format!("Pod/shop/web-{number}"))));
    let others = (0..100_000).filter(|number| behind.has(&format!("Pod/other/db-{number}"))).count();
    assert!(others < 300, "{others} of 100,000");
}
