//! `deDot`: a face whose labels and annotations have no dots in their keys, for stores that take dots as nesting.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nodetap_wire::face::Face;

/// Runs something with the face's `.` as `_` in the keys of the labels and annotations of `metadata` and `involvedObject`.
/// Where two keys become one, the last of them wins.
pub fn de_dotted<T>(face: &Face<'_>, run: impl FnOnce(&Face<'_>) -> T) -> T {
    let replaced = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| (key.replace('.', "_"), value.clone())).collect()
    };
    let mut face = face.clone();
    for pairs in [&mut face.metadata.labels, &mut face.metadata.annotations].into_iter().flatten() {
        for (key, _) in &mut pairs.0 {
            if key.contains('.') {
                *key = key.replace('.', "_").into();
            }
        }
    }
    let object = &mut face.involved_object;
    object.labels = Cow::Owned(replaced(&object.labels));
    object.annotations = Cow::Owned(replaced(&object.annotations));
    run(&face)
}
