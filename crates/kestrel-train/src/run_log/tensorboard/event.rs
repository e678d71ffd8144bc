//! The bytes of an event file: TFRecords, each a protocol buffer `tensorflow.Event`, of which we need four fields.
//!
//! # Source
//! TensorFlow's `event.proto`, `summary.proto` and `record_writer.h`.

/// What an event tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// The first of a file.
    FileVersion,
    /// The run goes on from here: what others tell of this step and later is void.
    SessionStart,
    /// A number.
    Scalar {
        /// Its name.
        tag: &'a str,
        /// The number.
        value: f32,
    },
}

impl Event<'_> {
    /// `Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log = 7 }`.
    pub(super) fn encode(&self, wall_time: f64, step: u64) -> Vec<u8> {
        let mut event = Vec::new();
        tag(&mut event, 1, FIXED64);
        event.extend_from_slice(&wall_time.to_le_bytes());
        if step > 0 {
            tag(&mut event, 2, VARINT);
            varint(&mut event, step);
        }
        match self {
            Self::FileVersion => bytes(&mut event, 3, b"brain.Event:2"),
            Self::SessionStart => {
                // `SessionLog { SessionStatus status = 1 }`, whose START is 1.
                let mut log = Vec::new();
                tag(&mut log, 1, VARINT);
                varint(&mut log, 1);
                bytes(&mut event, 7, &log);
            }
            Self::Scalar { tag: name, value } => {
                // `Summary { repeated Value value = 1 }`, `Value { string tag = 1; float simple_value = 2 }`.
                let mut scalar = Vec::new();
                bytes(&mut scalar, 1, name.as_bytes());
                tag(&mut scalar, 2, FIXED32);
                scalar.extend_from_slice(&value.to_le_bytes());
                let mut summary = Vec::new();
                bytes(&mut summary, 1, &scalar);
                bytes(&mut event, 5, &summary);
            }
        }
        event
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn tag(out: &mut Vec<u8>, field: u64, kind: u64) {
    varint(out, field << 3 | kind);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, data: &[u8]) {
    tag(out, field, BYTES);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

/// `u64 length, u32 crc of it, data, u32 crc of it`, little-endian.
pub(super) fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend_from_slice(&masked(crc32c(&length)).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked(crc32c(data)).to_le_bytes());
    out
}

/// A checksum of data that hold checksums is a poor one; so TensorFlow changes those it stores.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial, bit by bit: an event has less than a hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= POLYNOMIAL;
            }
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the catalogue of CRCs, and RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// tensorboard 2.21.0:
    /// ```python
    /// from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    /// from tensorboard.compat.proto.summary_pb2 import Summary
    /// from tensorboard.summary.writer.record_writer import RecordWriter
    /// for event in [
    ///     Event(wall_time=1.5, file_version="brain.Event:2"),
    ///     Event(wall_time=1.5, step=301, session_log=SessionLog(status=SessionLog.START)),
    ///     Event(wall_time=1.5, step=300, summary=Summary(value=[Summary.Value(tag="loss/val", simple_value=0.25)])),
    /// ]:
    ///     out = io.BytesIO()
    ///     RecordWriter(out).write(event.SerializeToString())
    ///     print(out.getvalue().hex())
    /// ```
    #[test]
    fn records_are_those_that_tensorboard_writes() {
        let scalar = Event::Scalar {
            tag: "loss/val",
            value: 0.25,
        };
        for (event, step, want) in [
            (
                Event::FileVersion,
                0,
                "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
            ),
            (
                Event::SessionStart,
                301,
                "100000000000000095fbfe1809000000000000f83f10ad023a020801d17949d4",
            ),
            (
                scalar,
                300,
                "1f00000000000000514b441809000000000000f83f10ac022a110a0f0a086c6f73732f76616c150000803e2cab7324",
            ),
        ] {
            let got: String = record(&event.encode(1.5, step))
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            assert_eq!(got, want, "{event:?}");
        }
    }
}
