//! `--filter`: docker's keys and meanings.

use crate::Listed;
use cli::{Fault, Result};
use jiff::Timestamp;
use oci::Reference;
use record::{MountWish, Port};
use serde::Deserialize;
use store::Store;

const KEYS: &str =
    "id, name, label, status, exited, health, ancestor, before, since, network, volume, publish, expose";
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];
const STATUSES: [&str; 6] = ["created", "running", "paused", "restarting", "exited", "dead"];

/// All filters of a command line. Those of one key are alternatives, labels excepted.
#[derive(Debug, Default)]
pub struct Filters {
    ids: Vec<String>,
    names: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    statuses: Vec<String>,
    exit_codes: Vec<i32>,
    healths: Vec<String>,
    ancestors: Vec<String>,
    /// Created before this.
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    networks: Vec<String>,
    volumes: Vec<String>,
    published: Vec<PortRange>,
    exposed: Vec<PortRange>,
}

impl Filters {
    /// Fails with usage for an unknown key or a value the key cannot have, with not found for an unknown container.
    pub fn parse(texts: &[String], store: &Store) -> Result<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Fault::usage(format!("filter {text:?} is not KEY=VALUE")).hint(format!("keys: {KEYS}"))
            })?;
            filters.add(key.trim(), value.trim(), store)?;
        }
        Ok(filters)
    }

    fn add(&mut self, key: &str, value: &str, store: &Store) -> Result<()> {
        match key {
            "id" => self.ids.push(value.to_ascii_lowercase()),
            "name" => self.names.push(value.to_owned()),
            "label" => self.labels.push(match value.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (value.to_owned(), None),
            }),
            "status" if STATUSES.contains(&value) => self.statuses.push(value.to_owned()),
            "status" => {
                return Err(Fault::usage(format!("filter status={value}: no such status"))
                    .hint(format!("one of {}", STATUSES.join(", "))));
            }
            "exited" => self.exit_codes.push(
                value
                    .parse()
                    .map_err(|_| Fault::usage(format!("filter exited={value}: not an exit status")))?,
            ),
            "health" if HEALTHS.contains(&value) => self.healths.push(value.to_owned()),
            "health" => {
                return Err(Fault::usage(format!("filter health={value}: no such health"))
                    .hint(format!("one of {}", HEALTHS.join(", "))));
            }
            "ancestor" => self.ancestors.push(value.to_owned()),
            // Of several the narrowest counts.
            "before" => {
                let time = created(store, value)?;
                self.before = Some(self.before.map_or(time, |before| before.min(time)));
            }
            "since" => {
                let time = created(store, value)?;
                self.since = Some(self.since.map_or(time, |since| since.max(time)));
            }
            "network" => self.networks.push(value.to_owned()),
            "volume" => self.volumes.push(value.to_owned()),
            "publish" => self.published.push(PortRange::parse(value)?),
            "expose" => self.exposed.push(PortRange::parse(value)?),
            _ => {
                return Err(Fault::usage(format!("there is no filter {key:?}")).hint(format!("keys: {KEYS}")));
            }
        }
        Ok(())
    }

    /// Whether they ask for containers that do not run.
    pub fn want_all(&self) -> bool {
        !self.statuses.is_empty() || !self.exit_codes.is_empty()
    }

    pub fn hold(&self, item: &Listed) -> Result<bool> {
        let container = &item.container;
        let status = container.status.as_deref().unwrap_or_default();
        Ok(any(&self.ids, |id| matches(id, &container.id))
            && any(&self.names, |name| matches(name.trim_start_matches('/'), &container.name))
            && any(&self.statuses, |wanted| wanted == status)
            && any(&self.healths, |wanted| {
                wanted == container.health.as_ref().map_or("none", |health| health.status.as_str())
            })
            && any(&self.exit_codes, |code| status == "exited" && container.exit_code == Some(*code))
            && self.before.is_none_or(|time| item.created.is_some_and(|created| created < time))
            && self.since.is_none_or(|time| item.created.is_some_and(|created| created > time))
            && self.labels_hold(item)?
            && self.ancestor_holds(item)?
            && self.network_holds(item)?
            && self.volume_holds(item)?
            && self.ports_hold(item)?)
    }

    fn labels_hold(&self, item: &Listed) -> Result<bool> {
        if self.labels.is_empty() {
            return Ok(true);
        }
        let own = item.record.config()?.labels;
        let image = item.record.image()?.map(|image| image.config).unwrap_or_default();
        let of_image = image.pointer("/config/Labels");
        Ok(self.labels.iter().all(|(key, wanted)| {
            let value = own.get(key).map(String::as_str).or_else(|| of_image?.get(key)?.as_str());
            value.is_some_and(|value| wanted.as_deref().is_none_or(|wanted| wanted == value))
        }))
    }

    fn ancestor_holds(&self, item: &Listed) -> Result<bool> {
        if self.ancestors.is_empty() {
            return Ok(true);
        }
        let Some(image) = item.record.image()? else { return Ok(false) };
        let own = Reference::parse(&image.reference).ok();
        Ok(self.ancestors.iter().any(|wanted| {
            // Twelve digits are what listings show of a digest.
            let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
            let is_digest = digits.len() >= 12
                && digits.bytes().all(|b| b.is_ascii_hexdigit())
                && [Some(&image.digest), image.index_digest.as_ref()]
                    .into_iter()
                    .flatten()
                    .any(|digest| digest.trim_start_matches("sha256:").starts_with(digits));
            is_digest || *wanted == image.reference || is_same_image(wanted, own.as_ref(), &image)
        }))
    }

    fn network_holds(&self, item: &Listed) -> Result<bool> {
        if self.networks.is_empty() {
            return Ok(true);
        }
        let attached = item.record.networks()?;
        let asked = item.record.config()?.network;
        Ok(self.networks.iter().any(|wanted| {
            attached.iter().any(|attachment| attachment.name == *wanted) || asked.as_ref() == Some(wanted)
        }))
    }

    fn volume_holds(&self, item: &Listed) -> Result<bool> {
        if self.volumes.is_empty() {
            return Ok(true);
        }
        let mut places = Vec::new();
        for volume in item.record.get::<Vec<Volume>>("volumes")?.unwrap_or_default() {
            places.extend([Some(volume.name), volume.target].into_iter().flatten());
        }
        for mount in item.record.config()?.mounts {
            places.extend(places_of(mount));
        }
        Ok(self.volumes.iter().any(|wanted| places.contains(wanted)))
    }

    fn ports_hold(&self, item: &Listed) -> Result<bool> {
        if self.published.is_empty() && self.exposed.is_empty() {
            return Ok(true);
        }
        let ports: Vec<Port> =
            item.record.networks()?.into_iter().flat_map(|attachment| attachment.ports).collect();
        let published = any(&self.published, |range| {
            ports.iter().any(|port| port.host.is_some_and(|first| range.meets(first, port)))
        });
        let image = item.record.image()?.map(|image| image.config).unwrap_or_default();
        let of_image = image.pointer("/config/ExposedPorts").and_then(|ports| ports.as_object());
        let exposed = any(&self.exposed, |range| {
            ports.iter().any(|port| range.meets(port.container, port))
                || of_image.into_iter().flat_map(|ports| ports.keys()).any(|text| {
                    PortRange::parse(text).is_ok_and(|port| {
                        port.protocol == range.protocol
                            && port.first <= range.last
                            && port.last >= range.first
                    })
                })
        });
        Ok(published && exposed)
    }
}

/// No filter of a key holds for everything.
fn any<T>(filters: &[T], holds: impl Fn(&T) -> bool) -> bool {
    filters.is_empty() || filters.iter().any(holds)
}

/// Whether `text` contains `pattern`, which may be tied to its beginning with `^` and to its end with `$`.
fn matches(pattern: &str, text: &str) -> bool {
    let (start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (end, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |rest| (true, rest));
    match (start, end) {
        (true, true) => text == pattern,
        (true, false) => text.starts_with(pattern),
        (false, true) => text.ends_with(pattern),
        (false, false) => text.contains(pattern),
    }
}

fn created(store: &Store, wanted: &str) -> Result<Timestamp> {
    let dir = store.find_container(wanted)?;
    let created = dir.load()?.container()?.and_then(|container| container.created_at);
    created
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Fault::failed("nobody knows when it was created").on(dir.id))
}

/// Whether a reference given by the user means the container's image. Without a tag it means `latest`, as everywhere.
fn is_same_image(wanted: &str, own: Option<&Reference>, image: &record::Image) -> bool {
    let (Ok(wanted), Some(own)) = (Reference::parse(wanted), own) else { return false };
    if wanted.name() != own.name() {
        return false;
    }
    match wanted.digest() {
        Some(digest) => {
            digest.as_str() == image.digest || Some(digest.as_str()) == image.index_digest.as_deref()
        }
        None => wanted.tag().unwrap_or("latest") == own.tag().unwrap_or("latest"),
    }
}

/// A member of the record's section `volumes`.
#[derive(Deserialize)]
struct Volume {
    #[serde(default)]
    name: String,
    #[serde(default, alias = "destination", alias = "path")]
    target: Option<String>,
}

/// Source and target of a mount in any of its forms.
fn places_of(wish: MountWish) -> Vec<String> {
    match wish {
        MountWish::Mount(mount) => mount.source.into_iter().chain([mount.target]).collect(),
        MountWish::Text(text) if text.contains('=') && !text.starts_with('/') => text
            .split(',')
            .filter_map(|part| part.split_once('='))
            .filter(|(key, _)| matches!(*key, "source" | "src" | "target" | "dst" | "destination"))
            .map(|(_, value)| value.to_owned())
            .collect(),
        MountWish::Text(text) => text.split(':').take(2).map(str::to_owned).collect(),
    }
}

/// `PORT[-PORT][/PROTOCOL]`.
#[derive(Debug, PartialEq, Eq)]
struct PortRange {
    first: u16,
    last: u16,
    protocol: String,
}

impl PortRange {
    fn parse(text: &str) -> Result<PortRange> {
        let bad = || Fault::usage(format!("{text:?} is not PORT[-PORT][/PROTOCOL]"));
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let first: u16 = first.parse().map_err(|_| bad())?;
        let last: u16 = last.parse().map_err(|_| bad())?;
        if first > last || protocol.is_empty() {
            return Err(bad());
        }
        Ok(PortRange { first, last, protocol: protocol.to_ascii_lowercase() })
    }

    /// Whether it has a port in common with the range of `port` that begins at `first`.
    fn meets(&self, first: u16, port: &Port) -> bool {
        let last = first.saturating_add(port.count.unwrap_or(1).saturating_sub(1));
        self.protocol == port.protocol && first <= self.last && last >= self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cli::Kind;
    use record::{Container, Record};

    fn holds(filter: &str, record: &str) -> bool {
        let store = Store::at("/nonexistent", "/nonexistent");
        let record = Record::parse(record).unwrap();
        let container: Container = record.container().unwrap().unwrap_or_default();
        let item = Listed { record, container, created: None };
        Filters::parse(&[filter.to_owned()], &store).unwrap().hold(&item).unwrap()
    }

    #[test]
    fn wrong_filters_are_usage_errors() {
        let store = Store::at("/nonexistent", "/nonexistent");
        for bad in [
            "name",
            "colour=red",
            "status=happy",
            "health=good",
            "exited=x",
            "publish=x",
            "publish=9-8",
            "=x",
        ] {
            let fault = Filters::parse(&[bad.to_owned()], &store).unwrap_err();
            assert_eq!(fault.kind(), Kind::Usage, "{bad}");
        }
        let fault = Filters::parse(&["before=nobody".to_owned()], &store).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound);
    }

    #[test]
    fn names_ids_and_states() {
        let record = r#"{"container":{"id":"abc","name":"web-1","status":"exited","exit_code":3}}"#;
        for yes in [
            "name=web",
            "name=^web",
            "name=1$",
            "name=^web-1$",
            "name=/web",
            "id=bc",
            "exited=3",
            "status=exited",
        ] {
            assert!(holds(yes, record), "{yes}");
        }
        for no in ["name=^eb", "name=web$", "id=^bc", "exited=0", "status=running"] {
            assert!(!holds(no, record), "{no}");
        }
    }

    #[test]
    fn health() {
        let record = r#"{"container":{"id":"abc","name":"w","health":{"status":"unhealthy"}}}"#;
        assert!(
            holds("health=unhealthy", record)
                && !holds("health=healthy", record)
                && !holds("health=none", record)
        );
        assert!(holds("health=none", r#"{"container":{"id":"abc","name":"w"}}"#));
    }

    #[test]
    fn labels_images_and_mounts() {
        let record = r#"{"image":{"reference":"docker.io/library/debian:latest","digest":"sha256:0123456789abcdef","config":{"config":{"Labels":{"os":"debian"},"ExposedPorts":{"53/udp":{}}}}},
            "config":{"labels":{"a":"b=c"},"mounts":["data:/var/lib:ro",{"type":"bind","source":"/src","target":"/dst"},"type=volume,src=named,dst=/there"],"network":"host"},
            "volumes":[{"name":"f00d","anonymous":true}],
            "networks":[{"name":"bridge","ports":[{"host":8000,"container":80,"count":10}]}]}"#;
        for yes in [
            "label=a",
            "label=a=b=c",
            "label=os=debian",
            "ancestor=debian",
            "ancestor=debian:latest",
            "ancestor=docker.io/library/debian",
            "ancestor=sha256:0123456789abcdef",
            "ancestor=0123456789ab",
            "volume=data",
            "volume=/var/lib",
            "volume=/src",
            "volume=/dst",
            "volume=named",
            "volume=/there",
            "volume=f00d",
            "network=bridge",
            "network=host",
            "publish=8009",
            "publish=7000-8000/tcp",
            "expose=80",
            "expose=53/udp",
        ] {
            assert!(holds(yes, record), "{yes}");
        }
        for no in [
            "label=b",
            "label=a=b",
            "ancestor=debian:12",
            "ancestor=ebian",
            "ancestor=0123",
            "volume=dat",
            "network=other",
            "publish=8010",
            "publish=8000/udp",
            "publish=80",
            "expose=53",
        ] {
            assert!(!holds(no, record), "{no}");
        }
    }
}
