use super::*;
use crate::exposition;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    namespace: String,
}

#[test]
fn a_full_family_counts_the_rest_under_one_label_and_says_so() {
    let overflowed = Counter::default();
    let family = BoundedCounter::new(2, Labels { namespace: OVERFLOW.into() }, overflowed.clone());
    let mut registry = Registry::default();
    family.register(&mut registry, "seen", "Seen");
    for namespace in ["a", "b", "c", "d", "a"] {
        family.inc_by(Labels { namespace: namespace.into() }, 1);
    }
    let text = exposition::open_metrics(&registry);
    assert!(text.contains("seen_total{namespace=\"a\"} 2"), "{text}");
    assert!(text.contains("seen_total{namespace=\"_other\"} 2"), "{text}");
    assert!(!text.contains("\"c\""), "{text}");
    assert_eq!(overflowed.get(), 2);
}
