//! What each receiver may be told: kubernetes-event-exporter's fields, and ours beside them.

pub(super) mod read;

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};

use crate::route::template::{Layout, Template};

/// An entry of `receivers`: a name that routes use, and where its records go.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// `name`; no two receivers share one.
    pub name: String,
    /// Exactly one of the kinds.
    pub body: ReceiverBody,
    /// How records are delivered to it, whatever its kind.
    pub delivery: DeliveryConfig,
}

/// What every receiver may be told beside its kind. Keys of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// `start`
    pub start: Start,
    /// `deadLetterAfter`: failures in a row of one record after which it is found out whether the record is at fault; 0: never, as
    /// with `order: journal`, where nothing is tried before it.
    pub dead_letter_after: u32,
    /// `order`; none: as its kind has it.
    pub order: Option<Order>,
}

/// What may overtake what on the way to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `journal`: nothing overtakes anything. What files and standard output have.
    Journal,
    /// `object`: records of one involved object keep their order; where the receiver is far behind, new ones of others go first.
    Object,
    /// `none`: where the receiver is far behind, whatever is new goes first.
    None,
}

/// Where a receiver begins that nothing was delivered to yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// `beginning`: with the oldest record that is kept.
    #[default]
    Beginning,
    /// `now`: with the next record that is taken.
    Now,
}

/// Where a receiver's records go.
#[derive(Clone, Debug)]
pub enum ReceiverBody {
    /// `stdout`
    Stdout(StdoutConfig),
    /// `file`
    File(FileConfig),
    /// `webhook`
    Webhook(WebhookConfig),
    /// `loki`
    Loki(LokiConfig),
}

/// `stdout`: one JSON object a line.
#[derive(Clone, Debug, Default)]
pub struct StdoutConfig {
    /// `deDot`: dots in the keys of labels and annotations become underscores.
    pub de_dot: bool,
    /// `layout`; none: the whole face.
    pub layout: Option<Layout>,
}

/// `file`: one JSON object a line, rotated by size.
#[derive(Clone, Debug)]
pub struct FileConfig {
    /// `path`; never empty.
    pub path: PathBuf,
    /// `layout`; none: the whole face.
    pub layout: Option<Layout>,
    /// `maxsize`, in bytes (the file gives megabytes); at least 1 MiB, 100 MiB by default.
    pub max_bytes: u64,
    /// `maxage` (the file gives days): rotated files older than this are removed; none: never.
    pub max_age: Option<Duration>,
    /// `maxbackups`: how many rotated files are kept; none: all.
    pub max_backups: Option<usize>,
    /// `deDot`: dots in the keys of labels and annotations become underscores.
    pub de_dot: bool,
}

/// `webhook`: one POST a record.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// `endpoint`: an absolute `http` or `https` address.
    pub endpoint: Uri,
    /// `tls`
    pub tls: TlsConfig,
    /// `layout`; none: the whole face.
    pub layout: Option<Layout>,
    /// `headers`, sorted by name. Where one does not render, its source is sent as it is.
    pub headers: Vec<(HeaderName, Template)>,
    /// `timeout` of one request, answer included; 10 s by default.
    pub timeout: Duration,
    /// `concurrency`: requests at one time, no two of them of one object; 4 by default.
    pub concurrency: usize,
}

/// `loki`: pushes of several records.
#[derive(Clone, Debug)]
pub struct LokiConfig {
    /// `url`, with the push path added where it has none.
    pub url: Uri,
    /// `streamLabels` (taken as they are) and `labels` (templates, which win), sorted by name; may be empty.
    pub labels: Vec<(String, Template)>,
    /// `tenant`: `X-Scope-OrgID` of the push.
    pub tenant: Option<Template>,
    /// `tls`
    pub tls: TlsConfig,
    /// `headers`, sorted by name. Where one does not render, its source is sent as it is.
    pub headers: Vec<(HeaderName, Template)>,
    /// `layout`; none: the whole face.
    pub layout: Option<Layout>,
    /// `batch`
    pub batch: BatchConfig,
    /// `timeout` of one push, answer included; 10 s by default.
    pub timeout: Duration,
}

/// `batch`: when a push is sent. Whatever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// `maxRecords`; at least 1.
    pub max_records: usize,
    /// `maxBytes` of the lines in it, before compression; at least 1 KiB.
    pub max_bytes: usize,
    /// `maxWait` for a batch to fill.
    pub max_wait: Duration,
}

/// `tls` of one receiver; holds for it and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// `insecureSkipVerify`: takes any certificate.
    pub insecure_skip_verify: bool,
    /// `serverName` that the certificate must carry; none: the host of the address.
    pub server_name: Option<String>,
    /// `caFile`: stands in for the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// `certFile`; never without `keyFile`.
    pub cert_file: Option<PathBuf>,
    /// `keyFile`; never without `certFile`.
    pub key_file: Option<PathBuf>,
}

// === impl Receiver ===

impl Receiver {
    /// What may overtake what on the way to it.
    pub fn order(&self) -> Order {
        self.delivery.order.unwrap_or(match &self.body {
            // Who reads lines reads them one after the other.
            ReceiverBody::Stdout(_) | ReceiverBody::File(_) => Order::Journal,
            ReceiverBody::Webhook(_) | ReceiverBody::Loki(_) => Order::Object,
        })
    }
}

// === impl ReceiverBody ===

impl ReceiverBody {
    /// Its key in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stdout(_) => "stdout",
            Self::File(_) => "file",
            Self::Webhook(_) => "webhook",
            Self::Loki(_) => "loki",
        }
    }

    /// Its `layout`.
    pub fn layout(&self) -> Option<&Layout> {
        match self {
            Self::Stdout(StdoutConfig { layout, .. })
            | Self::File(FileConfig { layout, .. })
            | Self::Webhook(WebhookConfig { layout, .. })
            | Self::Loki(LokiConfig { layout, .. }) => layout.as_ref(),
        }
    }
}

// === impl DeliveryConfig ===

impl Default for DeliveryConfig {
    /// Ten failures, with the back-off between them some three minutes.
    fn default() -> Self {
        Self { start: Start::Beginning, dead_letter_after: 10, order: None }
    }
}

// === impl BatchConfig ===

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_records: 1000, max_bytes: 1 << 20, max_wait: Duration::from_secs(1) }
    }
}
