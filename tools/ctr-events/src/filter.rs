//! `--filter`: docker's keys and meanings.

use cli::{Fault, Result};
use jiff::Timestamp;
use oci::Reference;
use serde::Deserialize;
use serde_json::{Map, Value};

const TYPES: [&str; 4] = ["container", "image", "network", "volume"];
const KEYS: &str = "type, event, container, image, label, network, volume";

/// One event, as far as filters and people look at it.
#[derive(Debug)]
pub struct Event {
    pub time: Timestamp,
    line: Line,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    time: String,
    #[serde(rename = "type")]
    kind: String,
    action: String,
    id: String,
    name: String,
    image: String,
    labels: Map<String, Value>,
    attributes: Map<String, Value>,
}

impl Event {
    /// `None` for what is none: a machine that loses its power may leave anything.
    pub fn parse(line: &[u8]) -> Option<Event> {
        let line: Line = serde_json::from_slice(line).ok()?;
        Some(Event { time: line.time.parse().ok()?, line })
    }

    /// docker's line for people.
    pub fn in_words(&self) -> String {
        let Line { kind, action, id, .. } = &self.line;
        let mut pairs: Vec<String> = Vec::new();
        for (name, value) in self.line.labels.iter().chain(&self.line.attributes) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            pairs.push(format!("{name}={text}"));
        }
        for (name, value) in [("image", &self.line.image), ("name", &self.line.name)] {
            if !value.is_empty() {
                pairs.push(format!("{name}={value}"));
            }
        }
        let text = format!("{:.9} {kind} {action} {id} ({})", self.time, pairs.join(", "));
        // Names and labels are anybody's; a terminal obeys control characters.
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }
}

/// Those of one key are alternatives, labels excepted.
#[derive(Debug, Default)]
pub struct Filters {
    types: Vec<String>,
    actions: Vec<String>,
    containers: Vec<String>,
    images: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    networks: Vec<String>,
    volumes: Vec<String>,
}

impl Filters {
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            let (key, value) =
                text.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(|| {
                    Fault::usage(format!("filter {text:?} is not KEY=VALUE")).hint(format!("keys: {KEYS}"))
                })?;
            let value = value.to_owned();
            match key {
                "type" if TYPES.contains(&value.as_str()) => filters.types.push(value),
                "type" => {
                    return Err(Fault::usage(format!("filter type={value}: there is no such type"))
                        .hint(format!("one of {}", TYPES.join(", "))));
                }
                "event" => filters.actions.push(value),
                "container" => filters.containers.push(value),
                "image" => filters.images.push(value),
                "label" => filters.labels.push(match value.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (value, None),
                }),
                "network" => filters.networks.push(value),
                "volume" => filters.volumes.push(value),
                _ => {
                    return Err(
                        Fault::usage(format!("there is no filter {key:?}")).hint(format!("keys: {KEYS}"))
                    );
                }
            }
        }
        Ok(filters)
    }

    pub fn hold(&self, event: &Event) -> bool {
        let line = &event.line;
        let of = |kind: &str| line.kind == kind;
        let attribute = |name: &str| line.attributes.get(name).and_then(Value::as_str).unwrap_or_default();
        any(&self.types, |kind| of(kind))
            && any(&self.actions, |action| is_action(action, line))
            && any(&self.containers, |wanted| {
                let is = |id: &str, name: &str| {
                    *wanted == name || (id.len() == 64 && id.starts_with(wanted.as_str()))
                };
                (of("container") && is(&line.id, &line.name))
                    || is(attribute("container"), attribute("container_name"))
            })
            && any(&self.images, |wanted| {
                let image = if of("image") { &line.name } else { &line.image };
                is_image(wanted, image)
                    || (of("image") && line.id.ends_with(wanted.as_str()) && wanted.len() >= 12)
            })
            && any(&self.networks, |wanted| of("network") && *wanted == line.name)
            && any(&self.volumes, |wanted| of("volume") && *wanted == line.name)
            && self.labels.iter().all(|(name, wanted)| {
                line.labels
                    .get(name)
                    .and_then(Value::as_str)
                    .is_some_and(|value| wanted.as_deref().is_none_or(|w| w == value))
            })
    }
}

/// docker takes `health_status: healthy` for an event, too.
fn is_action(wanted: &str, line: &Line) -> bool {
    match wanted.split_once(": ") {
        Some((action, status)) => {
            line.action == action
                && line.attributes.get("health_status").and_then(Value::as_str) == Some(status)
        }
        None => line.action == wanted,
    }
}

/// Whether a reference given by the user means the image. Without a tag it means all tags, as docker's filter does.
fn is_image(wanted: &str, image: &str) -> bool {
    if wanted == image {
        return !image.is_empty();
    }
    let is_tagged = wanted.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    let (Ok(wanted), Ok(image)) = (Reference::parse(wanted), Reference::parse(image)) else { return false };
    wanted.name() == image.name()
        && (!is_tagged || (wanted.tag() == image.tag() && wanted.digest() == image.digest()))
}

/// No filter of a key holds for everything.
fn any(filters: &[String], holds: impl Fn(&String) -> bool) -> bool {
    filters.is_empty() || filters.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(filters: &[&str], line: &str) -> bool {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        Filters::parse(&filters).unwrap().hold(&Event::parse(line.as_bytes()).unwrap())
    }

    #[test]
    fn filters_as_docker_has_them() {
        let id = "a".repeat(64);
        let line = format!(
            r#"{{"time":"2026-01-02T03:04:05Z","type":"container","action":"health_status","id":"{id}","name":"web","image":"docker.io/library/nginx:1","labels":{{"team":"x"}},"attributes":{{"health_status":"healthy"}}}}"#
        );
        for yes in [
            &["type=container"][..],
            &["type=image", "type=container"],
            &["event=health_status"],
            &["event=health_status: healthy"],
            &["container=web"],
            &["container=aaaa"],
            &["image=nginx"],
            &["image=nginx:1"],
            &["label=team", "label=team=x"],
            &[],
        ] {
            assert!(holds(yes, &line), "{yes:?}");
        }
        for no in [
            &["type=image"][..],
            &["event=die"],
            &["event=health_status: unhealthy"],
            &["container=we"],
            &["image=nginx:2"],
            &["image=ngin"],
            &["label=team", "label=other"],
            &["type=container", "event=die"],
            &["volume=web"],
        ] {
            assert!(!holds(no, &line), "{no:?}");
        }
        for bad in ["x", "colour=red", "type=x", "=a", "event="] {
            assert_eq!(Filters::parse(&[bad.to_owned()]).unwrap_err().kind(), cli::Kind::Usage, "{bad}");
        }
        assert!(Event::parse(b"\0\0").is_none() && Event::parse(b"{}").is_none());
        let words = Event::parse(line.as_bytes()).unwrap().in_words();
        assert!(
            words.contains("container health_status aaaa")
                && words.ends_with("image=docker.io/library/nginx:1, name=web)"),
            "{words}"
        );
    }
}
