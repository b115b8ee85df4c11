//! Annotations `org.systemd.property.NAME`: properties of the unit, with values in GVariant's text form, as the other OCI
//! runtimes take them.

use super::properties::Property;
use super::value::{Value, first_type};
use fault::{Fault, Result};

const PREFIX: &str = "org.systemd.property.";
const MAX_DEPTH: usize = 16;

pub fn properties<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>> {
    let ours = |(key, text): (&'a String, &'a String)| Some((key, key.strip_prefix(PREFIX)?, text));
    annotations
        .into_iter()
        .filter_map(ours)
        .map(|(key, name, text)| {
            property(name, text).map_err(|why| {
                Fault::input(format!("annotation {key}={text}: {why}"))
                    .hint("values are written as GVariant's text form: true, 'text', uint64 5, ['a', 'b']")
            })
        })
        .collect()
}

fn property(name: &str, text: &str) -> std::result::Result<Property, String> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("the property's name is not one of at least three letters".to_owned());
    }
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return Err(format!("{:?} is too much", parser.rest));
    }
    let value = value.typed(None)?;
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|letter: char| letter.is_ascii_lowercase())) {
        // Documented in seconds, but on the bus in microseconds.
        Some(stem) => Ok((format!("{stem}USec"), Value::U64(microseconds(&value)?))),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> std::result::Result<u64, String> {
    let whole = match seconds {
        Value::Byte(number) => i128::from(*number),
        Value::I16(number) => i128::from(*number),
        Value::U16(number) => i128::from(*number),
        Value::I32(number) => i128::from(*number),
        Value::U32(number) => i128::from(*number),
        Value::I64(number) => i128::from(*number),
        Value::U64(number) => i128::from(*number),
        // Saturates; what is no number becomes 0, which no property takes.
        Value::F64(number) if *number >= 0.0 => return Ok((number * 1e6) as u64),
        _ => return Err("it is no number of seconds".to_owned()),
    };
    u64::try_from(whole * 1_000_000).map_err(|_| "it is no possible number of seconds".to_owned())
}

/// What is written, before it is clear of which type it is.
#[derive(Clone, Debug, PartialEq)]
enum Written {
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Written>),
    Tuple(Vec<Written>),
    Typed(String, Box<Written>),
}

impl Written {
    fn typed(self, wanted: Option<&str>) -> std::result::Result<Value, String> {
        match self {
            Written::Typed(kind, inner) => match wanted {
                Some(wanted) if wanted != kind => {
                    Err(format!("a value of type {kind} where {wanted} is wanted"))
                }
                _ => inner.typed(Some(&kind)),
            },
            Written::Bool(yes) => match wanted {
                None | Some("b") => Ok(Value::Bool(yes)),
                Some(wanted) => Err(format!("{yes} is not of type {wanted}")),
            },
            Written::Text(text) => match wanted {
                None | Some("s") => Ok(Value::Text(text)),
                Some("o") => Ok(Value::Path(text)),
                Some("g") => {
                    Ok(Value::Signature(text)).and_then(|value| check_signature(&value).map(|()| value))
                }
                Some(wanted) => Err(format!("{text:?} is not of type {wanted}")),
            },
            Written::Number(text) => number(&text, wanted),
            Written::Array(elements) => array(elements, wanted),
            Written::Tuple(members) => tuple(members, wanted),
        }
    }
}

fn check_signature(value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::Signature(text) if text.len() > 255 || !text.is_ascii() => {
            Err("it is no signature".to_owned())
        }
        _ => Ok(()),
    }
}

fn number(text: &str, wanted: Option<&str>) -> std::result::Result<Value, String> {
    let is_real = !text.contains("0x") && text.contains(['.', 'e', 'E']);
    let wanted = wanted.unwrap_or(if is_real { "d" } else { "i" });
    let bad = || format!("{text} is not of type {wanted}");
    if wanted == "d" {
        return text.parse().map(Value::F64).map_err(|_| bad());
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let whole = match digits.strip_prefix("0x") {
        Some(digits) => i128::from(u64::from_str_radix(digits, 16).map_err(|_| bad())?),
        None => i128::from(digits.parse::<u64>().map_err(|_| bad())?),
    } * sign;
    let out = |_| bad();
    Ok(match wanted {
        "y" => Value::Byte(u8::try_from(whole).map_err(out)?),
        "n" => Value::I16(i16::try_from(whole).map_err(out)?),
        "q" => Value::U16(u16::try_from(whole).map_err(out)?),
        "i" => Value::I32(i32::try_from(whole).map_err(out)?),
        "u" => Value::U32(u32::try_from(whole).map_err(out)?),
        "x" => Value::I64(i64::try_from(whole).map_err(out)?),
        "t" => Value::U64(u64::try_from(whole).map_err(out)?),
        _ => return Err(bad()),
    })
}

fn array(elements: Vec<Written>, wanted: Option<&str>) -> std::result::Result<Value, String> {
    let mut element = match wanted {
        Some(wanted) => {
            Some(wanted.strip_prefix('a').ok_or(format!("an array is not of type {wanted}"))?.to_owned())
        }
        None => None,
    };
    let mut values = Vec::new();
    for one in elements {
        let value = one.typed(element.as_deref())?;
        // The first says what the others are.
        element.get_or_insert_with(|| value.signature());
        values.push(value);
    }
    let element = element.ok_or("an empty array has no type; write @as []")?;
    Ok(Value::Array(element, values))
}

fn tuple(members: Vec<Written>, wanted: Option<&str>) -> std::result::Result<Value, String> {
    let mut kinds = None;
    if let Some(wanted) = wanted {
        let inside = wanted.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        kinds = Some(inside.ok_or(format!("a tuple is not of type {wanted}"))?.as_bytes());
    }
    let mut values = Vec::new();
    for one in members {
        let kind = match &mut kinds {
            Some(rest) => {
                let first = first_type(rest).map_err(|_| "a tuple has too many members".to_owned())?;
                *rest = &rest[first.len()..];
                Some(String::from_utf8_lossy(first).into_owned())
            }
            None => None,
        };
        values.push(one.typed(kind.as_deref())?);
    }
    if values.is_empty() || kinds.is_some_and(|rest| !rest.is_empty()) {
        return Err("a tuple has too few members".to_owned());
    }
    Ok(Value::Struct(values))
}

struct Parser<'a> {
    rest: &'a str,
}

/// Words in front of a value, and the types they stand for.
const KEYWORDS: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, one: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(one) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> std::result::Result<Written, String> {
        if depth > MAX_DEPTH {
            return Err("it is too deep".to_owned());
        }
        self.skip_space();
        match self.rest.chars().next() {
            None => Err("a value is missing".to_owned()),
            Some('\'' | '"') => self.text(),
            Some('[') => self.list('[', ']', depth).map(Written::Array),
            Some('(') => self.list('(', ')', depth).map(Written::Tuple),
            Some('@') => {
                self.rest = &self.rest[1..];
                let kind =
                    first_type(self.rest.as_bytes()).map_err(|_| "@ is followed by no type".to_owned())?;
                // Types are ASCII.
                let kind = String::from_utf8_lossy(kind).into_owned();
                self.rest = &self.rest[kind.len()..];
                Ok(Written::Typed(kind, Box::new(self.value(depth + 1)?)))
            }
            Some(_) => self.word(depth),
        }
    }

    fn word(&mut self, depth: usize) -> std::result::Result<Written, String> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        if let Some((_, kind)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == word) {
            return Ok(Written::Typed((*kind).to_owned(), Box::new(self.value(depth + 1)?)));
        }
        match word {
            "true" => Ok(Written::Bool(true)),
            "false" => Ok(Written::Bool(false)),
            number
                if number.trim_start_matches(['+', '-', '.']).starts_with(|c: char| c.is_ascii_digit()) =>
            {
                Ok(Written::Number(number.to_owned()))
            }
            "" => Err(format!("{:?} is not understood", self.rest)),
            other => Err(format!("{other:?} is not understood; texts are quoted")),
        }
    }

    fn list(&mut self, open: char, close: char, depth: usize) -> std::result::Result<Vec<Written>, String> {
        let mut list = Vec::new();
        self.take(open);
        while !self.take(close) {
            if !list.is_empty() && !self.take(',') {
                return Err(format!("a , or {close} is missing"));
            }
            // A tuple of one ends in a comma.
            if open == '(' && self.take(close) {
                break;
            }
            list.push(self.value(depth + 1)?);
        }
        Ok(list)
    }

    fn text(&mut self) -> std::result::Result<Written, String> {
        let mut letters = self.rest.chars();
        let quote = letters.next();
        let mut text = String::new();
        loop {
            let letter = letters.next().ok_or("a text does not end")?;
            if Some(letter) == quote {
                self.rest = letters.as_str();
                return Ok(Written::Text(text));
            }
            text.push(match letter {
                '\\' => match letters.next().ok_or("a text does not end")? {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0b',
                    'u' => code_point(&mut letters, 4)?,
                    'U' => code_point(&mut letters, 8)?,
                    other => other,
                },
                '\0' => return Err("there is a NUL in a text".to_owned()),
                other => other,
            });
        }
    }
}

fn code_point(letters: &mut std::str::Chars<'_>, digits: usize) -> std::result::Result<char, String> {
    let text: String = letters.by_ref().take(digits).collect();
    let number = u32::from_str_radix(&text, 16).ok().filter(|number| *number != 0 && text.len() == digits);
    number.and_then(char::from_u32).ok_or(format!("\\u{text} is no character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_gvariants_types() {
        let texts = Value::texts(["a", "b\n"]);
        let tuple = Value::Struct(vec![Value::text("/dev/null"), Value::text("rw")]);
        for (name, text, wanted) in [
            ("Delegate", "true", Value::Bool(true)),
            ("Description", "'it''s'", Value::Bool(false)),
            ("Description", "\"it's \\u00e4\"", Value::text("it's ä")),
            ("OOMScoreAdjust", "-5", Value::I32(-5)),
            ("TasksMax", "uint64 0x10", Value::U64(16)),
            ("TasksMax", "@t 7", Value::U64(7)),
            ("Ratio", "1.5", Value::F64(1.5)),
            ("After", "['a', 'b\\n']", texts.clone()),
            ("After", " @as [\"a\" , 'b\n'] ", texts),
            ("After", "@as []", Value::texts([])),
            ("Numbers", "[byte 1, 2]", Value::Array("y".to_owned(), vec![Value::Byte(1), Value::Byte(2)])),
            ("DeviceAllow", "[('/dev/null', 'rw')]", Value::Array("(ss)".to_owned(), vec![tuple])),
        ] {
            if text == "'it''s'" {
                assert!(property(name, text).is_err());
                continue;
            }
            assert_eq!(property(name, text).unwrap(), (name.to_owned(), wanted), "{text}");
        }
    }

    #[test]
    fn seconds_are_microseconds_on_the_bus() {
        for (text, wanted) in [("3", 3_000_000), ("uint64 90", 90_000_000), ("0.5", 500_000)] {
            assert_eq!(
                property("TimeoutStopSec", text).unwrap(),
                ("TimeoutStopUSec".to_owned(), Value::U64(wanted))
            );
        }
        assert_eq!(property("TimeoutStopUSec", "uint64 3").unwrap().1, Value::U64(3));
        for bad in ["-1", "'x'", "uint64 18446744073709551615", "-0.5"] {
            assert!(property("TimeoutStopSec", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(5000);
        let deeper = "@t ".repeat(5000);
        for text in [
            "",
            "x",
            "'a",
            "[",
            "[1",
            "[1 2]",
            "['a', 2]",
            "[]",
            "()",
            "@",
            "@(",
            "@z 1",
            "@s 1",
            "@as 1",
            "byte 256",
            "byte -1",
            "2147483648",
            "1x",
            "true false",
            "{'a': 1}",
            "<1>",
            "'\\u12'",
            "'\\u0000'",
            "'\0'",
            "@(ss) ('a')",
            "@(s) ('a', 'b')",
            "byte 'a'",
            "uint64 1.5",
            "0x",
            "-",
            "ä",
            "@sä",
            &deep,
            &deeper,
        ] {
            assert!(property("Name", text).is_err(), "{text}");
        }
        for name in ["", "ab", "a.b.c", "Näme", "A B C", "Tasks1"] {
            assert!(property(name, "true").is_err(), "{name}");
        }
        let all = std::collections::BTreeMap::from([
            ("org.systemd.property.CollectMode".to_owned(), "'inactive-or-failed'".to_owned()),
            ("other".to_owned(), "(".to_owned()),
        ]);
        assert_eq!(
            properties(&all).unwrap(),
            [("CollectMode".to_owned(), Value::text("inactive-or-failed"))]
        );
    }
}
