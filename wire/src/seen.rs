//! `EventSeen` of `proto/nodetap.proto`, written by hand: its texts share the memory of the batch, or of the JSON, that they came
//! in. Of an event there are ten, and a string for each was a tenth of what an event costs.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::{Change, SharedStr};

/// One state of one Event, as the API server sent it. Identity: cluster, uid, resource_version. What each field means is said in
/// the proto.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "as all messages")]
pub struct EventSeen {
    pub uid: SharedStr,
    pub resource_version: SharedStr,
    pub namespace: SharedStr,
    pub count: u64,
    pub time_ns: i64,
    pub change: i32,
    pub kind: SharedStr,
    pub object: SharedStr,
    pub reason: SharedStr,
    pub r#type: SharedStr,
    pub node: SharedStr,
    pub object_uid: SharedStr,
    pub object_namespace: SharedStr,
    pub raw: Bytes,
}

const COUNT: u32 = 4;
const TIME_NS: u32 = 5;
const CHANGE: u32 = 6;
const RAW: u32 = 15;

// === impl EventSeen ===

impl EventSeen {
    /// `change`; where it is of a newer agent, `Unspecified`.
    pub fn change(&self) -> Change {
        Change::try_from(self.change).unwrap_or_default()
    }

    /// All of its texts, by their tags.
    fn texts(&self) -> [(u32, &SharedStr); 10] {
        [
            (1, &self.uid),
            (2, &self.resource_version),
            (3, &self.namespace),
            (7, &self.kind),
            (8, &self.object),
            (9, &self.reason),
            (10, &self.r#type),
            (11, &self.node),
            (12, &self.object_uid),
            (13, &self.object_namespace),
        ]
    }

    fn text_mut(&mut self, tag: u32) -> Option<&mut SharedStr> {
        Some(match tag {
            1 => &mut self.uid,
            2 => &mut self.resource_version,
            3 => &mut self.namespace,
            7 => &mut self.kind,
            8 => &mut self.object,
            9 => &mut self.reason,
            10 => &mut self.r#type,
            11 => &mut self.node,
            12 => &mut self.object_uid,
            13 => &mut self.object_namespace,
            _ => return None,
        })
    }
}

impl Message for EventSeen {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for (tag, text) in self.texts() {
            if !text.bytes().is_empty() {
                encoding::bytes::encode(tag, text.bytes(), buf);
            }
        }
        if self.count != 0 {
            encoding::uint64::encode(COUNT, &self.count, buf);
        }
        if self.time_ns != 0 {
            encoding::int64::encode(TIME_NS, &self.time_ns, buf);
        }
        if self.change != 0 {
            encoding::int32::encode(CHANGE, &self.change, buf);
        }
        if !self.raw.is_empty() {
            encoding::bytes::encode(RAW, &self.raw, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            COUNT => encoding::uint64::merge(wire_type, &mut self.count, buf, ctx),
            TIME_NS => encoding::int64::merge(wire_type, &mut self.time_ns, buf, ctx),
            CHANGE => encoding::int32::merge(wire_type, &mut self.change, buf, ctx),
            RAW => encoding::bytes::merge(wire_type, &mut self.raw, buf, ctx),
            _ => match self.text_mut(tag) {
                Some(text) => {
                    let mut bytes = Bytes::new();
                    encoding::bytes::merge(wire_type, &mut bytes, buf, ctx)?;
                    *text = SharedStr::try_from(bytes).map_err(|_| not_utf_8())?;
                    Ok(())
                }
                None => encoding::skip_field(wire_type, tag, buf, ctx),
            },
        }
    }

    fn encoded_len(&self) -> usize {
        let texts = self.texts().into_iter().filter(|(_, text)| !text.bytes().is_empty());
        let texts: usize = texts.map(|(tag, text)| encoding::bytes::encoded_len(tag, text.bytes())).sum();
        let mut length = texts;
        if self.count != 0 {
            length += encoding::uint64::encoded_len(COUNT, &self.count);
        }
        if self.time_ns != 0 {
            length += encoding::int64::encoded_len(TIME_NS, &self.time_ns);
        }
        if self.change != 0 {
            length += encoding::int32::encoded_len(CHANGE, &self.change);
        }
        if !self.raw.is_empty() {
            length += encoding::bytes::encoded_len(RAW, &self.raw);
        }
        length
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[allow(deprecated, reason = "prost has no other way for what it did not generate")]
fn not_utf_8() -> DecodeError {
    DecodeError::new("invalid string value: data is not UTF-8 encoded")
}

#[cfg(test)]
mod tests;
