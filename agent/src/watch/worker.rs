//! Drives the machine of one shard: makes its requests, hands over what comes, reports where it stands.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use kube::Client;
use nodetap_wire::event::{Event, Reader};
use nodetap_wire::frame::Run;
use nodetap_wire::shard::Share;
use nodetap_wire::{AssignedWatch, Change, Checkpoint, UidRange, WatchReport, WatchState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::exchange::{Answer, Failure};
use super::frame::{self, Frame, FrameError, MAX_LINE_BYTES, Marked, Page};
use super::lines::{Line, Lines};
use super::machine::{Break, Input, Lost, Machine, Next, Step};
use super::metrics::{FrameKind, Frames, Metrics, share_of};
use super::names::{Gathering, Names};
use super::progress::Progress;
use super::reach::Reach;
use super::reports::Reports;
use super::request::{Request, Resource, Target};
use super::tally::Tally;
use crate::outbox::{Closed, Intake, RUN_BYTES, RUN_RECORDS, Taken};

/// Records after which a checkpoint is due, though more are there already.
const RECORDS_PER_CHECKPOINT: u32 = 256;

/// A watch that the server was to end by now is dead.
const IDLE_BEYOND_TIMEOUT: Duration = Duration::from_secs(30);

/// A streamed list that pauses for this long will not end: its server does not know what was asked for.
const LIST_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Records that are refused are each counted, but not each logged.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What all workers share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) intake: Intake,
    pub(super) metrics: Metrics,
    pub(super) progress: Progress,
    pub(super) reports: Reports,
    pub(super) tally: Tally,
    pub(super) names: Names,
    pub(super) reach: Reach,
}

/// The watch of one shard.
pub(super) struct Worker {
    client: Client,
    /// The shard's name, for people.
    name: String,
    target: Target,
    /// The range of uids that is held. An API server that does not know the selector sends everything.
    range: Option<UidRange>,
    /// Nodes whose events others watch.
    other_hosts: HashSet<String>,
    /// The names of namespaces, where those are what is watched.
    gathering: Gathering,
    /// The shard's kind, as a label.
    share: &'static str,
    /// The assignment that is held, and where a newer one of the same shard comes from.
    held: AssignedWatch,
    assigned: watch::Receiver<AssignedWatch>,
    /// How far the watch has come, with what is pending: whoever goes by that hands it over first.
    machine: Machine,
    reader: Reader,
    pending: Pending,
    frames: Frames,
    shared: Shared,
    /// Grows when the API server was reached.
    reached: watch::Receiver<u64>,
    /// It waits because the API server was not.
    is_cut_off: bool,
    reported: (WatchState, String),
    /// The state that the gauge counts it in.
    counted: WatchState,
    records: u32,
    warned: Option<Instant>,
    unwarned: u64,
}

/// Events that were taken and not handed over yet, no more than one chunk of a watch's body or one page has. Handed over together,
/// they are woken up for, timed and counted once.
#[derive(Debug, Default)]
struct Pending {
    run: Run,
    /// Bytes of the run before: what this one is given room for, so that it does not grow again and again.
    usual: usize,
    /// How many of them are new, and when the last of those whose time is known happened, in nanoseconds since 1970.
    new: u64,
    last_ns: i64,
}

// === impl Pending ===

impl Pending {
    fn put(&mut self, event: &Event<'_>, json: &str, change: Change) -> Result<(), FrameError> {
        if self.run.is_empty() {
            self.run.reserve(self.usual);
        }
        let time_ns = frame::put(&mut self.run, event, json, change)?;
        if change != Change::Listed {
            self.new += 1;
            self.last_ns = if time_ns > 0 { time_ns } else { self.last_ns };
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.run.len() >= RUN_RECORDS || self.run.bytes() >= RUN_BYTES
    }

    fn take(&mut self) -> Self {
        // What one large event took is not taken again.
        let usual = self.run.bytes().min(RUN_BYTES);
        std::mem::replace(self, Self { usual, ..Self::default() })
    }
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(
        client: Client,
        name: String,
        target: Target,
        mut assigned: watch::Receiver<AssignedWatch>,
        seed: u64,
        shared: Shared,
    ) -> Self {
        let held = assigned.borrow_and_update().clone();
        Self {
            client,
            name,
            target,
            range: match held.shard.as_ref().and_then(|shard| shard.share.as_ref()) {
                Some(Share::UidRange(range)) => Some(*range),
                _ => None,
            },
            other_hosts: held.other_hosts.iter().cloned().collect(),
            gathering: Gathering::default(),
            share: held.shard.as_ref().map_or("unknown", share_of),
            machine: Machine::new(&held.resource_version, seed),
            held,
            assigned,
            reader: Reader::default(),
            pending: Pending::default(),
            frames: shared.metrics.frames(),
            reached: shared.reach.reached(),
            is_cut_off: false,
            shared,
            reported: (WatchState::Unspecified, String::new()),
            counted: WatchState::Unspecified,
            records: 0,
            warned: None,
            unwarned: 0,
        }
    }

    /// Lists and watches for ever.
    ///
    /// # Errors
    /// Once the outbox has ended.
    pub(super) async fn run(&mut self) -> Result<std::convert::Infallible, Closed> {
        let mut next = self.machine.start();
        self.shared.progress.state(&self.name, self.machine.state(), "");
        loop {
            self.report();
            next = match next {
                Next::Send(request) => self.exchange(request).await?,
                Next::Wait(wait) => tokio::select! {
                    () = sleep(wait) => self.step(Input::TimeIsUp),
                    () = changed(&mut self.reached), if self.is_cut_off => self.step(Input::TimeIsUp),
                    () = renewed(&mut self.assigned) => match self.renew() {
                        Some(next) => next,
                        // Whoever assigns it anew wants it now.
                        None => self.step(Input::TimeIsUp),
                    },
                },
                Next::Read => self.step(Input::Broken {
                    how: Break::Garbage,
                    after: Duration::ZERO,
                    message: "nothing to read from",
                }),
            };
        }
    }

    /// Makes a request and serves it to its end.
    async fn exchange(&mut self, request: Request) -> Result<Next, Closed> {
        let uri = request.to_uri(&self.target);
        let accept = self.target.resource.accept(&request);
        let verb = match request {
            Request::Page { .. } => "list",
            Request::StreamedList { .. } | Request::Watch { .. } => "watch",
        };
        debug!(%uri, "asking the API server");
        let client = self.client.clone();
        let started = Instant::now();
        let mut asked = std::pin::pin!(Answer::to(&client, &uri, accept));
        let answer = loop {
            tokio::select! {
                answer = &mut asked => break answer,
                () = renewed(&mut self.assigned) => if let Some(next) = self.renew() {
                    return Ok(next);
                },
            }
        };
        let resource = self.target.resource.plural();
        self.shared.metrics.requests.count(
            verb,
            resource,
            answer.as_ref().map_or_else(Failure::code, |_| Some(200)),
        );
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return Ok(self.failed(failure, Duration::ZERO)),
        };
        if verb == "watch" {
            self.shared.reach.took(started.elapsed());
        }
        self.served(false);
        self.step(Input::Begun);
        if !matches!(&request, Request::Page { continue_token, .. } if !continue_token.is_empty())
            && self.machine.is_listing()
        {
            self.gathering.begin();
        }
        self.report();
        match request {
            Request::Page { .. } => self.page(answer).await,
            Request::StreamedList { timeout_seconds } | Request::Watch { timeout_seconds, .. } => {
                self.stream(answer, Duration::from_secs(timeout_seconds.into()) + IDLE_BEYOND_TIMEOUT).await
            }
        }
    }

    async fn page(&mut self, answer: Answer) -> Result<Next, Closed> {
        let body = match answer.page().await {
            Ok(body) => body,
            Err(Failure::TooLong) => return Ok(self.step(Input::PageTooLong)),
            Err(failure) => return Ok(self.failed(failure, Duration::ZERO)),
        };
        self.served(true);
        let text = String::from_utf8_lossy(&body);
        if matches!(text, Cow::Owned(_)) {
            // Whose bytes they are cannot be told before they are parsed: they are replaced, and nothing is lost.
            self.shared.metrics.refused("not_utf8");
            self.warn(
                "a page of events is not UTF-8: the bytes that are not were replaced",
                None,
                &"not UTF-8",
            );
        }
        let page: Page<'_> = match serde_json::from_str(&text) {
            Ok(page) => page,
            Err(error) => {
                self.shared.metrics.refused("malformed_page");
                let message = format!("not a list of events: {error}");
                return Ok(self.step(Input::Broken {
                    how: Break::Garbage,
                    after: Duration::ZERO,
                    message: &message,
                }));
            }
        };
        for item in page.items.unwrap_or_default() {
            self.frames.count(FrameKind::Listed);
            self.take(item.get(), Change::Listed);
            self.hand_over_due().await?;
        }
        self.hand_over().await?;
        let next = self.step(Input::Page {
            resource_version: &page.metadata.resource_version,
            continue_token: &page.metadata.continue_token,
        });
        if !self.machine.is_listing() {
            self.gathering.end();
        }
        self.checkpoint().await?;
        self.served(false);
        Ok(next)
    }

    async fn stream(&mut self, mut answer: Answer, idle: Duration) -> Result<Next, Closed> {
        let mut lines = Lines::new(MAX_LINE_BYTES);
        loop {
            let idle = if self.machine.is_listing() { LIST_IDLE_TIMEOUT } else { idle };
            let chunk = tokio::select! {
                biased;
                () = renewed(&mut self.assigned) => match self.renew() {
                    Some(next) => return Ok(next),
                    None => {
                        self.checkpoint().await?;
                        continue;
                    }
                },
                chunk = answer.chunk(idle) => chunk,
            };
            match chunk {
                Ok(Some(chunk)) => {
                    self.served(true);
                    lines.push(chunk);
                    while let Some(line) = lines.next_line() {
                        if let Some(next) = self.line(line).await? {
                            return Ok(next);
                        }
                    }
                    self.checkpoint().await?;
                    self.served(false);
                    self.report();
                }
                Ok(None) => {
                    if lines.unfinished() > 0 {
                        self.shared.metrics.refused("cut_line");
                    }
                    self.served(false);
                    return Ok(self.step(Input::Ended { after: answer.age() }));
                }
                Err(failure) => {
                    if lines.unfinished() > 0 {
                        self.shared.metrics.refused("cut_line");
                    }
                    return Ok(self.failed(failure, answer.age()));
                }
            }
        }
    }

    /// Takes one line of a watch; says what to do where that is not to read on.
    async fn line(&mut self, line: Line<'_>) -> Result<Option<Next>, Closed> {
        let frame = match line {
            Line::Whole(line) => Frame::take(line),
            Line::TooLong(length) => Err(FrameError::TooLong(length)),
        };
        let next = match frame {
            Ok(Frame::Added(object)) => {
                self.frames.count(FrameKind::Added);
                let change = if self.machine.is_listing() { Change::Listed } else { Change::Added };
                self.take(object, change);
                self.hand_over_due().await?;
                Next::Read
            }
            Ok(Frame::Modified(object)) => {
                self.frames.count(FrameKind::Modified);
                self.take(object, Change::Modified);
                self.hand_over_due().await?;
                Next::Read
            }
            Ok(Frame::Deleted(object)) => {
                self.frames.count(FrameKind::Deleted);
                if self.target.resource == Resource::Namespaces {
                    self.gathering.remove(object.name());
                }
                self.step(Input::Deleted { resource_version: object.resource_version() })
            }
            Ok(Frame::Bookmark(mark)) => {
                self.frames.count(FrameKind::Bookmark);
                if mark.ends_initial_events() && self.machine.is_listing() {
                    self.gathering.end();
                }
                self.step(Input::Bookmark {
                    resource_version: mark.resource_version(),
                    ends_list: mark.ends_initial_events(),
                })
            }
            Ok(Frame::Error(status)) => {
                self.frames.count(FrameKind::Error);
                let message = status.to_message();
                let retry_after = status.retry_after();
                // What came before it was handed over, and its request is let go of now.
                self.checkpoint().await?;
                self.step(Input::Refused { code: status.code(), retry_after, message: &message })
            }
            Ok(Frame::Unknown(kind)) => {
                self.frames.count(FrameKind::Unknown);
                self.shared.metrics.refused("unknown_type");
                debug!(%kind, "a frame of an unknown type was skipped");
                Next::Read
            }
            Err(error) => {
                self.shared.metrics.refused(error.reason());
                self.warn("a frame of a watch was refused", None, &error);
                Next::Read
            }
        };
        Ok((next != Next::Read).then_some(next))
    }

    /// Takes one object, if it is one.
    fn take(&mut self, json: &str, change: Change) {
        if self.target.resource == Resource::Namespaces {
            return self.take_name(json);
        }
        if let Some(event) = self.of_another_host(json) {
            self.shared.metrics.left_to_others("other_host");
            self.step(Input::Taken { resource_version: event.resource_version() });
            return;
        }
        let mut event = Event::default();
        if let Err(error) = frame::read(&mut self.reader, json, &mut event) {
            return self.refuse(json, &error);
        }
        if self.range.is_some_and(|range| !range.has(&event.metadata.uid)) {
            self.shared.metrics.left_to_others("other_range");
        } else {
            if let Err(error) = self.pending.put(&event, json, change) {
                return self.refuse(json, &error);
            }
            self.records += 1;
        }
        self.step(Input::Taken { resource_version: &event.metadata.resource_version });
    }

    fn refuse(&mut self, json: &str, error: &FrameError) {
        self.shared.metrics.refused(error.reason());
        self.warn("an event was refused", frame::name_of(json), error);
    }

    /// Hands over what was taken, where that is enough.
    async fn hand_over_due(&mut self) -> Result<(), Closed> {
        if self.records >= RECORDS_PER_CHECKPOINT {
            return self.checkpoint().await;
        }
        if self.pending.is_full() { self.hand_over().await } else { Ok(()) }
    }

    /// Hands over what was taken.
    async fn hand_over(&mut self) -> Result<(), Closed> {
        if self.pending.run.is_empty() {
            return Ok(());
        }
        let Pending { run, new, last_ns, .. } = self.pending.take();
        if new > 0 {
            self.shared.tally.add(&self.held, new, last_ns);
        }
        let records = run.len();
        self.shared.intake.take(Taken::Events(run)).await?;
        self.shared.metrics.handed_over(self.share, records);
        Ok(())
    }

    /// An event that the watch of its own node has. `source.host` alone counts, as the API server selects by no other field.
    fn of_another_host<'a>(&self, json: &'a str) -> Option<Marked<'a>> {
        // What names no node, as most that is kept, has no such field: it is not looked through twice.
        if self.other_hosts.is_empty() || !json.contains("\"host\"") {
            return None;
        }
        let event = frame::marked(json).ok()?;
        (self.other_hosts.contains(event.host()) && !event.resource_version().is_empty()).then_some(event)
    }

    /// Takes the name of a namespace.
    fn take_name(&mut self, json: &str) {
        match frame::marked(json) {
            Ok(object) if !object.name().is_empty() => {
                self.gathering.add(object.name());
                self.shared.metrics.progress(self.share);
                self.step(Input::Taken { resource_version: object.resource_version() });
            }
            Ok(_) => self.shared.metrics.refused("no_identity"),
            Err(error) => {
                self.shared.metrics.refused(error.reason());
                self.warn("a namespace was refused", None, &error);
            }
        }
    }

    /// Says how far the watch has come, if it has come further.
    async fn checkpoint(&mut self) -> Result<(), Closed> {
        self.records = 0;
        self.hand_over().await?;
        if self.target.resource == Resource::Namespaces {
            self.shared.names.publish(self.held.epoch, &mut self.gathering);
            return Ok(());
        }
        let Some(resource_version) = self.machine.checkpoint() else { return Ok(()) };
        let checkpoint = Checkpoint {
            shard: self.held.shard.clone(),
            epoch: self.held.epoch,
            resource_version: resource_version.to_owned(),
        };
        self.shared.intake.take(Taken::Checkpoint(checkpoint)).await
    }

    /// Takes a newer assignment of the shard; says what to do where the stream at hand does not serve it.
    fn renew(&mut self) -> Option<Next> {
        let assigned = self.assigned.borrow_and_update().clone();
        self.other_hosts = assigned.other_hosts.iter().cloned().collect();
        if assigned.epoch == self.held.epoch {
            return None;
        }
        // What was handed over before a loss is to be handed over again.
        let is_lost = self.held.epoch < assigned.lost_before;
        let kept = !is_lost && self.machine.covers(&assigned.resource_version);
        info!(shard = self.name, epoch = assigned.epoch, kept, "an event watch was assigned anew");
        self.held = assigned;
        self.gathering.tell_again();
        // Each epoch is told where it stands.
        self.reported = (WatchState::Unspecified, String::new());
        let next = if kept {
            self.machine.keep();
            None
        } else {
            Some(self.machine.restart(&self.held.resource_version))
        };
        self.report();
        next
    }

    fn failed(&mut self, failure: Failure, after: Duration) -> Next {
        match failure {
            Failure::Refused { code, retry_after, message } => {
                self.step(Input::Refused { code, retry_after, message: &message })
            }
            Failure::Broken { how, message } => self.step(Input::Broken { how, after, message: &message }),
            Failure::TooLong => self.step(Input::PageTooLong),
        }
    }

    fn step(&mut self, input: Input<'_>) -> Next {
        let Step { next, lost } = self.machine.step(input);
        self.is_cut_off = matches!(lost, Some(Lost::Cut | Lost::Idle | Lost::Unanswered));
        if self.is_cut_off {
            // What was reached before says nothing of now.
            self.reached.mark_unchanged();
        }
        if let Some(lost) = lost {
            self.shared.metrics.lost(lost);
            match &next {
                Next::Wait(wait) => warn!(
                    shard = self.name,
                    reason = lost.as_str(),
                    failure = self.machine.failure(),
                    wait_ms = wait.as_millis() as u64,
                    "an event watch failed and is tried again"
                ),
                _ => debug!(shard = self.name, reason = lost.as_str(), "an event watch is asked for again"),
            }
        }
        next
    }

    fn served(&self, held_back: bool) {
        self.shared.progress.served(&self.name, held_back);
        self.shared.metrics.progress(self.share);
    }

    fn report(&mut self) {
        let (state, failure) = (self.machine.state(), self.machine.failure());
        if self.reported.0 != state || self.reported.1 != failure {
            self.tell(state, failure.to_owned());
        }
    }

    fn tell(&mut self, state: WatchState, failure: String) {
        // A back-off was logged with its reason where it began.
        if state != WatchState::BackingOff {
            info!(
                shard = self.name,
                epoch = self.held.epoch,
                state = state.as_str_name(),
                failure,
                "event watch"
            );
        }
        self.shared.metrics.changed(self.share, std::mem::replace(&mut self.counted, state), state);
        self.shared.progress.state(&self.name, state, &failure);
        self.shared.reports.put(WatchReport {
            shard: self.held.shard.clone(),
            epoch: self.held.epoch,
            state: state.into(),
            failure: failure.clone(),
            answer_ms: self.shared.reach.answer_ms(),
        });
        self.reported = (state, failure);
    }

    fn warn(&mut self, what: &'static str, object: Option<String>, error: &dyn std::fmt::Display) {
        if self.warned.is_some_and(|warned| warned.elapsed() < WARN_EVERY) {
            self.unwarned += 1;
            return;
        }
        let unwarned = std::mem::take(&mut self.unwarned);
        warn!(shard = self.name, object, %error, unlogged_before = unwarned, "{what}");
        self.warned = Some(Instant::now());
    }
}

/// However it ends, the shard is let go of.
impl Drop for Worker {
    fn drop(&mut self) {
        if self.target.resource == Resource::Namespaces {
            self.shared.names.forget();
        }
        self.tell(WatchState::Released, String::new());
        self.shared.progress.released(&self.name);
    }
}

/// Comes when there is a newer assignment; where there can be none any more, never.
async fn renewed(assigned: &mut watch::Receiver<AssignedWatch>) {
    changed(assigned).await;
}

async fn changed<T>(of: &mut watch::Receiver<T>) {
    if of.changed().await.is_err() {
        std::future::pending().await
    }
}
