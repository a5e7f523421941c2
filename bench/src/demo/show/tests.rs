use serde_json::json;

use super::*;

#[test]
fn a_line_names_time_type_reason_object_and_message() {
    let record = json!({
        "lastTimestamp": "2026-03-01T10:20:30Z",
        "type": "Warning",
        "reason": "BackOff",
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web"},
        "message": "back-off\n\u{1b}[31m5s",
    });
    assert_eq!(line(&record, false), "10:20:30 Warning BackOff Pod/shop/web back-off  [31m5s");
    assert!(line(&record, true).contains(YELLOW));
}
