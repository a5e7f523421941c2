//! How one shard is listed, watched and resumed: what to ask for next, after whatever the API server did.
//!
//! Synchronous and without a clock. It holds no records: whoever drives it hands those over first, and tells it then, so
//! that the position never passes a record that was not handed over.

use std::time::Duration;

use nodetap_wire::{WatchState, resource_version};

use super::backoff::Backoff;
use super::request::Request;

/// Items asked for in one page.
pub const PAGE_ITEMS: u32 = 500;

/// Watches are ended by the server within these seconds, each at another time.
pub const TIMEOUT_SECONDS: std::ops::Range<u32> = 270..310;

/// A watch that lasted this long has served, whatever came of it.
pub const LASTED: Duration = Duration::from_secs(10);

/// So many watches in a row that end at once with nothing: the position is stale, though no 410 says so
/// (kubernetes/kubernetes#104171).
const EMPTY_WATCHES: u32 = 3;

/// So many streamed lists that break off: pages get further.
const BROKEN_STREAMS: u32 = 2;

/// The shard's watch, between requests.
#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    /// The last resourceVersion handed over; empty while listing.
    position: String,
    /// The position has moved since the last checkpoint.
    moved: bool,
    /// The position has moved since the request was answered.
    progressed: bool,
    /// The answer has begun.
    begun: bool,
    /// Streamed lists are worth asking for.
    streams: bool,
    broken_streams: u32,
    empty_watches: u32,
    /// A 410 came since the watch last served.
    expired: bool,
    backoff: Backoff,
    state: WatchState,
    failure: String,
}

#[derive(Debug)]
enum Phase {
    Paged(Paged),
    Streamed,
    Watching,
}

#[derive(Debug)]
struct Paged {
    continue_token: String,
    limit: u32,
    /// Of the first page: what comes after it is watched.
    resource_version: String,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The request is answered with 200.
    Begun,
    /// The items of a page were handed over.
    Page {
        /// `metadata.resourceVersion`
        resource_version: &'a str,
        /// `metadata.continue`
        continue_token: &'a str,
    },
    /// A page has more bytes than are held.
    PageTooLong,
    /// An object that was added or changed was handed over.
    Taken {
        /// Its `metadata.resourceVersion`
        resource_version: &'a str,
    },
    /// An object was deleted.
    Deleted {
        /// Its `metadata.resourceVersion`
        resource_version: &'a str,
    },
    /// A bookmark.
    Bookmark {
        /// Its `metadata.resourceVersion`
        resource_version: &'a str,
        /// It ends the initial events.
        ends_list: bool,
    },
    /// The body has ended as it should.
    Ended {
        /// How long after it was asked for.
        after: Duration,
    },
    /// No answer, or its body broke off.
    Broken {
        /// How.
        how: Break,
        /// How long after it was asked for.
        after: Duration,
        /// In words.
        message: &'a str,
    },
    /// A status other than 200, or an ERROR frame.
    Refused {
        /// The HTTP status.
        code: u16,
        /// Retry-After.
        retry_after: Option<Duration>,
        /// In words.
        message: &'a str,
    },
    /// The wait is over.
    TimeIsUp,
}

/// How an exchange broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// No answer began, or not in time.
    Unanswered,
    /// The connection broke.
    Cut,
    /// Nothing came for too long.
    Idle,
    /// What came is not what was asked for.
    Garbage,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on reading.
    Read,
    /// Make this request, and let go of the one before.
    Send(Request),
    /// Let go of the request, and wait.
    Wait(Duration),
}

/// What to do, and why a request was let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub next: Next,
    /// Why the request before is let go of, where it did not serve to its end.
    pub lost: Option<Lost>,
}

/// Why a request did not serve to its end, or has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The server ended the watch when it was asked to, or when it wanted to.
    Ended,
    /// The watch ended at once with nothing.
    Empty,
    /// The connection broke.
    Cut,
    /// Nothing came for too long.
    Idle,
    /// No answer began.
    Unanswered,
    /// What came is not what was asked for.
    Garbage,
    /// 410: the position or the page is no longer kept.
    Expired,
    /// 429.
    Throttled,
    /// 401 or 403.
    Denied,
    /// Another status.
    Refused,
    /// The server does not stream lists.
    Unsupported,
    /// A page had more bytes than are held.
    PageTooLong,
}

// === impl Machine ===

impl Machine {
    /// Goes on after `position`; from a list where it is empty. `seed` spreads its waits.
    pub fn new(position: &str, seed: u64) -> Self {
        let mut machine = Self {
            phase: Phase::Watching,
            position: position.to_owned(),
            moved: false,
            progressed: false,
            begun: false,
            streams: true,
            broken_streams: 0,
            empty_watches: 0,
            expired: false,
            backoff: Backoff::new(seed),
            state: WatchState::Unspecified,
            failure: String::new(),
        };
        if position.is_empty() {
            machine.start_list();
        }
        machine
    }

    /// The first request.
    pub fn start(&mut self) -> Next {
        self.send()
    }

    /// Starts again after `position`, from a list where it is empty; what was learnt of the server stays.
    pub fn restart(&mut self, position: &str) -> Next {
        self.moved = false;
        self.empty_watches = 0;
        self.expired = false;
        if position.is_empty() {
            self.start_list();
        } else {
            self.phase = Phase::Watching;
            position.clone_into(&mut self.position);
        }
        self.send()
    }

    /// Whether everything after `position` has been handed over, or will be without starting again.
    pub fn covers(&self, position: &str) -> bool {
        match (self.is_listing(), position.is_empty()) {
            (true, empty) => empty,
            (false, true) => false,
            (false, false) => {
                self.position == position || resource_version::is_later(&self.position, position)
            }
        }
    }

    /// Goes on as it is under a new epoch, which has no checkpoint yet.
    pub fn keep(&mut self) {
        self.moved = !self.position.is_empty();
    }

    /// What comes is what there already was, rather than what happens.
    pub fn is_listing(&self) -> bool {
        !matches!(self.phase, Phase::Watching)
    }

    /// Listing, watching or backing off.
    pub fn state(&self) -> WatchState {
        self.state
    }

    /// The last failure in words; empty since the watch last served.
    pub fn failure(&self) -> &str {
        &self.failure
    }

    /// The position, once, if it has moved since it was last asked for.
    pub fn checkpoint(&mut self) -> Option<&str> {
        std::mem::take(&mut self.moved).then_some(self.position.as_str())
    }

    /// Takes what happened.
    pub fn step(&mut self, input: Input<'_>) -> Step {
        match input {
            Input::Begun => {
                self.begun = true;
                if !self.is_listing() {
                    self.state = WatchState::Watching;
                    self.failure.clear();
                }
                Step::read()
            }
            Input::Page { resource_version, continue_token } => self.page(resource_version, continue_token),
            Input::PageTooLong => self.page_too_long(),
            Input::Taken { resource_version } => {
                if !self.is_listing() {
                    self.advance(resource_version);
                }
                Step::read()
            }
            Input::Deleted { resource_version } => {
                // The object's last state on some servers, the deletion's own on most.
                if !self.is_listing() && resource_version::is_later(resource_version, &self.position) {
                    self.advance(resource_version);
                }
                Step::read()
            }
            Input::Bookmark { resource_version, ends_list } => self.bookmark(resource_version, ends_list),
            Input::Ended { after } => self.ended(after),
            Input::Broken { how, after, message } => self.broken(how, after, message),
            Input::Refused { code, retry_after, message } => self.refused(code, retry_after, message),
            Input::TimeIsUp => Step { next: self.send(), lost: None },
        }
    }

    fn page(&mut self, resource_version: &str, continue_token: &str) -> Step {
        let Phase::Paged(paged) = &mut self.phase else {
            return Step::read();
        };
        if paged.resource_version.is_empty() {
            resource_version.clone_into(&mut paged.resource_version);
        }
        if paged.resource_version.is_empty() {
            return self.fail(Lost::Garbage, "a list without a resourceVersion", None);
        }
        if continue_token.is_empty() {
            self.position = std::mem::take(&mut paged.resource_version);
            self.end_list();
        } else if paged.continue_token == continue_token {
            self.start_list();
            return self.fail(Lost::Garbage, "a list whose next page is the same page", None);
        } else {
            continue_token.clone_into(&mut paged.continue_token);
        }
        Step { next: self.send(), lost: None }
    }

    fn page_too_long(&mut self) -> Step {
        match &mut self.phase {
            Phase::Paged(paged) if paged.limit > 1 => {
                paged.limit /= 2;
                Step { next: self.send(), lost: Some(Lost::PageTooLong) }
            }
            _ => self.fail(Lost::PageTooLong, "one item alone is longer than a page may be", None),
        }
    }

    fn bookmark(&mut self, resource_version: &str, ends_list: bool) -> Step {
        if resource_version.is_empty() {
            return Step::read();
        }
        match self.phase {
            Phase::Streamed if ends_list => {
                resource_version.clone_into(&mut self.position);
                self.end_list();
                self.broken_streams = 0;
                self.state = WatchState::Watching;
            }
            Phase::Watching => self.advance(resource_version),
            Phase::Streamed | Phase::Paged(_) => {}
        }
        Step::read()
    }

    fn ended(&mut self, after: Duration) -> Step {
        match self.phase {
            Phase::Streamed => {
                // As from a server that knows nothing of it and lets unknown parameters pass.
                self.streams = false;
                self.start_list();
                "a streamed list ended without its closing bookmark".clone_into(&mut self.failure);
                Step { next: self.send(), lost: Some(Lost::Unsupported) }
            }
            Phase::Paged(_) => self.fail(Lost::Garbage, "a page ended that was not read", None),
            Phase::Watching => {
                if self.served(after) {
                    return Step { next: self.send(), lost: Some(Lost::Ended) };
                }
                self.empty_watches += 1;
                if self.empty_watches >= EMPTY_WATCHES {
                    self.empty_watches = 0;
                    self.start_list();
                }
                self.fail(Lost::Empty, "the watch ended at once with nothing", None)
            }
        }
    }

    fn broken(&mut self, how: Break, after: Duration, message: &str) -> Step {
        match self.phase {
            Phase::Streamed if self.begun => {
                self.broken_streams += 1;
                if how == Break::Idle || self.broken_streams >= BROKEN_STREAMS {
                    self.streams = false;
                }
                self.start_list();
            }
            Phase::Watching if self.begun => {
                self.served(after);
            }
            _ => {}
        }
        let lost = match how {
            Break::Unanswered => Lost::Unanswered,
            Break::Cut => Lost::Cut,
            Break::Idle => Lost::Idle,
            Break::Garbage => Lost::Garbage,
        };
        self.fail(lost, message, None)
    }

    fn refused(&mut self, code: u16, retry_after: Option<Duration>, message: &str) -> Step {
        let served = matches!(self.phase, Phase::Watching) && self.progressed;
        if served {
            self.backoff.reset();
            self.expired = false;
        }
        match (&self.phase, code) {
            (Phase::Streamed, 400 | 422 | 501) => {
                self.streams = false;
                self.start_list();
                message.clone_into(&mut self.failure);
                return Step { next: self.send(), lost: Some(Lost::Unsupported) };
            }
            (_, 410) => {
                self.start_list();
                // The first one costs nothing but a list, and who answers so is well, whatever failed before: what is overwritten while it
                // is waited for is seen by nobody. One after the other, without progress, does cost.
                if !std::mem::replace(&mut self.expired, true) {
                    message.clone_into(&mut self.failure);
                    return Step { next: self.send(), lost: Some(Lost::Expired) };
                }
                return self.fail(Lost::Expired, message, retry_after);
            }
            // A position that is none, as after the API server's storage was put back to an older state.
            (Phase::Watching, 400 | 422) => self.start_list(),
            (Phase::Watching, _) if message.contains("Too large resource version") => self.start_list(),
            _ => {}
        }
        let lost = match code {
            401 | 403 => Lost::Denied,
            429 => Lost::Throttled,
            _ => Lost::Refused,
        };
        self.fail(lost, message, retry_after)
    }

    /// Whether the watch that is over has served: then whatever comes next is a first failure.
    fn served(&mut self, after: Duration) -> bool {
        let served = self.progressed || after >= LASTED;
        if served {
            self.backoff.reset();
            self.empty_watches = 0;
            self.expired = false;
        }
        served
    }

    fn advance(&mut self, resource_version: &str) {
        if self.position != resource_version {
            resource_version.clone_into(&mut self.position);
            self.moved = true;
            self.progressed = true;
        }
    }

    fn start_list(&mut self) {
        self.position.clear();
        self.moved = false;
        self.phase = match self.streams {
            true => Phase::Streamed,
            false => Phase::Paged(Paged {
                continue_token: String::new(),
                limit: PAGE_ITEMS,
                resource_version: String::new(),
            }),
        };
    }

    fn end_list(&mut self) {
        self.phase = Phase::Watching;
        self.moved = true;
        self.failure.clear();
    }

    fn fail(&mut self, lost: Lost, message: &str, retry_after: Option<Duration>) -> Step {
        self.state = WatchState::BackingOff;
        message.clone_into(&mut self.failure);
        Step { next: Next::Wait(self.backoff.wait(retry_after)), lost: Some(lost) }
    }

    fn send(&mut self) -> Next {
        self.begun = false;
        self.progressed = false;
        let seconds = u64::from(TIMEOUT_SECONDS.end - TIMEOUT_SECONDS.start);
        // Less than the range's length, which is a u32.
        let timeout_seconds = TIMEOUT_SECONDS.start + self.backoff.draw(seconds) as u32;
        if self.is_listing() {
            self.state = WatchState::Listing;
        }
        Next::Send(match &self.phase {
            Phase::Paged(paged) => {
                Request::Page { continue_token: paged.continue_token.clone(), limit: paged.limit }
            }
            Phase::Streamed => Request::StreamedList { timeout_seconds },
            Phase::Watching => Request::Watch { resource_version: self.position.clone(), timeout_seconds },
        })
    }
}

// === impl Step ===

impl Step {
    fn read() -> Self {
        Self { next: Next::Read, lost: None }
    }
}

// === impl Lost ===

impl Lost {
    /// As a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Empty => "empty",
            Self::Cut => "cut",
            Self::Idle => "idle",
            Self::Unanswered => "unanswered",
            Self::Garbage => "garbage",
            Self::Expired => "expired",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::PageTooLong => "page_too_long",
        }
    }
}

#[cfg(test)]
mod tests;
