#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;

use super::*;

const LOG: Log<'static> =
    Log { namespace: "shop", pod: "web-0", pod_uid: "8f0c", container: "app", ordinal: 3 };

fn folder() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = LOG.folder(root.path()).unwrap();
    fs::create_dir_all(&folder).unwrap();
    (root, folder)
}

fn lines_of(bytes: &[u8]) -> Vec<LogLine> {
    let (root, folder) = folder();
    fs::write(folder.join("3.log"), bytes).unwrap();
    let mut lines = LOG.last_lines(root.path()).unwrap();
    fit(&mut lines);
    lines
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn streams_are_told_apart_and_times_are_kept() {
    let lines = lines_of(
        b"2024-01-01T00:00:01.000000001Z stdout F hello\n2024-01-01T01:00:02.5+01:00 stderr F  two  spaces\n",
    );
    assert_eq!(texts(&lines), ["hello", " two  spaces"]);
    assert_eq!([lines[0].stderr, lines[1].stderr], [false, true]);
    assert_eq!(lines[0].time_ns, 1_704_067_201_000_000_001);
    assert_eq!(lines[1].time_ns, 1_704_067_202_500_000_000);
}

#[test]
fn partial_lines_are_joined_stream_by_stream() {
    let lines = lines_of(
        b"2024-01-01T00:00:01Z stdout P one \n2024-01-01T00:00:01Z stderr P err \n2024-01-01T00:00:01Z stdout P:x two \n\
          2024-01-01T00:00:02Z stdout F three\n2024-01-01T00:00:02Z stderr F end\n2024-01-01T00:00:03Z stdout P cut off",
    );
    assert_eq!(texts(&lines), ["one two three", "err end", "cut off"]);
}

#[test]
fn a_log_that_ends_without_a_newline_keeps_its_last_line() {
    let lines = lines_of(b"2024-01-01T00:00:01Z stdout F first\n2024-01-01T00:00:02Z stderr F the last wor");
    assert_eq!(texts(&lines), ["first", "the last wor"]);
    assert!(lines[1].stderr);
}

#[test]
fn invalid_utf8_and_lines_that_are_not_cri_are_kept_as_text() {
    let lines = lines_of(
        b"2024-01-01T00:00:01Z stdout F a\xff\xfeb\nnot cri at all\n2024-01-01T00:00:01Z stdout F\n",
    );
    assert_eq!(texts(&lines), ["a\u{fffd}\u{fffd}b", "not cri at all", ""]);
    assert_eq!(lines[1].time_ns, 0);
}

#[test]
fn of_a_long_log_the_last_fifty_lines_are_read() {
    let mut log = String::new();
    for number in 0..200_000 {
        writeln!(log, "2024-01-01T00:00:01Z stdout F line {number}").unwrap();
    }
    let lines = lines_of(log.trim_end().as_bytes());
    assert_eq!(lines.len(), LINES);
    assert_eq!((lines[0].text.as_str(), lines[49].text.as_str()), ("line 199950", "line 199999"));
}

#[test]
fn a_line_of_a_mebibyte_is_cut_and_keeps_its_end() {
    let mut log = b"2024-01-01T00:00:01Z stdout F before\n".to_vec();
    for _ in 0..64 {
        log.extend_from_slice(b"2024-01-01T00:00:01Z stdout P ");
        log.extend(std::iter::repeat_n(b'x', 16 * 1024));
        log.push(b'\n');
    }
    log.extend_from_slice(b"2024-01-01T00:00:01Z stdout F the end\n");
    let lines = lines_of(&log);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].text.len(), BYTES);
    assert!(lines[0].text.starts_with("...xxx") && lines[0].text.ends_with("xthe end"));
}

#[test]
fn one_record_of_many_mebibytes_is_not_read_whole() {
    let mut log = b"2024-01-01T00:00:01Z stdout F ".to_vec();
    log.extend(std::iter::repeat_n(b'y', 4 << 20));
    let lines = lines_of(&log);
    assert_eq!((lines.len(), lines[0].text.len()), (1, BYTES));
}

#[test]
fn the_bound_in_bytes_holds_over_many_lines() {
    let mut log = String::new();
    for _ in 0..50 {
        writeln!(log, "2024-01-01T00:00:01Z stdout F {}", "z".repeat(1000)).unwrap();
    }
    let lines = lines_of(log.as_bytes());
    assert_eq!(lines.len(), 16);
}

#[test]
fn a_rotated_predecessor_gives_what_the_current_file_lacks() {
    let (root, folder) = folder();
    fs::write(folder.join("3.log"), "2024-01-01T00:00:03Z stdout F last\n").unwrap();
    fs::write(folder.join("3.log.20240101-000002"), "2024-01-01T00:00:02Z stdout F newer\n").unwrap();
    fs::write(folder.join("3.log.20240101-000001"), "2024-01-01T00:00:01Z stdout F older\n").unwrap();
    fs::write(folder.join("13.log"), "2024-01-01T00:00:01Z stdout F other\n").unwrap();
    assert_eq!(texts(&LOG.last_lines(root.path()).unwrap()), ["older", "newer", "last"]);
    fs::remove_file(folder.join("3.log")).unwrap();
    assert_eq!(texts(&LOG.last_lines(root.path()).unwrap()), ["older", "newer"]);
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_predecessor_is_read_by_its_end_and_once() {
    let (root, folder) = folder();
    fs::write(folder.join("3.log"), "2024-01-01T00:00:03Z stdout F last\n").unwrap();
    let mut long = String::new();
    for number in 0..100_000 {
        writeln!(long, "2024-01-01T00:00:01Z stdout F line {number}").unwrap();
    }
    fs::write(folder.join("3.log.20240101-000001.gz"), gzip(&long)).unwrap();
    fs::write(folder.join("3.log.20240101-000002"), "2024-01-01T00:00:02Z stderr F plain\n").unwrap();
    fs::write(folder.join("3.log.20240101-000002.gz"), gzip("2024-01-01T00:00:02Z stderr F plain\n"))
        .unwrap();
    let mut lines = LOG.last_lines(root.path()).unwrap();
    fit(&mut lines);
    assert_eq!(lines.len(), LINES);
    let texts = texts(&lines);
    assert_eq!(texts[..2], ["line 99952", "line 99953"]);
    assert_eq!(texts[47..], ["line 99999", "plain", "last"]);
}

#[test]
fn a_compressed_predecessor_that_is_torn_leaves_what_came_after_it() {
    let (root, folder) = folder();
    fs::write(folder.join("3.log"), "2024-01-01T00:00:03Z stdout F last\n").unwrap();
    let whole = gzip("2024-01-01T00:00:02Z stdout F before\n");
    fs::write(folder.join("3.log.20240101-000002.gz"), &whole[..whole.len() - 6]).unwrap();
    assert_eq!(texts(&LOG.last_lines(root.path()).unwrap()), ["last"]);
}

#[test]
fn what_is_not_there_is_told_by_reason() {
    let (root, folder) = folder();
    assert_eq!(LOG.last_lines(root.path()), Err(Missing::NoFile));
    fs::write(folder.join("3.log"), "").unwrap();
    assert_eq!(LOG.last_lines(root.path()), Err(Missing::Empty));
    assert_eq!(LOG.last_lines(&root.path().join("none")), Err(Missing::NoFolder));
    let outside = Log { container: "../../../etc", ..LOG };
    assert_eq!(outside.last_lines(root.path()), Err(Missing::Name));
}

#[test]
fn a_link_or_a_folder_in_place_of_the_log_is_not_read() {
    let (root, folder) = folder();
    fs::write(root.path().join("secret"), "2024-01-01T00:00:01Z stdout F secret\n").unwrap();
    std::os::unix::fs::symlink(root.path().join("secret"), folder.join("3.log")).unwrap();
    assert_eq!(LOG.last_lines(root.path()), Err(Missing::Unreadable));
    fs::remove_file(folder.join("3.log")).unwrap();
    fs::create_dir(folder.join("3.log")).unwrap();
    assert_eq!(LOG.last_lines(root.path()), Err(Missing::Unreadable));
}
