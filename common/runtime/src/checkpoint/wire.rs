//! Protocol buffers, as far as criu's messages need them (its `images/rpc.proto`): numbers, bytes, messages in messages.

use fault::{Fault, Result};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// A message under construction.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
    }

    /// Left out when it is false, which is every switch's default.
    pub fn switch(&mut self, field: u32, on: bool) {
        if on {
            self.number(field, 1);
        }
    }

    pub fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// 0 for bytes.
    pub fn number(self) -> u64 {
        if let Value::Number(number) = self { number } else { 0 }
    }

    /// None for a number.
    pub fn bytes(self) -> &'a [u8] {
        if let Value::Bytes(bytes) = self { bytes } else { &[] }
    }
}

/// The fields of a message, in their order.
pub fn read(mut message: &[u8]) -> Result<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = u32::try_from(key >> 3).map_err(|_| malformed())?;
        let value = match key & 7 {
            VARINT => Value::Number(varint(&mut message)?),
            LENGTH => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| malformed())?;
                Value::Bytes(take(&mut message, length)?)
            }
            FIXED64 => Value::Bytes(take(&mut message, 8)?),
            FIXED32 => Value::Bytes(take(&mut message, 4)?),
            _ => return Err(malformed()),
        };
        fields.push((field, value));
    }
    Ok(fields)
}

fn varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().ok_or_else(malformed)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed())
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length).ok_or_else(malformed)?;
    *message = rest;
    Ok(taken)
}

fn malformed() -> Fault {
    Fault::failed("criu's answer is no message of its protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.number(1, 300);
        writer.switch(2, true);
        writer.switch(3, false);
        writer.message(16, |inner| inner.bytes(1, b"ab"));
        writer.number(17, u64::MAX);
        let bytes = writer.finish();
        assert_eq!(&bytes[..5], [0x08, 0xac, 0x02, 0x10, 0x01]);
        let fields = read(&bytes).unwrap();
        let wanted = [
            (1, Value::Number(300)),
            (2, Value::Number(1)),
            (16, Value::Bytes(b"\x0a\x02ab")),
            (17, Value::Number(u64::MAX)),
        ];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn torn_messages_are_refused() {
        for bytes in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x0a\x05ab",
            b"\x0b\x01",
            &[0xff; 12],
            b"\x09\x01",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
