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

#[test]
fn a_batch_that_failed_half_way_goes_on_where_it_stopped() {
    let line = |text: &'static str| Line { id: "".into(), body: Bytes::from_static(text.as_bytes()) };
    let lines = [line(r#"{"a":1}"#), line(r#"{"b":2}"#)];
    let (mut pipe, mut written) = (Pipe { took: Vec::new(), room: 11 }, 0);
    assert!(write_on(&mut pipe, &mut written, &lines).is_err());
    write_on(&mut pipe, &mut written, &lines).unwrap();
    assert_eq!(String::from_utf8(pipe.took).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
    assert_eq!(written, 0);
}
