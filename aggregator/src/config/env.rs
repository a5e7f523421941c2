//! Environment variables in the file's text, as Go's `os.ExpandEnv` puts them in before the YAML is read.
//!
//! There is no escape and no default, and what is not set is empty: old files depend on it. What vanishes so is reported.

use super::tree::Place;

/// A text with its variables put in.
pub(super) struct Expanded {
    pub(super) text: String,
    /// For each of its lines, from which line of the file it comes.
    lines: Vec<usize>,
    /// Variables that are not set, and where they stood.
    pub(super) unset: Vec<(Place, String)>,
}

/// Puts variables in.
pub(super) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Expanded {
    let mut expanded =
        Expanded { text: String::with_capacity(text.len()), lines: vec![1], unset: Vec::new() };
    let mut line = 1;
    let mut rest = text;
    let mut line_start = text;
    while let Some(at) = rest.find(['$', '\n']) {
        let (before, found) = rest.split_at(at);
        expanded.text.push_str(before);
        let after = &found[1..];
        if found.starts_with('\n') {
            expanded.text.push('\n');
            line += 1;
            expanded.lines.push(line);
            (rest, line_start) = (after, after);
            continue;
        }
        let (name, length) = shell_name(after);
        match name {
            Some(name) => match lookup(name) {
                Some(value) => {
                    expanded.lines.extend(std::iter::repeat_n(line, value.matches('\n').count()));
                    expanded.text.push_str(&value);
                }
                None => {
                    let column = line_start[..line_start.len() - found.len()].chars().count() + 1;
                    expanded.unset.push((Place { line, column }, found[..=length].to_owned()));
                }
            },
            None if length == 0 => expanded.text.push('$'),
            None => {}
        }
        line += after[..length].matches('\n').count();
        rest = &after[length..];
    }
    expanded.text.push_str(rest);
    expanded
}

/// What stands behind a `$`: a name, and how long it is with its braces. Without a name, what is that long vanishes.
fn shell_name(text: &str) -> (Option<&str>, usize) {
    let special = |c: char| matches!(c, '*' | '#' | '$' | '@' | '!' | '?' | '-' | '0'..='9');
    if let Some(inner) = text.strip_prefix('{') {
        if inner.starts_with(special) && inner[1..].starts_with('}') {
            return (Some(&inner[..1]), 3);
        }
        return match inner.find('}') {
            Some(0) => (None, 2),
            Some(end) => (Some(&inner[..end]), end + 2),
            None => (None, 1),
        };
    }
    if text.starts_with(special) {
        return (Some(&text[..1]), 1);
    }
    let length = text.len() - text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
    ((length > 0).then(|| &text[..length]), length)
}

// === impl Expanded ===

impl Expanded {
    /// The place in the file of a place in the text. The column is the text's.
    pub(super) fn origin(&self, at: Place) -> Place {
        let line = at.line.checked_sub(1).and_then(|index| self.lines.get(index)).or(self.lines.last());
        Place { line: line.copied().unwrap_or(at.line), column: at.column }
    }
}

#[cfg(test)]
mod tests;
