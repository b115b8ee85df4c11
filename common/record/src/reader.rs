//! Streams of records: JSON objects with any white space between them.

use crate::{Member, Position, Record, VERSION};
use fault::{Fault, Result};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::io::Read;

/// Longest input accepted: far above any real record, far below what would hurt the machine.
pub const MAX_RECORD_BYTES: u64 = 64 << 20;

const START: Position = Position { line: 1, column: 1 };

/// Iterates over the records of an input.
///
/// Reads to end of file before the first record is handed out: the tools of a pipeline start together, and
/// none may act on half of what the stage before it wanted to say.
pub struct Reader {
    text: Result<String>,
    offset: usize,
    /// Where the offset is. Counted on from record to record, or a long input would be counted through for each.
    position: Position,
    done: bool,
}

impl Reader {
    pub fn new(mut input: impl Read) -> Reader {
        let mut bytes = Vec::new();
        let text = match input.by_ref().take(MAX_RECORD_BYTES + 1).read_to_end(&mut bytes) {
            Err(error) => Err(Fault::failed("read records").because(error)),
            Ok(read) if read as u64 > MAX_RECORD_BYTES => {
                Err(Fault::input(format!("records are longer than {MAX_RECORD_BYTES} bytes")))
            }
            Ok(_) => String::from_utf8(bytes).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                Fault::input(format!("the input is not UTF-8 from byte {at} on"))
            }),
        };
        Reader { text, offset: 0, position: START, done: false }
    }
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        if self.done {
            return None;
        }
        if let Err(fault) = &mut self.text {
            self.done = true;
            return Some(Err(std::mem::replace(fault, Fault::input(""))));
        }
        let text = self.text.as_deref().unwrap_or_default();
        let rest = &text[self.offset..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.position = after(self.position, &rest[..blank]);
        self.offset += blank;
        let rest = &rest[blank..];
        if rest.is_empty() {
            self.done = true;
            return None;
        }
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Members<'_>>();
        let parsed = stream.next().expect("there is text left");
        match parsed {
            Ok(members) => {
                let record = members.into_record(rest, self.position);
                let length = stream.byte_offset();
                self.position = after(self.position, &rest[..length]);
                self.offset += length;
                self.done = record.is_err();
                Some(record)
            }
            Err(error) => {
                self.done = true;
                Some(Err(syntax_error(self.position, rest, &error)))
            }
        }
    }
}

/// The members of one object, borrowed from the input so that their positions are known.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record, which is a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                let mut seen = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !seen.insert(name.clone()) {
                        // Two readers could each believe another of the two.
                        return Err(serde::de::Error::custom(format!("member \"{name}\" is there twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl Members<'_> {
    /// `text` begins with the record, at `start`.
    fn into_record(self, text: &str, start: Position) -> Result<Record> {
        let mut reached = (0, start);
        let members: Vec<Member> = self
            .0
            .into_iter()
            .map(|(name, value)| {
                let offset = value.get().as_ptr() as usize - text.as_ptr() as usize;
                let position = after(reached.1, &text[reached.0..offset]);
                reached = (offset, position);
                Member { name, value: value.to_owned(), position: Some(position) }
            })
            .collect();
        let record = Record { members };
        match record.raw("staves").map(str::parse::<u64>) {
            None | Some(Ok(VERSION)) => Ok(record),
            Some(Ok(other)) => Err(Fault::input(format!("the record is of schema version {other}"))
                .hint(format!("this build reads version {VERSION}"))),
            Some(Err(_)) => Err(Fault::input("member \"staves\" is not a version number")),
        }
    }
}

/// Where a text that begins at `start` ends.
fn after(start: Position, text: &str) -> Position {
    let feeds = text.bytes().filter(|b| *b == b'\n').count();
    let column = 1 + text.bytes().rev().take_while(|b| *b != b'\n').count();
    absolute(start, 1 + feeds, column)
}

/// `inner` counts from `start`.
fn absolute(start: Position, line: usize, column: usize) -> Position {
    if line <= 1 {
        Position { line: start.line, column: start.column + column.saturating_sub(1) }
    } else {
        Position { line: start.line + line - 1, column }
    }
}

/// serde_json ends its messages with a position relative to what it was given.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn syntax_error(start: Position, text: &str, error: &serde_json::Error) -> Fault {
    let at = absolute(start, error.line(), error.column());
    let fault = Fault::input(format!(
        "not a record: line {}, column {}: {}",
        at.line,
        at.column,
        without_position(error)
    ));
    if error.is_eof() {
        fault.hint("the input ends early; did the stage before it fail?")
    } else if !text.starts_with('{') {
        fault.hint("records come through pipes, names and ids as arguments: `… -q | xargs TOOL`")
    } else {
        fault
    }
}

pub(crate) fn type_error(
    section: &str,
    start: Option<Position>,
    path: &str,
    error: &serde_json::Error,
) -> Fault {
    let path = match path {
        "" => section.to_owned(),
        path if path.starts_with('[') => format!("{section}{path}"),
        path => format!("{section}.{path}"),
    };
    let message = without_position(error);
    match start {
        Some(start) => {
            let at = absolute(start, error.line(), error.column());
            Fault::input(format!("line {}, column {}: {path}: {message}", at.line, at.column))
        }
        None => Fault::input(format!("{path}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::Kind;

    #[test]
    fn reads_concatenated_and_spread_out_records() {
        let input = "{\"a\":1}{\"b\":2}\n\n {\n\"c\":\n3}\n";
        let lines: Vec<String> = Reader::new(input.as_bytes()).map(|r| r.unwrap().to_line()).collect();
        assert_eq!(lines, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(Reader::new("  \n".as_bytes()).next().is_none());
    }

    #[test]
    fn bad_input_stops_the_stream_and_says_where() {
        for (input, wanted) in [
            ("{\"a\":1}\n{\"b\":", "line 2"),
            ("[1]", "JSON object"),
            ("{\"a\":1,\"a\":2}", "twice"),
            ("{\"a\":1} x", "column 9"),
            ("{\"a\":1}\n{}\n {\"b\":1} x", "line 3, column 10"),
            ("nonsense", "line 1, column"),
        ] {
            let results: Vec<_> = Reader::new(input.as_bytes()).collect();
            let error = results.last().unwrap().as_ref().unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.to_string().contains(wanted), "{input}: {error}");
        }
        assert!(Reader::new(&[b'{', 0xff][..]).next().unwrap().is_err());
    }

    #[test]
    fn many_records_take_as_long_as_one_of_their_length() {
        // Counted through from its beginning for each record, this would take minutes.
        let line = "{\"container\":{\"id\":\"4f1c\",\"name\":\"brisk_cooper\"}}\n";
        let input = line.repeat(400_000);
        let begun = std::time::Instant::now();
        let last = Reader::new(input.as_bytes()).map(Result::unwrap).last().unwrap();
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
        assert_eq!(last.members[0].position, Some(Position { line: 400_000, column: 14 }));
    }
}
