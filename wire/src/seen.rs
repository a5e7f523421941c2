//! `EventSeen` of `proto/nodetap.proto`, written by hand: its texts share the memory of the batch that they came in. Of an event there
//! are ten, and a string for each was a tenth of what an event costs.

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

/// What a message `EventSeen` says, borrowed from wherever it is.
pub(crate) struct Fields<'a> {
    /// In the order of [`TEXTS`].
    pub(crate) texts: [&'a [u8]; 10],
    pub(crate) count: u64,
    pub(crate) time_ns: i64,
    pub(crate) change: i32,
    /// In pieces that follow each other.
    pub(crate) raw: [&'a [u8]; 3],
}

/// The tags of its texts.
const TEXTS: [u32; 10] = [1, 2, 3, 7, 8, 9, 10, 11, 12, 13];
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

    fn fields(&self) -> Fields<'_> {
        Fields {
            texts: [
                self.uid.bytes(),
                self.resource_version.bytes(),
                self.namespace.bytes(),
                self.kind.bytes(),
                self.object.bytes(),
                self.reason.bytes(),
                self.r#type.bytes(),
                self.node.bytes(),
                self.object_uid.bytes(),
                self.object_namespace.bytes(),
            ],
            count: self.count,
            time_ns: self.time_ns,
            change: self.change,
            raw: [&self.raw, &[], &[]],
        }
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
        self.fields().encode(buf);
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
        self.fields().encoded_len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

// === impl Fields ===

impl Fields<'_> {
    pub(crate) fn encode(&self, buf: &mut impl BufMut) {
        for (tag, text) in TEXTS.into_iter().zip(self.texts) {
            if !text.is_empty() {
                put_length(tag, text.len(), buf);
                buf.put_slice(text);
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
        let length = self.raw_length();
        if length != 0 {
            put_length(RAW, length, buf);
            self.raw.iter().for_each(|piece| buf.put_slice(piece));
        }
    }

    pub(crate) fn encoded_len(&self) -> usize {
        let filled = |length: &usize| *length != 0;
        let lengths = self.texts.iter().map(|text| text.len()).chain([self.raw_length()]);
        let mut length: usize = lengths.filter(filled).map(framed).sum();
        if self.count != 0 {
            length += encoding::uint64::encoded_len(COUNT, &self.count);
        }
        if self.time_ns != 0 {
            length += encoding::int64::encoded_len(TIME_NS, &self.time_ns);
        }
        if self.change != 0 {
            length += encoding::int32::encoded_len(CHANGE, &self.change);
        }
        length
    }

    fn raw_length(&self) -> usize {
        self.raw.iter().map(|piece| piece.len()).sum()
    }
}

/// Length of a field of this length, whose tag is below 16: with its key, and its length before it.
pub(crate) fn framed(length: usize) -> usize {
    1 + encoding::encoded_len_varint(length as u64) + length
}

/// The key of a field whose tag is below 16, and its length.
pub(crate) fn put_length(tag: u32, length: usize, buf: &mut impl BufMut) {
    let key = (tag << 3 | WireType::LengthDelimited as u32) as u8;
    match u8::try_from(length) {
        // As nearly all are.
        Ok(length @ ..0x80) => buf.put_slice(&[key, length]),
        _ => {
            buf.put_u8(key);
            encoding::encode_varint(length as u64, buf);
        }
    }
}

#[allow(deprecated, reason = "prost has no other way for what it did not generate")]
fn not_utf_8() -> DecodeError {
    DecodeError::new("invalid string value: data is not UTF-8 encoded")
}

#[cfg(test)]
mod tests;
