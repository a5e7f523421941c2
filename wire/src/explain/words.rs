//! How numbers are told.

use std::borrow::Cow;
use std::fmt;

/// A signal by its number on Linux, but for MIPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal(pub(super) i32);

// === impl Signal ===

impl Signal {
    /// The signal that an exit code stands for: runtimes and shells add 128.
    pub(super) fn of_exit(code: i32) -> Option<Self> {
        (129..=128 + 64).contains(&code).then(|| Self(code - 128))
    }

    fn name(self) -> Option<(&'static str, &'static str)> {
        Some(match self.0 {
            1 => ("SIGHUP", "its terminal or its parent is gone"),
            2 => ("SIGINT", "an interrupt"),
            3 => ("SIGQUIT", "quit"),
            4 => ("SIGILL", "an instruction that the processor does not know"),
            5 => ("SIGTRAP", "a trap"),
            6 => ("SIGABRT", "abort"),
            7 => ("SIGBUS", "an access to memory that is not there"),
            8 => ("SIGFPE", "an arithmetic error"),
            9 => ("SIGKILL", "kill"),
            10 => ("SIGUSR1", ""),
            11 => ("SIGSEGV", "an invalid access to memory"),
            12 => ("SIGUSR2", ""),
            13 => ("SIGPIPE", "a write that nobody reads"),
            14 => ("SIGALRM", "an alarm"),
            15 => ("SIGTERM", "the request to stop"),
            24 => ("SIGXCPU", "the limit on CPU time"),
            25 => ("SIGXFSZ", "the limit on the size of a file"),
            31 => ("SIGSYS", "a system call that is not allowed"),
            _ => return None,
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some((name, "")) => f.write_str(name),
            Some((name, meaning)) => write!(f, "{name}, {meaning}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// As people say it: the two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {part}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 if seconds.is_multiple_of(60) => format!("{minutes} min"),
        60..3_600 => two(minutes, "m", seconds % 60, "s"),
        3_600..86_400 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// As a quantity of Kubernetes that is exactly so many bytes.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [
        ("Ti", 1 << 40),
        ("Gi", 1 << 30),
        ("Mi", 1 << 20),
        ("Ki", 1 << 10),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1_000),
    ];
    let unit = units.into_iter().find(|(_, size): &(&str, u64)| bytes > 0 && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes} bytes"), |(name, size)| format!("{}{name}", bytes / size))
}

/// 1st, 2nd, 3rd, 4th ...
pub(super) fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// The first line that has something in it.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("")
}

/// At most so many characters.
pub(super) fn clip(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
