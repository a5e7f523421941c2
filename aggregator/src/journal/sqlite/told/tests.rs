#![allow(clippy::unwrap_used)]

use super::*;

fn told(folder: &Path, boot: &str) -> Told {
    Told::of_boot(folder, Some(boot.to_owned()))
}

#[test]
fn what_a_machine_left_that_has_started_anew_says_nothing_unless_it_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = told(folder.path(), "first");
    assert_eq!(first.read(), None);
    for position in [7, 1 << 47, 9] {
        first.write(position);
        assert_eq!(told(folder.path(), "first").read(), Some(position));
        assert_eq!(told(folder.path(), "second").read(), None);
    }
    first.close(9);
    assert_eq!(told(folder.path(), "second").read(), Some(9));
    let mut second = told(folder.path(), "second");
    second.write(10);
    assert_eq!((told(folder.path(), "second").read(), told(folder.path(), "third").read()), (Some(10), None));
    assert_eq!(Told::of_boot(folder.path(), None).read(), None);
}

#[test]
fn any_flipped_bit_and_any_cut_of_what_it_says_is_found() {
    let folder = tempfile::tempdir().unwrap();
    told(folder.path(), "boot").write(1_234);
    let path = folder.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    let said = whole.iter().rposition(|byte| !byte.is_ascii_whitespace()).unwrap() + 1;
    for at in 0..said {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(told(folder.path(), "boot").read(), None, "cut at {at}");
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(told(folder.path(), "boot").read(), None, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn one_that_cannot_be_written_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = told(folder.path(), "boot");
    kept.write(1);
    // Nobody can write to it.
    kept.file = Some(File::open(folder.path().join(FILE)).unwrap());
    kept.write(2);
    assert_eq!(kept.read(), None);
    kept.write(3);
    assert_eq!(kept.read(), Some(3));
}
