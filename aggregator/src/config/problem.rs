//! What is wrong, or odd, in a configuration file: each with its place.

use std::fmt;
use std::sync::Arc;

use super::tree::Place;

/// Something for which the file is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// In which file.
    pub file: Arc<str>,
    /// From 1; 0 where it is about the file as a whole.
    pub line: usize,
    /// From 1; 0 where it is about the file as a whole.
    pub column: usize,
    /// Such as `receivers[2].webhook.endpoint`; may be empty.
    pub path: String,
    /// What is wrong, and the way out.
    pub message: String,
}

/// Something with which the file is taken, but that is perhaps not meant so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning(pub Problem);

/// All that was found.
#[derive(Debug)]
pub(super) struct Findings {
    file: Arc<str>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}

// === impl Warning ===

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Findings ===

impl Findings {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.into(), problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn problem(&mut self, at: Place, path: &str, message: impl Into<String>) {
        let problem = self.at(at, path, message.into());
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, at: Place, path: &str, message: impl Into<String>) {
        let warning = Warning(self.at(at, path, message.into()));
        self.warnings.push(warning);
    }

    pub(super) fn at(&self, at: Place, path: &str, message: String) -> Problem {
        Problem {
            file: Arc::clone(&self.file),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            message,
        }
    }
}
