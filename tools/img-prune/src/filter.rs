//! `--filter`: which of the images nobody uses go.

use cli::moment::{is_before, take_until};
use cli::words::{LabelFilters, boolean};
use cli::{Fault, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use store::{Entry, Store};

#[derive(Debug, Default)]
pub struct Filters {
    /// `dangling=false` (true) or `dangling=true` (false), as docker has it.
    pub all: Option<bool>,
    until: Option<Timestamp>,
    labels: LabelFilters,
    /// Whether anything but the name decides.
    look_inside: bool,
}

impl Filters {
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut texts = texts.to_vec();
        let until = take_until(&mut texts)?;
        let mut filters = Filters { until, look_inside: until.is_some(), ..Filters::default() };
        for text in &texts {
            let wrong = || {
                Fault::usage(format!("there is no filter {text:?}"))
                    .hint("until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE], dangling=true|false")
            };
            match text.split_once('=').ok_or_else(wrong)? {
                (key @ ("label" | "label!"), label) => {
                    filters.labels.push(label, key == "label");
                    filters.look_inside = true;
                }
                ("dangling", value) => filters.all = Some(!boolean(value).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        }
        Ok(filters)
    }

    /// What cannot be looked into, an artifact perhaps, is neither old nor labelled, so that nothing goes unasked.
    pub fn hold(&self, store: &Store, entry: &Entry) -> bool {
        if !self.look_inside {
            return true;
        }
        let Ok(details) = store.image_details(entry) else { return false };
        let labels: BTreeMap<String, String> = details
            .image
            .config
            .pointer("/config/Labels")
            .and_then(|labels| labels.as_object())
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect();
        is_before(details.created.as_deref(), self.until) && self.labels.hold(&labels)
    }
}
