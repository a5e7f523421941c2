use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Change, Source};

fn event(uid: &str, resource_version: &str) -> EventSeen {
    EventSeen { uid: uid.into(), resource_version: resource_version.into(), ..EventSeen::default() }
}

fn death(container_id: &str, ordinal: u32) -> ContainerDied {
    ContainerDied {
        pod_uid: "p".into(),
        container: "app".into(),
        container_id: container_id.into(),
        ordinal,
        ..ContainerDied::default()
    }
}

#[test]
fn its_text_is_a_promise() {
    assert_eq!(Identity::of_event("prod", &event("u", "7")).as_str(), "event/prod/u/7");
    assert_eq!(Identity::of_death("prod", &death("containerd://4f1", 3)).as_str(), "death/prod/p/app/4f1");
    assert_eq!(Identity::of_death("prod", &death("", 3)).as_str(), "death/prod/p/app/3");
    assert_eq!(Identity::of_event("eu/1 50%", &event("u", "7")).to_string(), "event/eu%2F1 50%25/u/7");
}

#[test]
fn a_death_in_a_cluster_whose_name_has_a_slash_is_still_four_segments() {
    for (container_id, last) in [("containerd://4f1", "4f1"), ("", "3")] {
        let identity = Identity::of_death("eu/1 50%", &death(container_id, 3));
        assert_eq!(identity.as_str(), format!("death/eu%2F1 50%25/p/app/{last}"));
    }
}

proptest! {
    #[test]
    fn an_event_is_the_same_from_whatever_source(
        cluster in "[a-z/%]{0,8}",
        uid in "[0-9a-f-]{1,36}",
        version in "[0-9]{1,20}",
        count in any::<u64>(),
        change in prop::sample::select(vec![Change::Listed, Change::Added, Change::Modified]),
        other in "\\PC{0,20}",
    ) {
        let plain = event(&uid, &version);
        let seen = EventSeen {
            count,
            change: change.into(),
            node: other.as_str().into(),
            namespace: other.as_str().into(),
            raw: other.into_bytes().into(),
            ..plain.clone()
        };
        prop_assert_eq!(Identity::of_event(&cluster, &seen), Identity::of_event(&cluster, &plain));
        prop_assert_eq!(Identity::of_event_state(&cluster, &uid, &version), Identity::of_event(&cluster, &plain));
    }

    #[test]
    fn a_death_is_the_same_from_whatever_source(
        id in "(containerd://|cri-o://|)[0-9a-f]{12,64}",
        ordinals in any::<(u32, u32)>(),
        source in prop::sample::select(vec![Source::Kubelet, Source::PodWatch, Source::LogOrdinal]),
        exit_code in any::<Option<i32>>(),
        text in "\\PC{0,20}",
    ) {
        let seen = ContainerDied {
            source: source.into(),
            exit_code,
            reason: text.clone(),
            back_off: text.clone(),
            pod_resource_version: text,
            seen_ns: 5,
            ..death(&id, ordinals.0)
        };
        prop_assert_eq!(Identity::of_death("c", &seen), Identity::of_death("c", &death(&id, ordinals.1)));
    }

    #[test]
    fn different_records_have_different_identities(
        parts in prop::collection::vec(("[a-c/%]{0,3}", "[a-c]{1,3}", "[0-9]{1,3}"), 2..40),
    ) {
        let mut seen = BTreeMap::new();
        for part in parts {
            let (cluster, uid, version) = &part;
            let identity = Identity::of_event_state(cluster, uid, version);
            let before = seen.insert(identity, part.clone());
            prop_assert!(before.is_none_or(|before| before == part));
        }
    }
}
