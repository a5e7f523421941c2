//! What goes wrong by request: watches cut or stalled, refusals, garbage, compactions, kubelets that refuse.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The switches. All may be turned at any time.
#[derive(Debug)]
pub struct Faults {
    answers: Mutex<VecDeque<(Scope, Answer, Times)>>,
    pub(super) cut: watch::Sender<Cut>,
    pub(super) stalled: watch::Sender<bool>,
    pub(super) dribble: AtomicU32,
    pub(super) empty_when_stale: AtomicBool,
    pub(super) down: watch::Sender<bool>,
    kubelets: Mutex<BTreeMap<String, KubeletFault>>,
}

/// Which requests are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any at all.
    Any,
    /// Lists of events.
    EventLists,
    /// Watches of events, the ones that begin with a list too.
    EventWatches,
    /// Lists and watches of pods.
    Pods,
    /// Lists and watches of namespaces.
    Namespaces,
    /// Logs of containers.
    Logs,
}

/// What is answered instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 429 with `Retry-After`, in seconds.
    TooManyRequests(u32),
    /// 500
    InternalError,
    /// 200 with something that is no JSON.
    Garbage,
    /// 200 and not a byte.
    Empty,
    /// 410 as an HTTP status, which a list may answer and a watch behind some proxies too.
    Gone,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// So many requests.
    Next(u32),
    /// Until [`Faults::clear`].
    Always,
}

/// How the open event watches ended last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) generation: u64,
    pub(super) how: CutHow,
}

/// How a watch is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CutHow {
    /// The stream ends as at its time-out.
    #[default]
    Clean,
    /// The connection breaks between two lines.
    Broken,
    /// The connection breaks in the middle of a line.
    MiddleOfLine,
}

/// What a kubelet answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeletFault {
    /// 401
    Unauthorized,
    /// 403, as to one without `nodes/pods`.
    Forbidden,
    /// 500
    InternalError,
    /// 200 with something that is no JSON.
    Garbage,
    /// Accepts and says nothing.
    Silent,
}

// === impl Faults ===

impl Default for Faults {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            cut: watch::Sender::new(Cut::default()),
            stalled: watch::Sender::new(false),
            dribble: AtomicU32::new(0),
            empty_when_stale: AtomicBool::new(false),
            down: watch::Sender::new(false),
            kubelets: Mutex::default(),
        }
    }
}

impl Faults {
    /// Ends all open event watches.
    pub fn cut_event_watches(&self, how: CutHow) {
        self.cut.send_modify(|cut| *cut = Cut { generation: cut.generation + 1, how });
    }

    /// Answers requests with something else.
    pub fn answer(&self, scope: Scope, answer: Answer, times: Times) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back((scope, answer, times));
    }

    /// Takes back all that was set by [`Self::answer`].
    pub fn clear(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// While stalled, open and new event watches say nothing.
    pub fn stall_event_watches(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// The next so many lines of event watches come byte by byte.
    pub fn dribble_lines(&self, lines: u32) {
        self.dribble.store(lines, Ordering::Relaxed);
    }

    /// A watch from a resourceVersion that is too old: a 200 that ends with nothing in it, instead of an ERROR frame.
    pub fn empty_when_stale(&self, empty: bool) {
        self.empty_when_stale.store(empty, Ordering::Relaxed);
    }

    /// While down, the API server breaks its connections and takes no new ones.
    pub fn api_server_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// What the kubelet of a node answers; `None`: the truth.
    pub fn kubelet(&self, node: &str, fault: Option<KubeletFault>) {
        let mut kubelets = self.kubelets.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => kubelets.insert(node.to_owned(), fault),
            None => kubelets.remove(node),
        };
    }

    pub(super) fn of_kubelet(&self, node: &str) -> Option<KubeletFault> {
        self.kubelets.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }

    /// The answer for a request of this scope, if one is set; counts it.
    pub(super) fn take(&self, scope: Scope) -> Option<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let at = answers.iter().position(|(of, _, _)| *of == Scope::Any || *of == scope)?;
        let (_, answer, times) = answers.get_mut(at)?;
        let answer = *answer;
        match times {
            Times::Next(left) if *left <= 1 => {
                answers.remove(at);
            }
            Times::Next(left) => *left -= 1,
            Times::Always => {}
        }
        Some(answer)
    }

    pub(super) fn take_dribble(&self) -> bool {
        self.dribble.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
