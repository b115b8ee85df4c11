//! The record that travels through the pipes: one JSON object on one line (DESIGN: the pipe contract).
//!
//! A tool reads the sections it needs as types, replaces its own, and everything else leaves byte for byte
//! as it came: members are kept as raw text, in order, and never parsed unless asked for.
#![forbid(unsafe_code)]

pub mod member;
mod merge;
mod reader;
#[cfg(test)]
mod schema;
mod sections;

pub use merge::in_place as merge_in_place;
pub use reader::{MAX_RECORD_BYTES, Reader};
pub use sections::*;

use fault::{Fault, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::io::Write;

/// Major version of the record's schema. Members are added within a major, never changed.
pub const VERSION: u64 = 1;

/// Where a piece of JSON began in the input, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    value: Box<RawValue>,
    /// `None` for what this process put in.
    position: Option<Position>,
}

/// One record: members by name, in order.
#[derive(Clone, Debug)]
pub struct Record {
    members: Vec<Member>,
}

impl Default for Record {
    fn default() -> Record {
        Record::new()
    }
}

impl Record {
    /// An empty record of this schema version.
    pub fn new() -> Record {
        let mut record = Record { members: Vec::new() };
        record.put_raw("staves", RawValue::from_string(VERSION.to_string()).expect("a number is JSON"));
        record
    }

    /// Parses exactly one record.
    pub fn parse(text: &str) -> Result<Record> {
        let mut reader = Reader::new(text.as_bytes());
        let record = reader.next().unwrap_or_else(|| Err(Fault::input("no record")))?;
        match reader.next() {
            None => Ok(record),
            Some(_) => Err(Fault::input("more than one record where one was expected")),
        }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.members.iter().any(|m| m.name == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|m| m.name.as_str())
    }

    /// The raw text of a member, byte for byte as it came. JSON `null` counts as absent.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|m| m.name == name).map(|m| m.value.get()).filter(|text| *text != "null")
    }

    /// A section as a type; `None` when it is absent or null.
    ///
    /// Fails with [`fault::Kind::Input`], naming line, column and member path.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(member) = self.members.iter().find(|m| m.name == name && m.value.get() != "null") else {
            return Ok(None);
        };
        let text = member.value.get();
        let value = serde_json::from_str(text).map_err(|error| {
            reader::type_error(name, member.position, &member::path_of(text.as_bytes(), &error), &error)
        })?;
        Ok(Some(value))
    }

    /// A section that must be there; the error says which tool makes it.
    pub fn require<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.get(name)?.ok_or_else(|| {
            let made_by = match name {
                "image" => "img-pull makes it",
                "rootfs" => "img-unpack makes it",
                "container" => "ctr-create makes it",
                "networks" => "net-attach makes it",
                _ => "an earlier stage makes it",
            };
            Fault::input(format!("the record has no \"{name}\" section")).hint(made_by)
        })
    }

    /// Puts a section in. An existing one keeps its place, its members keep their order, and members the
    /// new value lacks are dropped.
    pub fn set<T: Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let mut new = serde_json::to_value(value)
            .map_err(|error| Fault::failed(format!("write section \"{name}\"")).because(error))?;
        if let Some(old) = self.raw(name)
            && let Ok(old) = serde_json::from_str::<serde_json::Value>(old)
        {
            new = merge::in_place(&old, new);
        }
        let raw = serde_json::value::to_raw_value(&new)
            .map_err(|error| Fault::failed(format!("write section \"{name}\"")).because(error))?;
        self.put_raw(name, raw);
        Ok(())
    }

    /// Puts in JSON text that is already at hand.
    pub fn set_raw(&mut self, name: &str, json: String) -> Result<()> {
        let raw = RawValue::from_string(json)
            .map_err(|error| Fault::input(format!("section \"{name}\" is not JSON")).because(error))?;
        self.put_raw(name, raw);
        Ok(())
    }

    pub fn remove(&mut self, name: &str) {
        self.members.retain(|m| m.name != name);
    }

    fn put_raw(&mut self, name: &str, value: Box<RawValue>) {
        match self.members.iter_mut().find(|m| m.name == name) {
            Some(member) => {
                member.value = value;
                member.position = None;
            }
            None => self.members.push(Member { name: name.to_owned(), value, position: None }),
        }
    }

    /// The record as one line without its newline. Raw members that came pretty-printed are put on one line.
    pub fn to_line(&self) -> String {
        let mut out =
            String::with_capacity(64 + self.members.iter().map(|m| m.value.get().len()).sum::<usize>());
        out.push('{');
        for (index, member) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(&serde_json::to_string(&member.name).expect("a string is JSON"));
            out.push(':');
            merge::push_on_one_line(&mut out, member.value.get());
        }
        out.push('}');
        out
    }

    /// Writes the record as one line in one write.
    pub fn write_to(&self, mut out: impl Write) -> std::io::Result<()> {
        let mut line = self.to_line();
        line.push('\n');
        out.write_all(line.as_bytes())
    }

    // Typed short-hands for the sections this project defines.

    pub fn image(&self) -> Result<Option<Image>> {
        self.get("image")
    }

    pub fn rootfs(&self) -> Result<Option<Rootfs>> {
        self.get("rootfs")
    }

    /// What the user asks for; an absent section asks for nothing.
    pub fn config(&self) -> Result<Config> {
        Ok(self.get("config")?.unwrap_or_default())
    }

    pub fn container(&self) -> Result<Option<Container>> {
        self.get("container")
    }

    pub fn networks(&self) -> Result<Vec<Attachment>> {
        Ok(self.get("networks")?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_pass_untouched_and_in_order() {
        let text = r#"{"zeta":1.50,"staves":1,"big":123456789012345678901234567890,"image":{"later":[1e400],"reference":"a"},"alpha":{"b":  null}}"#;
        let mut record = Record::parse(text).unwrap();
        record.set("extra", &serde_json::json!({"n": 1})).unwrap();
        let expected = text.replace(r#"{"b":  null}}"#, r#"{"b":  null},"extra":{"n":1}}"#);
        assert_eq!(record.to_line(), expected);
    }

    #[test]
    fn pretty_input_leaves_on_one_line() {
        let record = Record::parse("{\n \"staves\": 1,\n \"x\": {\n  \"s\": \"a\\n b  c\"\n }\n}\n").unwrap();
        let line = record.to_line();
        assert!(!line.contains('\n'));
        assert!(line.contains("a\\n b  c"));
        assert_eq!(Record::parse(&line).unwrap().to_line(), line);
    }

    #[test]
    fn set_keeps_place_and_member_order() {
        let mut record =
            Record::parse(r#"{"container":{"name":"n","mine":{"k":1},"id":"i"},"after":true}"#).unwrap();
        let mut container: Container = record.require("container").unwrap();
        container.status = Some("created".into());
        record.set("container", &container).unwrap();
        assert_eq!(
            record.to_line(),
            r#"{"container":{"name":"n","mine":{"k":1},"id":"i","status":"created"},"after":true}"#
        );
    }

    #[test]
    fn errors_name_line_column_and_member() {
        let record = Record::parse("{\"a\":1,\n  \"config\": {\"env\": [\"A=b\", 7]}}").unwrap();
        let error = record.config().unwrap_err();
        assert_eq!(error.kind(), fault::Kind::Input);
        let text = error.to_string();
        assert!(text.contains("line 2"), "{text}");
        assert!(text.contains("config.env[1]"), "{text}");
    }

    #[test]
    fn a_foreign_major_is_refused() {
        let error = Record::parse(r#"{"staves":2}"#).unwrap_err();
        assert_eq!(error.kind(), fault::Kind::Input);
        assert!(error.to_string().contains("version 2"));
    }
}
