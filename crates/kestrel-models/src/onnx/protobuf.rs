//! Protocol buffers, as much of writing them as an ONNX file needs. Reads nothing.
//!
//! # Source
//! <https://protobuf.dev/programming-guides/encoding/>: a field is a key, `number << 3 | type`, and a value.

const VARINT: u64 = 0;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, number: u64, kind: u64) {
        self.varint(number << 3 | kind);
    }

    /// An `int32`, `int64` or enum.
    pub(super) fn int(mut self, number: u64, value: i64) -> Self {
        self.key(number, VARINT);
        self.varint(value as u64);
        self
    }

    /// A `repeated int64`, packed.
    pub(super) fn ints(self, number: u64, values: &[i64]) -> Self {
        let mut packed = Message::new();
        for value in values {
            packed.varint(*value as u64);
        }
        self.bytes(number, &packed.0)
    }

    pub(super) fn float(mut self, number: u64, value: f32) -> Self {
        self.key(number, FIXED32);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A `bytes`, `string` or packed field.
    pub(super) fn bytes(mut self, number: u64, value: &[u8]) -> Self {
        self.key(number, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn text(self, number: u64, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }

    /// A message in this message.
    pub(super) fn message(self, number: u64, value: &Message) -> Self {
        self.bytes(number, &value.0)
    }

    /// A repeated field of messages.
    pub(super) fn messages(self, number: u64, values: impl IntoIterator<Item = Message>) -> Self {
        values
            .into_iter()
            .fold(self, |message, value| message.message(number, &value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's guide.
    #[test]
    fn fields_are_the_guides_bytes() {
        assert_eq!(Message::new().int(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(
            Message::new().text(2, "testing").into_bytes(),
            [&[0x12, 0x07][..], b"testing"].concat()
        );
        let inner = Message::new().int(1, 150);
        assert_eq!(
            Message::new().message(3, &inner).into_bytes(),
            [0x1a, 0x03, 0x08, 0x96, 0x01]
        );
        let packed = Message::new().ints(6, &[3, 270, 86942]).into_bytes();
        assert_eq!(packed, [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]);
        assert_eq!(Message::new().float(2, 1.0).into_bytes(), [0x15, 0, 0, 0x80, 0x3f]);
        let minus_two = Message::new().int(1, -2).into_bytes();
        assert_eq!(
            minus_two,
            [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
        );
    }
}
