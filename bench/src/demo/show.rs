//! A line a record: time, type, reason, object, message. In colour on a terminal.

use std::io::IsTerminal as _;

use serde_json::Value;

use crate::say;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";
/// A message is cut to this many characters.
const MESSAGE: usize = 110;

/// Shows a record.
pub(super) fn record(record: &Value, in_colour: bool) {
    say(&line(record, in_colour));
}

/// Shows what is done on purpose.
pub(super) fn accident(what: &str) {
    if std::io::stdout().is_terminal() {
        say(&format!("{BOLD}-- {what}{RESET}"));
    } else {
        say(&format!("-- {what}"));
    }
}

fn line(record: &Value, in_colour: bool) -> String {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let series = text("/series/lastObservedTime");
    let times = [
        series,
        text("/lastTimestamp"),
        text("/eventTime"),
        text("/firstTimestamp"),
        text("/metadata/creationTimestamp"),
    ];
    let time = times.into_iter().find(|time| !time.is_empty()).unwrap_or_default();
    // Of an RFC 3339 time the clock, to the second.
    let clock = time.get(11..19).unwrap_or(time);
    let (kind, reason, is_death) =
        (text("/type"), text("/reason"), record.get("container").is_some_and(Value::is_object));
    let object = format!(
        "{}/{}/{}",
        text("/involvedObject/kind"),
        text("/involvedObject/namespace"),
        text("/involvedObject/name")
    );
    let whole = printable(text("/message"));
    let message = match whole.char_indices().nth(MESSAGE) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    };
    if !in_colour {
        return format!("{clock} {kind:<7} {reason} {object} {message}");
    }
    let colour = match (is_death, kind) {
        (true, "Warning") => RED,
        (true, _) => GREEN,
        (false, "Warning") => YELLOW,
        (false, _) => "",
    };
    format!("{DIM}{clock}{RESET} {colour}{kind:<7} {reason}{RESET} {DIM}{object}{RESET} {message}")
}

/// A message may hold anything; a terminal is to obey none of it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
