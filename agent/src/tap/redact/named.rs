//! Patterns of the configuration: a file with a line `NAME REGEX` for each.
//!
//! The group `secret` of a regex is what is replaced, or all that it matches where it has none. Empty lines and those that begin with
//! `#` are left out. Linear time, as all of `regex`: a pattern can be slow in proportion to its size, never worse.

use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::{Counts, Kind, REDACTED, is_redacted};

/// Patterns of a file: more would be felt with each line of a log.
const PATTERNS: usize = 64;

/// Of one pattern, compiled: bounds its memory.
const COMPILED: usize = 256 * 1024;

/// Of the file.
const FILE_BYTES: u64 = 256 * 1024;

/// The patterns; none by default.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// `None`: no patterns.
    set: Option<RegexSet>,
    patterns: Vec<(String, Regex)>,
}

/// What of the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamedError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line of it.
    #[error("{}:{line}: {wrong}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        wrong: String,
    },
}

// === impl Named ===

impl Named {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Where it cannot be read, and its first line that cannot be used.
    pub fn read(path: &Path) -> Result<Self, NamedError> {
        use std::io::Read;

        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES).read_to_string(&mut text))
            .map_err(|error| NamedError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|(line, wrong)| NamedError::Line { path: path.to_owned(), line, wrong })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut patterns: Vec<(String, Regex)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, source) =
                line.split_once(char::is_whitespace).ok_or((number, "it is not `NAME REGEX`".to_owned()))?;
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if name.len() > 63 || !name.bytes().all(plain) {
                let wrong = format!("the name `{name}` is not 1 to 63 of a-z, 0-9 and _");
                return Err((number, wrong));
            }
            if patterns.iter().any(|(known, _)| known == name) {
                return Err((number, format!("there is a pattern `{name}` before it")));
            }
            if patterns.len() >= PATTERNS {
                return Err((number, format!("more than {PATTERNS} patterns")));
            }
            let regex =
                RegexBuilder::new(source.trim()).size_limit(COMPILED).dfa_size_limit(COMPILED).build();
            let regex = regex.map_err(|error| (number, error.to_string()))?;
            if regex.is_match("") {
                return Err((number, "it matches where there is nothing".to_owned()));
            }
            patterns.push((name.to_owned(), regex));
        }
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let sources = patterns.iter().map(|(_, regex)| regex.as_str());
        let set = RegexSetBuilder::new(sources)
            .size_limit(PATTERNS * COMPILED)
            .dfa_size_limit(2 * COMPILED)
            .build()
            .map_err(|error| (0, error.to_string()))?;
        Ok(Self { set: Some(set), patterns })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub(super) fn name(&self, index: u16) -> &str {
        self.patterns.get(usize::from(index)).map_or("named", |(name, _)| name)
    }

    pub(super) fn matches(&self, text: &str) -> Vec<usize> {
        self.set.as_ref().map(|set| set.matches(text).into_iter().collect()).unwrap_or_default()
    }

    /// `None`: nothing to replace.
    pub(super) fn replace(&self, index: usize, text: &str, counts: &mut Counts) -> Option<String> {
        let (_, regex) = self.patterns.get(index)?;
        let kind = Kind::Named(u16::try_from(index).ok()?);
        let (mut replaced, mut copied) = (String::new(), 0);
        for captures in regex.captures_iter(text) {
            let Some(secret) = captures.name("secret").or_else(|| captures.get(0)) else { continue };
            if secret.is_empty() || is_redacted(secret.as_str()) {
                continue;
            }
            *counts.entry(kind).or_default() += 1;
            replaced.push_str(text.get(copied..secret.start())?);
            replaced.push_str(REDACTED);
            copied = secret.end();
        }
        if copied == 0 {
            return None;
        }
        replaced.push_str(text.get(copied..)?);
        Some(replaced)
    }
}

#[cfg(test)]
mod tests;
