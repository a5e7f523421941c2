use proptest::prelude::*;

use crate::shard::Share;
use crate::{NoHost, Shard, UidRange, WholeCluster};

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        Just(Share::Cluster(WholeCluster {})),
        ".*".prop_map(Share::Namespace),
        ".*".prop_map(Share::Host),
        Just(Share::NoHost(NoHost {})),
        (any::<u64>(), any::<u64>()).prop_map(|(from, to)| Share::UidRange(UidRange { from, to })),
        Just(Share::Namespaces(crate::Namespaces {})),
    ]
}

proptest! {
    #[test]
    fn a_name_that_was_written_reads_as_the_same_share(share in share()) {
        let shard = Shard::from(share);
        prop_assert_eq!(Shard::parse(&shard.name()), Some(shard));
    }

    #[test]
    fn a_name_that_is_read_is_written_the_same(name in "(namespace|host|uid|cluster|no-host|namespaces)[/a-f0-9-]{0,40}") {
        if let Some(shard) = Shard::parse(&name) {
            prop_assert_eq!(shard.name(), name);
        }
    }

    #[test]
    fn the_ranges_of_one_number_are_all_hashes_and_no_hash_twice(of in 1_u32..300, hash in any::<u64>()) {
        let ranges: Vec<_> = (0..of).map(|number| Shard::uid_range(number, of)).collect();
        let here = UidRange { from: hash, to: hash.wrapping_add(1) };
        let found = ranges.iter().filter(|shard| match &shard.share {
            Some(Share::UidRange(range)) => range.overlaps(&here),
            _ => false,
        });
        prop_assert_eq!(found.count(), 1);
    }
}

#[test]
fn names_stay_what_they_are_in_journals() {
    let names = [
        (Shard::cluster(), "cluster"),
        (Shard::namespace("kube-system"), "namespace/kube-system"),
        (Shard::host("ip-10-0-0-1.eu.internal"), "host/ip-10-0-0-1.eu.internal"),
        (Shard::no_host(), "no-host"),
        (Shard::uid_range(0, 2), "uid/0000000000000000-8000000000000000"),
        (Shard::uid_range(1, 2), "uid/8000000000000000-10000000000000000"),
        (Shard::namespaces(), "namespaces"),
    ];
    for (shard, name) in names {
        assert_eq!(shard.name(), name);
        assert_eq!(Shard::parse(name), Some(shard));
    }
}

#[test]
fn an_object_is_in_one_half_by_its_uid() {
    let (low, high) = (UidRange { from: 0, to: 1 << 63 }, UidRange { from: 1 << 63, to: 0 });
    // FNV-1a of the empty text and of "a" and "foobar", as its authors give them.
    assert!(high.has("") && !low.has(""), "cbf29ce484222325");
    assert!(high.has("a") && !low.has("a"), "af63dc4c8601ec8c");
    assert!(high.has("foobar") && !low.has("foobar"), "85944171f73967e8");
    assert!(UidRange { from: 0x8594_4171_f739_67e8, to: 0x8594_4171_f739_67e9 }.has("foobar"));
}

#[test]
fn what_is_no_name_is_no_share() {
    for name in [
        "",
        "unknown",
        "Cluster",
        "cluster/",
        "shard/x",
        "uid/0-1",
        "uid/0000000000000000-0000000000000000",
        "uid/0000000000000000-+000000000000001",
        "uid/0000000000000000-8000000000000000 ",
    ] {
        assert_eq!(Shard::parse(name), None, "{name}");
    }
    assert_eq!(Shard::default().name(), "unknown");
}
