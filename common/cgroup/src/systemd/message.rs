//! Messages of D-Bus (D-Bus specification, "Message Protocol").

use super::value::{Reader, Value, malformed, pad};
use fault::{Fault, Result};

/// Bytes in front of every message that tell how long it is.
pub const PREFIX: usize = 16;
/// Longest message taken, in bytes. The specification allows 128 MiB; what is asked for here takes a few hundred, but without a
/// bus in between systemd tells everything it has to tell, and not only that.
pub const LONGEST: usize = 4 << 20;
/// Longest header taken, in bytes.
const LONGEST_HEADER: u32 = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Call,
    Reply,
    Error,
    Signal,
}

/// What the sender does not want to have an answer to (`NO_REPLY_EXPECTED`).
const NO_REPLY: u8 = 1;

#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub kind: Kind,
    pub serial: u32,
    /// Of the call that is answered.
    pub reply_to: Option<u32>,
    pub no_reply: bool,
    pub path: String,
    pub interface: String,
    pub member: String,
    pub destination: String,
    /// As the bus says; empty without one.
    pub sender: String,
    pub error: String,
    pub body: Vec<Value>,
}

impl Message {
    pub fn call(destination: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) -> Message {
        Message {
            kind: Kind::Call,
            serial: 0,
            reply_to: None,
            no_reply: false,
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            destination: destination.to_owned(),
            sender: String::new(),
            error: String::new(),
            body,
        }
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        for value in &self.body {
            value.write(&mut body);
        }
        let signature: String = self.body.iter().map(Value::signature).collect();
        if signature.len() > 255 || body.len() > LONGEST {
            return Err(Fault::input("the message to systemd would be too long"));
        }
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Reply => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        let mut out = vec![b'l', kind, if self.no_reply { NO_REPLY } else { 0 }, 1];
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(self.serial.to_le_bytes());
        self.fields(signature).write(&mut out);
        pad(&mut out, 8);
        out.extend(body);
        Ok(out)
    }

    fn fields(&self, signature: String) -> Value {
        let text = |text: &String| Value::Text(text.clone());
        let given = |text: &&String| !text.is_empty();
        let fields = [
            (1, Some(&self.path).filter(given).cloned().map(Value::Path)),
            (2, Some(&self.interface).filter(given).map(text)),
            (3, Some(&self.member).filter(given).map(text)),
            (4, Some(&self.error).filter(given).map(text)),
            (5, self.reply_to.map(Value::U32)),
            (6, Some(&self.destination).filter(given).map(text)),
            (7, Some(&self.sender).filter(given).map(text)),
            (8, Some(signature).filter(|signature| !signature.is_empty()).map(Value::Signature)),
        ];
        let field =
            |(code, value)| Some(Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value?))]));
        Value::Array("(yv)".to_owned(), fields.into_iter().filter_map(field).collect())
    }

    /// How long the message is that begins so.
    pub fn length(prefix: &[u8; PREFIX]) -> Result<usize> {
        let big_endian = is_big_endian(prefix[0])?;
        let mut numbers = Reader::new(&prefix[4..], big_endian);
        let (body, _serial, fields) = (numbers.u32()?, numbers.u32()?, numbers.u32()?);
        let length = PREFIX as u64 + u64::from(fields).next_multiple_of(8) + u64::from(body);
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= LONGEST && fields <= LONGEST_HEADER)
            .ok_or_else(|| malformed(&format!("it says that it is {length} bytes long")))
    }

    /// `is_wanted`: whether the body is of interest; it is not looked at else.
    pub fn decode(bytes: &[u8], is_wanted: impl FnOnce(&Message) -> bool) -> Result<Message> {
        let Some((&[endian, kind, flags, version], _)) = bytes.split_first_chunk::<4>() else {
            return Err(malformed("it ends too early"));
        };
        if version != 1 {
            return Err(malformed("it is of another version of the protocol"));
        }
        let big_endian = is_big_endian(endian)?;
        let mut reader = Reader::new(bytes, big_endian);
        reader.values("yyyyu")?;
        let serial = reader.u32()?;
        let fields = reader.values("a(yv)")?;
        reader.align(8)?;
        let mut message = Message::call("", "", "", "", Vec::new());
        message.kind = match kind {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            // Kinds nobody knows yet are to be ignored, as are signals nobody waits for.
            _ => Kind::Signal,
        };
        message.no_reply = flags & NO_REPLY != 0;
        message.serial = serial;
        let signature = message.take_fields(fields)?;
        if is_wanted(&message) {
            message.body = reader.values(&signature)?;
            if !reader.is_at_end() {
                return Err(malformed("it is longer than what is in it"));
            }
        }
        Ok(message)
    }

    /// Returns the signature of the body.
    fn take_fields(&mut self, fields: Vec<Value>) -> Result<String> {
        let mut signature = String::new();
        let Some(Value::Array(_, fields)) = fields.into_iter().next() else { return Ok(signature) };
        for field in fields {
            let Value::Struct(mut pair) = field else { continue };
            let (Some(Value::Variant(value)), Some(Value::Byte(code))) = (pair.pop(), pair.pop()) else {
                continue;
            };
            match (code, *value) {
                (1, Value::Path(path)) => self.path = path,
                (2, Value::Text(text)) => self.interface = text,
                (3, Value::Text(text)) => self.member = text,
                (4, Value::Text(text)) => self.error = text,
                (5, Value::U32(serial)) => self.reply_to = Some(serial),
                (6, Value::Text(text)) => self.destination = text,
                (7, Value::Text(text)) => self.sender = text,
                (8, Value::Signature(text)) => signature = text,
                (1..=8, _) => return Err(malformed("a header field has the wrong type")),
                _ => {}
            }
        }
        Ok(signature)
    }
}

fn is_big_endian(mark: u8) -> Result<bool> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(malformed("its byte order is neither")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            serial: 7,
            reply_to: Some(3),
            sender: ":1.2".to_owned(),
            error: "org.freedesktop.systemd1.UnitExists".to_owned(),
            ..Message::call(
                "org.freedesktop.systemd1",
                "/org/freedesktop/systemd1",
                "org.freedesktop.systemd1.Manager",
                "StartTransientUnit",
                vec![Value::text("a.scope"), Value::texts(["x", "y"]), Value::U32(9)],
            )
        }
    }

    #[test]
    fn messages_come_back_as_they_were() {
        for kind in [Kind::Call, Kind::Reply, Kind::Error, Kind::Signal] {
            let message = Message { kind, no_reply: kind == Kind::Call, ..message() };
            let bytes = message.encode().unwrap();
            let prefix = bytes.first_chunk().unwrap();
            assert_eq!(Message::length(prefix).unwrap(), bytes.len());
            assert_eq!(Message::decode(&bytes, |_| true).unwrap(), message);
        }
        // "The header field array": 8 bytes alignment before an empty body.
        assert_eq!(Message::call("a.b", "/", "", "M", vec![]).encode().unwrap().len() % 8, 0);
    }

    #[test]
    fn hostile_ones_are_errors() {
        let bytes = message().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length], |_| true).is_err(), "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Message::decode(&longer, |_| true).is_err());
        for at in 0..bytes.len() {
            for with in 0..=255 {
                let mut bytes = bytes.clone();
                bytes[at] = with;
                let _ = Message::decode(&bytes, |_| true);
            }
        }
        for (at, with) in [(4, [0xff; 4]), (12, [0xff; 4]), (4, [0, 0, 0, 1])] {
            let mut prefix: [u8; PREFIX] = *bytes.first_chunk().unwrap();
            prefix[at..at + 4].copy_from_slice(&with);
            assert!(Message::length(&prefix).is_err(), "{prefix:?}");
        }
        assert!(Message::length(b"x234567890123456").is_err());
    }
}
