//! Values of D-Bus and how they lie in a message (D-Bus specification, "Type System" and "Marshaling").

use fault::{Fault, Result};

/// How deep containers may lie in each other: the specification allows 32 arrays and 32 structures.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// Signature of the elements, which an empty one has as well.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    /// `{kv}`, in arrays only.
    Entry(Box<(Value, Value)>),
    Variant(Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    pub fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
        Value::Array("s".to_owned(), texts.into_iter().map(Value::text).collect())
    }

    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".to_owned(),
            Value::Bool(_) => "b".to_owned(),
            Value::I16(_) => "n".to_owned(),
            Value::U16(_) => "q".to_owned(),
            Value::I32(_) => "i".to_owned(),
            Value::U32(_) => "u".to_owned(),
            Value::I64(_) => "x".to_owned(),
            Value::U64(_) => "t".to_owned(),
            Value::F64(_) => "d".to_owned(),
            Value::Text(_) => "s".to_owned(),
            Value::Path(_) => "o".to_owned(),
            Value::Signature(_) => "g".to_owned(),
            Value::Variant(_) => "v".to_owned(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(members) => {
                format!("({})", members.iter().map(Value::signature).collect::<String>())
            }
            Value::Entry(entry) => format!("{{{}{}}}", entry.0.signature(), entry.1.signature()),
        }
    }

    /// Appends it, little endian, to what begins where a message's body or header begins.
    pub fn write(&self, out: &mut Vec<u8>) {
        pad(out, alignment(self.signature().as_bytes().first().copied().unwrap_or(b'y')));
        match self {
            Value::Byte(number) => out.push(*number),
            Value::Bool(yes) => out.extend(u32::from(*yes).to_le_bytes()),
            Value::I16(number) => out.extend(number.to_le_bytes()),
            Value::U16(number) => out.extend(number.to_le_bytes()),
            Value::I32(number) => out.extend(number.to_le_bytes()),
            Value::U32(number) => out.extend(number.to_le_bytes()),
            Value::I64(number) => out.extend(number.to_le_bytes()),
            Value::U64(number) => out.extend(number.to_le_bytes()),
            Value::F64(number) => out.extend(number.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.as_bytes());
                out.push(0);
            }
            Value::Signature(signature) => write_signature(signature, out),
            Value::Variant(value) => {
                write_signature(&value.signature(), out);
                value.write(out);
            }
            Value::Array(element, values) => {
                let length_at = out.len();
                out.extend([0; 4]);
                // The length does not count what aligns the first element, which an empty array has too.
                pad(out, alignment(element.as_bytes().first().copied().unwrap_or(b'y')));
                let begin = out.len();
                for value in values {
                    value.write(out);
                }
                let length = (out.len() - begin) as u32;
                out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(members) => {
                for member in members {
                    member.write(out);
                }
            }
            Value::Entry(entry) => {
                entry.0.write(out);
                entry.1.write(out);
            }
        }
    }
}

fn write_signature(signature: &str, out: &mut Vec<u8>) {
    out.push(signature.len() as u8);
    out.extend(signature.as_bytes());
    out.push(0);
}

pub fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn alignment(kind: u8) -> usize {
    match kind {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

/// Reads what a peer sent, who may send anything: nothing is taken for granted, and a value takes no more memory than a
/// small multiple of its bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], big_endian: bool) -> Reader<'a> {
        Reader { bytes, at: 0, big_endian }
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// All values of a signature.
    pub fn values(&mut self, signature: &str) -> Result<Vec<Value>> {
        let mut rest = signature.as_bytes();
        let mut values = Vec::new();
        while !rest.is_empty() {
            let one = first_type(rest)?;
            values.push(self.value(one, 0)?);
            rest = &rest[one.len()..];
        }
        Ok(values)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.align(4)?;
        self.number().map(|bytes| self.order_u32(bytes))
    }

    fn order_u32(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// `kind`: one complete type.
    fn value(&mut self, kind: &[u8], depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(malformed("its values lie too deep in each other"));
        }
        let first = kind.first().copied().unwrap_or_default();
        self.align(alignment(first))?;
        Ok(match first {
            b'y' => Value::Byte(self.number::<1>()?[0]),
            b'b' => match self.u32()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(malformed("a boolean is neither true nor false")),
            },
            b'n' => Value::I16(self.ordered::<2>().map(i16::from_le_bytes)?),
            b'q' => Value::U16(self.ordered::<2>().map(u16::from_le_bytes)?),
            b'i' => Value::I32(self.ordered::<4>().map(i32::from_le_bytes)?),
            b'u' | b'h' => Value::U32(self.ordered::<4>().map(u32::from_le_bytes)?),
            b'x' => Value::I64(self.ordered::<8>().map(i64::from_le_bytes)?),
            b't' => Value::U64(self.ordered::<8>().map(u64::from_le_bytes)?),
            b'd' => Value::F64(self.ordered::<8>().map(f64::from_le_bytes)?),
            b's' => Value::Text(self.string()?),
            b'o' => Value::Path(self.string()?),
            b'g' => Value::Signature(self.signature()?),
            b'v' => {
                let signature = self.signature()?;
                let inner = first_type(signature.as_bytes())?;
                if inner.len() != signature.len() {
                    return Err(malformed("a variant has more than one value"));
                }
                Value::Variant(Box::new(self.value(inner, depth + 1)?))
            }
            b'a' => self.array(&kind[1..], depth)?,
            b'(' => Value::Struct(self.members(inside(kind), depth)?),
            b'{' => {
                let mut members = self.members(inside(kind), depth)?.into_iter();
                match (members.next(), members.next(), members.next()) {
                    (Some(key), Some(value), None) => Value::Entry(Box::new((key, value))),
                    _ => return Err(malformed("a dictionary's entry is no pair")),
                }
            }
            _ => return Err(malformed("it has a type nobody knows")),
        })
    }

    fn array(&mut self, element: &[u8], depth: usize) -> Result<Value> {
        let length = self.u32()? as usize;
        self.align(alignment(element.first().copied().unwrap_or_default()))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| malformed("an array is longer than the message"))?;
        let mut values = Vec::new();
        while self.at < end {
            values.push(self.value(element, depth + 1)?);
        }
        if self.at != end {
            return Err(malformed("an array's last element goes beyond it"));
        }
        Ok(Value::Array(String::from_utf8_lossy(element).into_owned(), values))
    }

    fn members(&mut self, mut kinds: &[u8], depth: usize) -> Result<Vec<Value>> {
        let mut members = Vec::new();
        while !kinds.is_empty() {
            let one = first_type(kinds)?;
            members.push(self.value(one, depth + 1)?);
            kinds = &kinds[one.len()..];
        }
        Ok(members)
    }

    pub fn align(&mut self, to: usize) -> Result<()> {
        let at = self.at.next_multiple_of(to);
        if at > self.bytes.len() {
            return Err(malformed("it ends too early"));
        }
        self.at = at;
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| malformed("it ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| malformed("it ends too early"))
    }

    fn ordered<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = self.number::<N>()?;
        if self.big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.number::<1>()?[0];
        self.terminated(length.into())
    }

    fn terminated(&mut self, length: usize) -> Result<String> {
        let bytes = self.take(length)?;
        if self.number::<1>()? != [0] {
            return Err(malformed("a text does not end where it should"));
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a text is not UTF-8"))
    }
}

pub fn malformed(why: &str) -> Fault {
    Fault::failed(format!("systemd sent a message that makes no sense: {why}"))
}

/// Between the brackets of a structure's or an entry's type.
fn inside(kind: &[u8]) -> &[u8] {
    kind.get(1..kind.len().saturating_sub(1)).unwrap_or_default()
}

/// The first complete type of a signature.
pub fn first_type(signature: &[u8]) -> Result<&[u8]> {
    let mut brackets: Vec<u8> = Vec::new();
    for (index, kind) in signature.iter().enumerate() {
        match kind {
            b'(' => brackets.push(b')'),
            b'{' => brackets.push(b'}'),
            b')' | b'}' => {
                // Empty structures would be values of no bytes, of which a few bytes could hold any number.
                let empty = index == 0 || matches!(signature[index - 1], b'(' | b'{' | b'a');
                if brackets.pop() != Some(*kind) || empty {
                    return Err(malformed("a type is no type"));
                }
            }
            b'a' => continue,
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v'
            | b'h' => {}
            _ => return Err(malformed("it has a type nobody knows")),
        }
        if brackets.len() > MAX_DEPTH {
            return Err(malformed("a type is too deep"));
        }
        if brackets.is_empty() {
            return Ok(&signature[..=index]);
        }
    }
    Err(malformed("a type is not complete"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    fn samples() -> Vec<Value> {
        let pair = |name: &str, value: Value| {
            Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
        };
        vec![
            Value::Byte(7),
            Value::Bool(true),
            Value::I16(-2),
            Value::U16(3),
            Value::I32(-4),
            Value::U32(5),
            Value::I64(-6),
            Value::U64(u64::MAX),
            Value::F64(0.5),
            Value::text("täxt"),
            Value::Path("/a/b".to_owned()),
            Value::Signature("a(ss)".to_owned()),
            Value::texts([]),
            Value::texts(["a", "bcd", ""]),
            Value::Array("(sv)".to_owned(), vec![pair("x", Value::U64(1)), pair("yy", Value::Bool(false))]),
            Value::Array("t".to_owned(), vec![]),
            Value::Array(
                "{sv}".to_owned(),
                vec![Value::Entry(Box::new((Value::text("k"), Value::Variant(Box::new(Value::Byte(1))))))],
            ),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for value in samples() {
            let bytes = written(&value);
            let read = Reader::new(&bytes, false).values(&value.signature()).unwrap();
            assert_eq!(read, [value]);
        }
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        assert_eq!(written(&Value::text("foo")), b"\x03\0\0\0foo\0");
        // "Marshaling": an array of one INT64.
        let array = Value::Array("x".to_owned(), vec![Value::I64(5)]);
        assert_eq!(written(&array), [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(&Value::Variant(Box::new(Value::U32(9)))), [1, b'u', 0, 0, 9, 0, 0, 0]);
        let big = [0, 0, 0, 1, b'x', 0];
        assert_eq!(Reader::new(&big, true).values("s").unwrap(), [Value::text("x")]);
    }

    #[test]
    fn nothing_a_peer_sends_is_more_than_an_error() {
        for value in samples() {
            let (bytes, signature) = (written(&value), value.signature());
            for length in 0..bytes.len() {
                assert!(
                    Reader::new(&bytes[..length], false).values(&signature).is_err(),
                    "{value:?} {length}"
                );
            }
            for at in 0..bytes.len() {
                for with in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] = with;
                    let _ = Reader::new(&bytes, false).values(&signature);
                    let _ = Reader::new(&bytes, true).values(&signature);
                }
            }
        }
        let endless = "a".repeat(300);
        for bad in ["(", "()", "a()", "a", &endless, "(i", "i)", "{s}", "z", "a{}", "(a)", "r"] {
            assert!(Reader::new(&[0; 64], false).values(bad).is_err(), "{bad}");
        }
        // A variant in a variant, for ever.
        let nested: Vec<u8> = [1, b'v', 0].into_iter().cycle().take(30_000).collect();
        assert!(Reader::new(&nested, false).values("v").is_err());
        assert!(Reader::new(&[0xff; 64], false).values("ay").is_err());
    }
}
