//! Which containers go.

use cli::{Fault, Result};
use jiff::Timestamp;
use record::{Container, Record};
use std::time::Duration;
use store::{ContainerDir, Lock, Status};

/// A container that waits to be started for longer than this was forgotten.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// For so long a container may be without a shim while ctr-create or ctr-start is about to start one.
const BETWEEN_STEPS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Remove,
    /// If nothing happens to it until its record is so old.
    RemoveOnceOlderThan(Duration),
}

/// Fails when its state cannot be read.
pub fn verdict(dir: &ContainerDir, created_too: bool) -> Result<Verdict> {
    let status = dir.status()?;
    if !matches!(status, Status::Created | Status::Exited) {
        return Ok(Verdict::Keep);
    }
    if dir.has_shim() {
        // Waits to be started, for the first time or again. The state was written when it was set up.
        let waited = crate::age_of(&dir.run.join("state.json")).unwrap_or_default();
        return Ok(if created_too || waited > FORGOTTEN { Verdict::Remove } else { Verdict::Keep });
    }
    // A tool is working on it.
    if Lock::try_directory(&dir.bundle)?.is_none() {
        return Ok(Verdict::Keep);
    }
    Ok(match status {
        Status::Created => Verdict::RemoveOnceOlderThan(BETWEEN_STEPS),
        _ => Verdict::Remove,
    })
}

/// `--filter`: all must hold.
#[derive(Debug, Default)]
pub struct Filters {
    until: Option<Timestamp>,
    /// Key, value, and whether it is to be there.
    labels: Vec<(String, Option<String>, bool)>,
}

impl Filters {
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut filters = Filters::default();
        let now = Timestamp::now();
        for text in texts {
            match text.split_once('=') {
                Some(("until", time)) => {
                    let time = cli::moment::parse(time, now)?;
                    filters.until = Some(filters.until.map_or(time, |until| until.min(time)));
                }
                Some((key @ ("label" | "label!"), label)) => {
                    let (name, value) = match label.split_once('=') {
                        Some((name, value)) => (name, Some(value.to_owned())),
                        None => (label, None),
                    };
                    filters.labels.push((name.to_owned(), value, key == "label"));
                }
                _ => {
                    return Err(Fault::usage(format!("there is no filter {text:?}"))
                        .hint("until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]"));
                }
            }
        }
        Ok(filters)
    }

    pub fn hold(&self, record: &Record) -> Result<bool> {
        if let Some(until) = self.until {
            let container: Container = record.require("container")?;
            let created = container.created_at.and_then(|text| text.parse::<Timestamp>().ok());
            // One of unknown age is not older than anything.
            if created.is_none_or(|created| created >= until) {
                return Ok(false);
            }
        }
        if self.labels.is_empty() {
            return Ok(true);
        }
        let own = record.config()?.labels;
        let image = record.image()?.map(|image| image.config).unwrap_or_default();
        let of_image = image.pointer("/config/Labels");
        Ok(self.labels.iter().all(|(name, wanted, there)| {
            let value = own.get(name).map(String::as_str).or_else(|| of_image?.get(name)?.as_str());
            let holds = value.is_some_and(|value| wanted.as_deref().is_none_or(|wanted| wanted == value));
            holds == *there
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cli::Kind;

    #[test]
    fn filters_by_age_and_label() {
        let record = Record::parse(
            r#"{"container":{"id":"a","name":"b","created_at":"2026-01-01T00:00:00Z"},"config":{"labels":{"a":"b"}}}"#,
        )
        .unwrap();
        let holds = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Filters::parse(&texts).unwrap().hold(&record).unwrap()
        };
        assert!(holds(&[]));
        assert!(holds(&["until=2026-01-02T00:00:00Z", "label=a", "label=a=b", "label!=c", "label!=a=c"]));
        for no in ["until=2025-12-31T00:00:00Z", "label=a=c", "label=c", "label!=a", "label!=a=b"] {
            assert!(!holds(&[no]), "{no}");
        }
        for bad in ["status=exited", "until", "until=soon"] {
            assert_eq!(Filters::parse(&[bad.to_owned()]).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
