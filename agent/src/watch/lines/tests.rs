use proptest::prelude::*;

use super::*;

fn read(lines: &mut Lines, found: &mut Vec<Result<Vec<u8>, usize>>) {
    while let Some(line) = lines.next_line() {
        found.push(match line {
            Line::Whole(line) => Ok(line.to_vec()),
            Line::TooLong(length) => Err(length),
        });
    }
}

fn split(body: &[u8], cuts: &[usize], bound: usize) -> Vec<Result<Vec<u8>, usize>> {
    let mut lines = Lines::new(bound);
    let mut found = Vec::new();
    let mut rest = Bytes::copy_from_slice(body);
    for cut in cuts {
        lines.push(rest.split_to(cut % (rest.len() + 1)));
        read(&mut lines, &mut found);
    }
    lines.push(rest);
    read(&mut lines, &mut found);
    found
}

/// The same, by the standard library.
fn expected(body: &[u8], bound: usize) -> Vec<Result<Vec<u8>, usize>> {
    let mut lines: Vec<_> = body.split(|byte| *byte == b'\n').collect();
    lines.pop();
    lines
        .into_iter()
        .filter(|line| !line.is_empty())
        .map(|line| if line.len() > bound { Err(line.len()) } else { Ok(line.to_vec()) })
        .collect()
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_lines(
        pieces in prop::collection::vec(("[a-zé€😀]{0,30}", any::<bool>()), 0..20),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
        bound in 1_usize..40,
    ) {
        let body: String = pieces.into_iter().map(|(text, ends)| if ends { text + "\n" } else { text }).collect();
        prop_assert_eq!(split(body.as_bytes(), &cuts, bound), expected(body.as_bytes(), bound));
    }

    #[test]
    fn memory_stays_within_the_bound(
        lengths in prop::collection::vec(0_usize..300_000, 1..6),
        chunk in 1_usize..70_000,
    ) {
        const BOUND: usize = 100_000;
        let mut lines = Lines::new(BOUND);
        let mut found = Vec::new();
        let body: Vec<u8> = lengths.iter().flat_map(|length| [vec![b'x'; *length], vec![b'\n']].concat()).collect();
        for chunk in body.chunks(chunk) {
            lines.push(Bytes::copy_from_slice(chunk));
            while let Some(line) = lines.next_line() {
                found.push(match line {
                    Line::Whole(line) => line.len(),
                    Line::TooLong(length) => length,
                });
            }
            prop_assert!(lines.held() <= 2 * BOUND, "{}", lines.held());
        }
        prop_assert_eq!(found, lengths.into_iter().filter(|length| *length > 0).collect::<Vec<_>>());
        lines.push(Bytes::new());
        prop_assert!(lines.held() <= KEPT_BYTES.max(16));
    }
}

#[test]
fn a_line_of_the_bound_is_taken_and_one_byte_more_is_not() {
    for cuts in [vec![], vec![3], vec![5, 1]] {
        assert_eq!(
            split(b"abcde\nabcdef\nx\n", &cuts, 5),
            [Ok(b"abcde".to_vec()), Err(6), Ok(b"x".to_vec())]
        );
    }
}

#[test]
fn a_body_that_ends_within_a_line_says_so() {
    let mut lines = Lines::new(10);
    lines.push(Bytes::from_static(b"one\ntw"));
    assert_eq!(lines.next_line(), Some(Line::Whole(b"one")));
    assert_eq!(lines.next_line(), None);
    assert_eq!(lines.unfinished(), 2);
    lines.push(Bytes::from_static(b"o\n"));
    assert_eq!(lines.next_line(), Some(Line::Whole(b"two")));
    assert_eq!(lines.unfinished(), 0);
}

#[test]
fn a_chunk_that_was_read_is_not_held() {
    let mut lines = Lines::new(1 << 20);
    let chunk = Bytes::from(vec![b'\n'; 400_000]);
    let watched = chunk.clone();
    lines.push(chunk);
    assert_eq!(lines.next_line(), None);
    assert!(watched.is_unique());
}
