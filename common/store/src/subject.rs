//! What a tool works on: a container named by the user, or the one a record tells of.

use crate::{ContainerDir, Store, container::is_id};
use fault::{Fault, Result};
use record::{Container, Record};

/// One subject of a tool, before it was looked up.
#[derive(Clone, Debug)]
pub enum Subject {
    Name(String),
    Record(Box<Record>),
}

impl From<String> for Subject {
    fn from(name: String) -> Subject {
        Subject::Name(name)
    }
}

impl From<Record> for Subject {
    fn from(record: Record) -> Subject {
        Subject::Record(Box::new(record))
    }
}

impl Subject {
    /// The container. A record counts by its id alone, as everything else in it may have been edited.
    ///
    /// Fails with not found, or with an input failure for a record without a usable `container` section.
    pub fn find(&self, store: &Store) -> Result<ContainerDir> {
        match self {
            Subject::Name(name) => store.find_container(name),
            Subject::Record(record) => {
                let id = record.require::<Container>("container")?.id;
                if !is_id(&id) {
                    return Err(Fault::input("container.id is not 64 hexadecimal digits").on(id));
                }
                let dir = store.container_dir(&id);
                if dir.exists() {
                    return Ok(dir);
                }
                Err(Fault::not_found("no such container").on(id).hint("ctr-ls --all lists them"))
            }
        }
    }

    /// The record to print: the one that came in with its `container` section brought up to date, or for a name the
    /// container's own.
    pub fn current(&self, dir: &ContainerDir) -> Result<Record> {
        match self {
            Subject::Name(_) => dir.current(),
            Subject::Record(record) => {
                let mut record = (**record).clone();
                let container: Container = dir.current()?.require("container")?;
                record.set("container", &container)?;
                Ok(record)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::Kind;

    #[test]
    fn a_record_must_name_a_container_by_its_id() {
        let store = Store::at("/nonexistent/root", "/nonexistent/run");
        for (text, kind) in [
            (r#"{"image":{}}"#, Kind::Input),
            (r#"{"container":{"id":"../../etc","name":"x"}}"#, Kind::Input),
            (r#"{"container":{"id":7}}"#, Kind::Input),
        ] {
            let subject = Subject::from(Record::parse(text).unwrap());
            assert_eq!(subject.find(&store).unwrap_err().kind(), kind, "{text}");
        }
        let text = format!(r#"{{"container":{{"id":"{}","name":"x"}}}}"#, "a".repeat(64));
        let subject = Subject::from(Record::parse(&text).unwrap());
        assert_eq!(subject.find(&store).unwrap_err().kind(), Kind::NotFound);
    }
}
