#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// The same, as prost generates it.
#[derive(Clone, PartialEq, Message)]
struct Generated {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(string, tag = "2")]
    resource_version: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(uint64, tag = "4")]
    count: u64,
    #[prost(int64, tag = "5")]
    time_ns: i64,
    #[prost(int32, tag = "6")]
    change: i32,
    #[prost(string, tag = "7")]
    kind: String,
    #[prost(string, tag = "8")]
    object: String,
    #[prost(string, tag = "9")]
    reason: String,
    #[prost(string, tag = "10")]
    r#type: String,
    #[prost(string, tag = "11")]
    node: String,
    #[prost(string, tag = "12")]
    object_uid: String,
    #[prost(string, tag = "13")]
    object_namespace: String,
    #[prost(bytes = "bytes", tag = "15")]
    raw: Bytes,
    #[prost(string, tag = "99")]
    of_a_newer_agent: String,
}

fn same(generated: &Generated) -> EventSeen {
    let Generated { uid, resource_version, namespace, count, time_ns, change, kind, object, .. } =
        generated.clone();
    let Generated { reason, r#type, node, object_uid, object_namespace, raw, .. } = generated.clone();
    EventSeen {
        uid: uid.into(),
        resource_version: resource_version.into(),
        namespace: namespace.into(),
        count,
        time_ns,
        change,
        kind: kind.into(),
        object: object.into(),
        reason: reason.into(),
        r#type: r#type.into(),
        node: node.into(),
        object_uid: object_uid.into(),
        object_namespace: object_namespace.into(),
        raw,
    }
}

#[test]
fn a_text_that_is_not_utf_8_is_refused() {
    assert!(EventSeen::decode(&[0x0a, 1, 0xff][..]).is_err());
    assert!(EventSeen::decode(&[0x7a, 1, 0xff][..]).is_ok(), "raw is bytes");
}

proptest! {
    #[test]
    fn it_is_on_the_wire_what_prost_makes_of_the_proto(
        texts in prop::collection::vec("\\PC{0,6}", 11),
        (count, time_ns, change, raw) in any::<(u64, i64, i32, Vec<u8>)>(),
        is_newer in any::<bool>(),
    ) {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap();
        let generated = Generated {
            uid: next(),
            resource_version: next(),
            namespace: next(),
            count,
            time_ns,
            change,
            kind: next(),
            object: next(),
            reason: next(),
            r#type: next(),
            node: next(),
            object_uid: next(),
            object_namespace: next(),
            raw: raw.into(),
            of_a_newer_agent: if is_newer { next() } else { String::new() },
        };
        let expected = same(&generated);
        let decoded = EventSeen::decode(Bytes::from(generated.encode_to_vec())).unwrap();
        prop_assert_eq!(&decoded, &expected);
        let encoded = expected.encode_to_vec();
        prop_assert_eq!(encoded.len(), expected.encoded_len());
        let back = Generated::decode(&*encoded).unwrap();
        prop_assert_eq!(back, Generated { of_a_newer_agent: String::new(), ..generated });
    }

    #[test]
    fn any_bytes_are_an_answer_not_a_panic(bytes in any::<Vec<u8>>()) {
        let _ = EventSeen::decode(&*bytes);
    }
}
