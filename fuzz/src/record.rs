//! Streams of records: what nobody knows passes through, in order.

use record::{Attachment, Config, Container, Image, Reader, Record, Rootfs, Volume};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub fn check(data: &[u8]) {
    for record in Reader::new(data) {
        match record {
            Ok(record) => passes_through(&record),
            Err(fault) => assert_eq!(fault.kind(), fault::Kind::Input, "{fault}"),
        }
    }
}

fn passes_through(record: &Record) {
    let line = record.to_line();
    assert!(!line.contains(['\n', '\r']), "{line}");
    let again = Record::parse(&line).expect("what was written can be read");
    assert_eq!(again.to_line(), line);
    assert!(again.names().eq(record.names()));
    section::<Image>(&again, "image");
    section::<Rootfs>(&again, "rootfs");
    section::<Config>(&again, "config");
    section::<Container>(&again, "container");
    section::<Vec<Attachment>>(&again, "networks");
    section::<Vec<Volume>>(&again, "volumes");
}

/// A section that is read and put back says the same, and every other member stays byte for byte.
fn section<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(record: &Record, name: &str) {
    let value: T = match record.get(name) {
        Ok(Some(value)) => value,
        Ok(None) => return,
        Err(fault) => {
            assert_eq!(fault.kind(), fault::Kind::Input, "{fault}");
            return;
        }
    };
    let mut changed = record.clone();
    changed.set(name, &value).expect("what was read can be written");
    assert!(changed.names().eq(record.names()));
    for other in record.names().filter(|other| *other != name) {
        assert_eq!(changed.raw(other), record.raw(other), "{other}");
    }
    // Numbers with a fraction are rounded when they are parsed.
    let text = serde_json::to_value(&value).expect("a section is JSON");
    if !has_fraction(&text) {
        assert_eq!(changed.require::<T>(name).expect("what was written can be read"), value);
    }
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        _ => false,
    }
}
