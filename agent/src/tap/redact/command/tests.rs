#![allow(clippy::unwrap_used)]

use super::*;

fn redacted(text: &[u8]) -> (String, Counts) {
    let mut to = Vec::new();
    let counts = redact(&Redactor::new().unwrap(), &mut &*text, &mut to).unwrap();
    (String::from_utf8(to).unwrap(), counts)
}

#[test]
fn a_log_keeps_its_shape_and_loses_its_secrets() {
    let log = "2024-01-01T00:00:01Z stdout F password=hunter2\n\
               2024-01-01T00:00:01Z stdout F -----BEGIN PRIVATE KEY-----\n\
               2024-01-01T00:00:01Z stderr F fine\n\
               2024-01-01T00:00:01Z stdout F MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n\
               2024-01-01T00:00:01Z stdout F -----END PRIVATE KEY-----\n\
               plain token=abc123\nno end";
    let (text, counts) = redacted(log.as_bytes());
    assert_eq!(
        text,
        "2024-01-01T00:00:01Z stdout F password=[redacted]\n\
         2024-01-01T00:00:01Z stdout F [redacted]\n\
         2024-01-01T00:00:01Z stderr F fine\n\
         2024-01-01T00:00:01Z stdout F [redacted]\n\
         2024-01-01T00:00:01Z stdout F [redacted]\n\
         plain token=[redacted]\nno end"
    );
    assert_eq!(counts.values().sum::<u64>(), 3);
}

#[test]
fn a_clean_file_of_any_size_is_as_it_was() {
    let line = "2024-01-01T00:00:01Z stdout F GET https://shop.example.net/cart 200 12ms\n";
    let text = line.repeat(3000);
    assert_eq!(redacted(text.as_bytes()), (text, Counts::new()));
    assert_eq!(redacted(b""), (String::new(), Counts::new()));
    let (long, counts) = redacted(&vec![b'x'; 3 << 20]);
    assert_eq!((long.len(), counts), (3 << 20, Counts::new()));
}

#[test]
fn a_key_over_the_end_of_a_block_is_gone_as_a_whole() {
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n";
    let filler = "x\n".repeat(BLOCK / 2 - 30);
    let text = format!("{filler}-----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----\n", body.repeat(20));
    let (text, _) = redacted(text.as_bytes());
    assert!(!text.contains("MII"));
}
