//! Bytes of an event file: `Event` messages of tensorboard/compat/proto/event.proto in TFRecord frames.
//!
//! The three messages that scalars need are encoded by hand; not here: which scalars, and in which file.

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// The first record of a file.
    FileVersion(&'a str),
    /// Steps from this event's on, as read so far, are void.
    SessionStart,
    /// Values by tag.
    Scalars(&'a [(&'a str, f32)]),
}

impl Event<'_> {
    /// The protobuf message `Event`.
    pub(super) fn encode(&self, wall_time: f64, step: u64) -> Vec<u8> {
        let mut out = Vec::new();
        tag(&mut out, 1, FIXED64);
        out.extend_from_slice(&wall_time.to_le_bytes());
        if step > 0 {
            tag(&mut out, 2, VARINT);
            varint(&mut out, step);
        }
        match self {
            Self::FileVersion(version) => bytes(&mut out, 3, version.as_bytes()),
            // SessionLog { status = 1: START = 1 } in field 7.
            Self::SessionStart => bytes(&mut out, 7, &[(1 << 3) | VARINT, 1]),
            Self::Scalars(scalars) => bytes(&mut out, 5, &summary(scalars)),
        }
        out
    }
}

/// `Summary { repeated value = 1: Value { tag = 1, simple_value = 2 } }`.
fn summary(scalars: &[(&str, f32)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in scalars {
        let mut message = Vec::new();
        bytes(&mut message, 1, name.as_bytes());
        tag(&mut message, 2, FIXED32);
        message.extend_from_slice(&value.to_le_bytes());
        bytes(&mut out, 1, &message);
    }
    out
}

/// A TFRecord: length, masked CRC of the length, payload, masked CRC of the payload; all little-endian.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&masked_crc(payload).to_le_bytes());
    out
}

/// CRC-32C, rotated and offset so that a CRC of data that holds CRCs stays strong (tensorflow/core/lib/hash/crc32c.h).
pub(super) fn masked_crc(data: &[u8]) -> u32 {
    const MASK_DELTA: u32 = 0xa282_ead8;
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK_DELTA)
}

// Wire types of protobuf.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

fn tag(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push((field << 3) | wire_type);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    tag(out, field, LENGTH);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}
