use bytes::Bytes;

use super::*;

/// Takes so many bytes before it fails once.
struct Pipe {
    took: Vec<u8>,
    room: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            self.room = usize::MAX;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = bytes.len().min(self.room).min(7);
        self.took.extend_from_slice(&bytes[..length]);
        self.room -= length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(text: &'static str) -> Line {
    Line { id: text.into(), body: Bytes::from_static(text.as_bytes()) }
}

#[test]
fn a_batch_that_failed_half_way_goes_on_where_it_stopped() {
    let lines = [line(r#"{"a":1}"#), line(r#"{"b":2}"#)];
    let (mut pipe, mut stdout, mut rest) =
        (Pipe { took: Vec::new(), room: 11 }, Stdout::default(), Vec::new());
    let failed = stdout.write_on(&mut pipe, &mut rest, &lines).unwrap_err();
    assert_eq!(failed.written, 1);
    stdout.write_on(&mut pipe, &mut rest, &lines[1..]).unwrap();
    assert_eq!(String::from_utf8(pipe.took).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
    assert!(rest.is_empty() && stdout.begun.is_empty());
}

#[test]
fn another_batch_after_one_that_failed_half_way_is_written_whole_and_behind_the_line_that_was_begun() {
    let [a, b, c, d] = [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#, r#"{"d":4}"#].map(line);
    let (mut pipe, mut stdout, mut rest) =
        (Pipe { took: Vec::new(), room: 11 }, Stdout::default(), Vec::new());
    stdout.write_on(&mut pipe, &mut rest, &[a, b.clone()]).unwrap_err();
    // Of another lane, and through another receiver.
    stdout.write_on(&mut pipe, &mut rest, &[c]).unwrap();
    Stdout::default().write_on(&mut pipe, &mut rest, &[d]).unwrap();
    // Asked for again behind one that fails: it is there all the same.
    pipe.room = 3;
    let e = line(r#"{"e":5}"#);
    let failed = stdout.write_on(&mut pipe, &mut rest, &[e.clone(), b.clone()]).unwrap_err();
    assert_eq!(failed.written, 0);
    stdout.write_on(&mut pipe, &mut rest, &[e]).unwrap();
    // One that routes send twice is there twice.
    stdout.write_on(&mut pipe, &mut rest, &[b.clone(), b]).unwrap();
    let wanted = "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n{\"d\":4}\n{\"e\":5}\n{\"b\":2}\n";
    assert_eq!(String::from_utf8(pipe.took).unwrap(), wanted);
}
