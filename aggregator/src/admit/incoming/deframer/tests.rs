use super::*;

fn framed(compressed: u8, length: usize) -> Vec<u8> {
    let prefix = u32::try_from(length).unwrap().to_be_bytes();
    [compressed].into_iter().chain(prefix).chain((0..length).map(|at| (at % 251) as u8)).collect()
}

/// Lengths of what comes of parts of so many bytes, and how many bytes had come when more of a large message was needed.
fn deframe(all: &[u8], part: usize) -> (Vec<usize>, Vec<usize>) {
    let mut deframer = Deframer::default();
    let (mut lengths, mut large, mut came) = (Vec::new(), Vec::new(), 0);
    for data in all.chunks(part) {
        deframer.push(Bytes::copy_from_slice(data));
        came += data.len();
        while let Some(message) = deframer.next().unwrap() {
            assert!(message.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
            lengths.push(message.len());
        }
        if deframer.is_large() {
            large.push(came);
        }
    }
    assert!(deframer.is_empty() && !deframer.is_large());
    (lengths, large)
}

#[test]
fn messages_come_whole_wherever_they_are_cut() {
    let lengths = [40, 0, 1, 300, 5, 0, 0, 77];
    let all: Vec<u8> = lengths.iter().flat_map(|length| framed(0, *length)).collect();
    for part in 1..=all.len() {
        assert_eq!(deframe(&all, part), (lengths.to_vec(), Vec::new()), "in parts of {part}");
    }
}

#[test]
fn only_what_does_not_fit_a_window_is_large_and_never_the_first_message() {
    let window = WINDOW as usize;
    let lengths = [3 * window, window, window + 1, 10];
    let all: Vec<u8> = lengths.iter().flat_map(|length| framed(0, *length)).collect();
    let (came, large) = deframe(&all, 4 << 10);
    assert_eq!(came, lengths);
    let begin = 4 * window + 3 * PREFIX;
    let end = begin + window + 1;
    let within: Vec<usize> = (1..)
        .map(|part| part * (4 << 10))
        .skip_while(|came| *came < begin)
        .take_while(|came| *came < end)
        .collect();
    assert_eq!(large, within);
}

#[test]
fn a_message_that_is_whole_in_what_came_is_not_copied_and_nothing_is_kept_of_it() {
    let mut deframer = Deframer::default();
    let data = Bytes::from(framed(0, 100));
    let at = data[PREFIX..].as_ptr();
    deframer.push(data);
    let message = deframer.next().unwrap().unwrap();
    assert_eq!(message.as_ptr(), at);
    assert!(deframer.is_empty() && message.is_unique());
}

#[test]
fn what_is_compressed_or_too_long_is_refused_with_words() {
    let mut deframer = Deframer::default();
    deframer.push(framed(1, 2).into());
    assert!(deframer.next().unwrap_err().message().contains("compressed"));
    let mut deframer = Deframer::default();
    let mut prefix = vec![0];
    prefix.extend(u32::try_from(MAX_MESSAGE_BYTES + 1).unwrap().to_be_bytes());
    deframer.push(prefix.into());
    assert!(deframer.next().unwrap_err().message().contains("at most"));
}
