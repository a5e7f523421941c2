//! `deDot`: a face whose labels and annotations have no dots in their keys, for stores that take dots as nesting.

use std::collections::BTreeMap;

use nodetap_wire::face::Face;

/// Runs something with the face's `.` as `_` in the keys of the labels and annotations of `metadata` and `involvedObject`.
/// Where two keys become one, the last of them wins.
pub fn de_dotted<T>(face: &Face<'_>, run: impl FnOnce(&Face<'_>) -> T) -> T {
    let replaced =
        |map: &BTreeMap<&str, &str>| -> Vec<String> { map.keys().map(|key| key.replace('.', "_")).collect() };
    let labels = replaced(&face.involved_object.labels);
    let annotations = replaced(&face.involved_object.annotations);

    let mut face = face.clone();
    for pairs in [&mut face.metadata.labels, &mut face.metadata.annotations].into_iter().flatten() {
        for (key, _) in &mut pairs.0 {
            if key.contains('.') {
                *key = key.replace('.', "_").into();
            }
        }
    }
    let object = &mut face.involved_object;
    object.labels = labels.iter().map(String::as_str).zip(object.labels.values().copied()).collect();
    object.annotations =
        annotations.iter().map(String::as_str).zip(object.annotations.values().copied()).collect();
    run(&face)
}
