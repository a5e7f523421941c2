//! Which shares a partition has.

use std::collections::BTreeSet;
use std::time::Instant;

use nodetap_wire::Shard;
use nodetap_wire::shard::Share;

use super::super::choose::Partition;
use super::{Holder, Plan, Seat};

/// Ranges that an agent may say it holds one of: more are never given.
const MAX_RANGES: u128 = 4_096;

impl Plan {
    /// Makes the seats those of the partition: some come, some go, the others stay as they are.
    pub(super) fn seat(&mut self, now: Instant) {
        if let Partition::Ranges(ranges) = self.partition {
            self.ranges = ranges;
        }
        let wanted = self.wanted();
        let before = self.seats.len();
        let former = &mut self.former;
        self.seats.retain(|shard, seat| {
            let stays = wanted.contains(shard);
            if let (false, Some(holder)) = (stays, &seat.holder) {
                former.remember(&holder.node);
            }
            stays
        });
        let mut changed = before != self.seats.len();
        for shard in wanted {
            if self.seats.contains_key(&shard) {
                continue;
            }
            changed = true;
            let mut seat = Seat::vacant(self.known.epoch(&shard), self.was_changed);
            // Of the partition before the last one, and still watched.
            if let Some(outgoing) = self.outgoing.remove(&shard) {
                seat.epoch = outgoing.epoch;
                self.known.covers(&shard, 0).clone_into(&mut seat.resource_version);
                seat.holder = outgoing.node.map(|node| Holder::new(&node, now));
                seat.was_held = true;
            }
            self.seats.insert(shard, seat);
        }
        if changed {
            self.is_full = false;
            self.version += 1;
            self.unbalance(now);
        }
    }

    fn wanted(&self) -> BTreeSet<Shard> {
        match self.partition {
            Partition::Cluster => BTreeSet::from([Shard::cluster()]),
            Partition::Host => {
                let hosts = self.hosts.keys().map(Shard::host);
                hosts.chain([Shard::no_host()]).collect()
            }
            Partition::Ranges(ranges) => (0..ranges).map(|number| Shard::uid_range(number, ranges)).collect(),
            Partition::Namespaces => {
                let mut wanted = BTreeSet::from([Shard::namespaces()]);
                match &self.namespaces {
                    Some(names) => wanted.extend(names.iter().map(Shard::namespace)),
                    // What is held stays until it is known what there is.
                    None => wanted.extend(self.seats.keys().cloned()),
                }
                wanted
            }
        }
    }
}

/// The partition that a share is of; `None` for the whole cluster, which every plan begins with.
pub(super) fn partition_of(shard: &Shard) -> Option<Partition> {
    match shard.share.as_ref()? {
        Share::Cluster(_) => None,
        Share::Namespace(_) | Share::Namespaces(_) => Some(Partition::Namespaces),
        Share::Host(_) | Share::NoHost(_) => Some(Partition::Host),
        Share::UidRange(range) => {
            let all = 1_u128 << 64;
            let size = range.end().checked_sub(u128::from(range.from)).filter(|size| *size > 0)?;
            let ranges = (all + size / 2) / size;
            let ranges = u32::try_from(Some(ranges).filter(|ranges| *ranges <= MAX_RANGES)?).ok()?;
            let number = (u128::from(range.from) * u128::from(ranges) + size / 2) / all;
            let is_one = *shard == Shard::uid_range(u32::try_from(number).ok()?, ranges);
            is_one.then_some(Partition::Ranges(ranges))
        }
    }
}
