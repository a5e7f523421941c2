//! Shares of a cluster's events, and the names they go by in logs, tables and keys.
//!
//! A name is a promise: it stands in journals. Reading one that was written gives the same share back.

use std::fmt;

use crate::shard::Share;
use crate::{NoHost, Shard, UidRange, WholeCluster};

/// One above the greatest hash.
const END: u128 = 1 << 64;

// === impl Shard ===

impl Shard {
    /// All events of the cluster.
    pub fn cluster() -> Self {
        Self::from(Share::Cluster(WholeCluster {}))
    }

    /// The events of one namespace.
    pub fn namespace(name: impl Into<String>) -> Self {
        Self::from(Share::Namespace(name.into()))
    }

    /// The events that name a node.
    pub fn host(node: impl Into<String>) -> Self {
        Self::from(Share::Host(node.into()))
    }

    /// The events that name none.
    pub fn no_host() -> Self {
        Self::from(Share::NoHost(NoHost {}))
    }

    /// The names of the namespaces.
    pub fn namespaces() -> Self {
        Self::from(Share::Namespaces(crate::Namespaces {}))
    }

    /// The `number`th of so many ranges of the uid's hash, all of one size but for rounding.
    pub fn uid_range(number: u32, of: u32) -> Self {
        let of = u128::from(of.max(1));
        let bound = |number: u128| END * number.min(of) / of;
        let from = bound(u128::from(number));
        let to = bound(u128::from(number) + 1);
        // Below 2^64, but for the end, whose 0 is what the wire has for it.
        Self::from(Share::UidRange(UidRange { from: from as u64, to: to as u64 }))
    }

    /// Its name: `cluster`, `namespace/NAME`, `host/NODE`, `no-host`, `uid/FROM-TO` in hexadecimal, `namespaces`. `unknown`
    /// for a share of a newer version.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// The share of a name that [`name`](Self::name) wrote; `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cluster" => return Some(Self::cluster()),
            "no-host" => return Some(Self::no_host()),
            "namespaces" => return Some(Self::namespaces()),
            _ => {}
        }
        let (kind, rest) = name.split_once('/')?;
        match kind {
            "namespace" => Some(Self::namespace(rest)),
            "host" => Some(Self::host(rest)),
            "uid" => {
                let (from, to) = rest.split_once('-')?;
                let to = match to {
                    "10000000000000000" => 0,
                    to => hash(to).filter(|to| *to > 0)?,
                };
                Some(Self::from(Share::UidRange(UidRange { from: hash(from)?, to })))
            }
            _ => None,
        }
    }
}

impl From<Share> for Shard {
    fn from(share: Share) -> Self {
        Self { share: Some(share) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(Share::Cluster(_)) => f.write_str("cluster"),
            Some(Share::Namespace(namespace)) => write!(f, "namespace/{namespace}"),
            Some(Share::Host(node)) => write!(f, "host/{node}"),
            Some(Share::NoHost(_)) => f.write_str("no-host"),
            Some(Share::UidRange(range)) => write!(f, "uid/{:016x}-{:016x}", range.from, range.end()),
            Some(Share::Namespaces(_)) => f.write_str("namespaces"),
            None => f.write_str("unknown"),
        }
    }
}

// === impl UidRange ===

impl UidRange {
    /// Its end, exclusive.
    pub fn end(&self) -> u128 {
        match self.to {
            0 => END,
            to => u128::from(to),
        }
    }

    /// Whether an object is in it, by its uid: FNV-1a, 64 bits, as the API server computes it (KEP-5866).
    pub fn has(&self, uid: &str) -> bool {
        let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (u128::from(self.from)..self.end()).contains(&u128::from(hash))
    }

    /// Whether two have a hash in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        u128::from(self.from) < other.end() && u128::from(other.from) < self.end()
    }
}

/// Sixteen digits, as they are written.
fn hash(text: &str) -> Option<u64> {
    let is_written = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_written.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests;
