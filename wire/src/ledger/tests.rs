#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn a_state_comes_back_as_it_went_and_is_shorter() {
    let state =
        r#"{"containers":{"app":{"current":{"id":"containerd://4f1"},"ids":[{"id":"containerd://4f1"}]}}}"#
            .repeat(4);
    let packed = Packer::new().unwrap().pack(state.as_bytes()).unwrap();
    assert!(packed.len() < state.len());
    assert_eq!(unpack(&packed).unwrap(), state.as_bytes());
}

#[test]
fn a_state_that_says_it_is_longer_than_any_is_refused_before_it_is_unpacked() {
    let packed = Packer::new().unwrap().pack(&vec![0; MAX_UNPACKED_BYTES + 1]).unwrap();
    assert!(unpack(&packed).is_err());
}

proptest! {
    #[test]
    fn unpacking_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = unpack(&bytes);
    }
}
