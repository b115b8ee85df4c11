//! The table for people: docker's columns and wording.

use crate::{Listed, words};
use cli::Table;
use jiff::Timestamp;
use record::{Container, Port, Record};

const COMMAND_WIDTH: usize = 20;

pub fn of(listed: &[Listed], no_trunc: bool, now: Timestamp) -> Table {
    let mut table = Table::new(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    for item in listed {
        table.row([
            id(&item.container.id, no_trunc).to_owned(),
            image(&item.record),
            command(&item.record, no_trunc),
            item.created.map(|created| ago(created, now)).unwrap_or_default(),
            status(&item.container, now),
            ports(item),
            item.container.name.clone(),
        ]);
    }
    table
}

pub fn id(id: &str, whole: bool) -> &str {
    if whole { id } else { id.get(..12).unwrap_or(id) }
}

/// The reference as people write it, or the directory a container without an image has as its root.
fn image(record: &Record) -> String {
    if let Ok(Some(image)) = record.image() {
        if let Ok(reference) = oci::Reference::parse(&image.reference) {
            return reference.familiar();
        }
        if !image.reference.is_empty() {
            return image.reference;
        }
        return id(image.digest.trim_start_matches("sha256:"), false).to_owned();
    }
    let rootfs = record.rootfs().ok().flatten().and_then(|rootfs| rootfs.path);
    rootfs.or_else(|| record.config().ok()?.rootfs).unwrap_or_default()
}

/// What the container runs, by docker's rules: an entrypoint of the user's own drops the image's command.
fn command(record: &Record, whole: bool) -> String {
    let config = record.config().unwrap_or_default();
    let image = record.image().ok().flatten().map(|image| image.config).unwrap_or_default();
    let of_image = |pointer: &str| -> Vec<String> {
        let words = image.pointer(pointer).and_then(|value| value.as_array());
        words.into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let own_entrypoint = config.entrypoint.is_some();
    let mut words = config.entrypoint.unwrap_or_else(|| of_image("/config/Entrypoint"));
    words.retain(|word| !word.is_empty());
    words.extend(
        config.command.unwrap_or_else(|| if own_entrypoint { Vec::new() } else { of_image("/config/Cmd") }),
    );
    let text = words.join(" ");
    let text = if whole || text.chars().count() <= COMMAND_WIDTH {
        text
    } else {
        text.chars().take(COMMAND_WIDTH - 1).chain(['…']).collect()
    };
    format!("\"{text}\"")
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", words::duration(now.as_second() - then.as_second()))
}

fn status(container: &Container, now: Timestamp) -> String {
    let parse = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    let ended = || {
        let code = container.exit_code.map(|code| format!(" ({code})")).unwrap_or_default();
        let when = parse(&container.finished_at).map(|then| format!(" {}", ago(then, now)));
        code + &when.unwrap_or_default()
    };
    let up = || match parse(&container.started_at) {
        Some(then) => format!("Up {}", words::duration(now.as_second() - then.as_second())),
        None => "Up".to_owned(),
    };
    let health = || match container.health.as_ref().map(|health| health.status.as_str()) {
        None => String::new(),
        Some("starting") => " (health: starting)".to_owned(),
        Some(status) => format!(" ({status})"),
    };
    match container.status.as_deref().unwrap_or_default() {
        "running" => up() + &health(),
        "paused" => up() + " (Paused)",
        "restarting" => format!("Restarting{}", ended()),
        "exited" => format!("Exited{}", ended()),
        "created" => "Created".to_owned(),
        "dead" => "Dead".to_owned(),
        other => other.to_owned(),
    }
}

/// The ports that lead to it: none once it has ended.
fn ports(item: &Listed) -> String {
    if matches!(item.container.status.as_deref(), Some("exited" | "dead")) {
        return String::new();
    }
    let attachments = item.record.networks().unwrap_or_default();
    let mut texts: Vec<String> = Vec::new();
    for attachment in &attachments {
        for port in &attachment.ports {
            for address in attachment.host_addresses(port) {
                let text = one(port, address);
                // Published on several networks.
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
        }
    }
    texts.join(", ")
}

/// A port or a range, at an address of the host.
fn one(port: &Port, address: &str) -> String {
    let range = |first: u16| match port.count {
        Some(count) if count > 1 => format!("{first}-{}", u32::from(first) + u32::from(count) - 1),
        _ => first.to_string(),
    };
    let inside = format!("{}/{}", range(port.container), port.protocol);
    match port.host {
        Some(host) if address.contains(':') => format!("[{address}]:{}->{inside}", range(host)),
        Some(host) => format!("{address}:{}->{inside}", range(host)),
        None => inside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Record {
        Record::parse(text).unwrap()
    }

    #[test]
    fn commands_as_docker_puts_them_together() {
        let image = r#""image":{"reference":"docker.io/library/web:1","digest":"d","config":{"config":{"Entrypoint":["/entry.sh"],"Cmd":["serve"]}}}"#;
        let with = |config: &str| parse(&format!("{{{image},\"config\":{config}}}"));
        assert_eq!(command(&with("{}"), false), "\"/entry.sh serve\"");
        assert_eq!(command(&with(r#"{"command":["x"]}"#), false), "\"/entry.sh x\"");
        assert_eq!(command(&with(r#"{"entrypoint":["sh"]}"#), false), "\"sh\"");
        assert_eq!(command(&with(r#"{"entrypoint":[""],"command":["x"]}"#), false), "\"x\"");
        assert_eq!(command(&with(r#"{"command":["0123456789abcdef"]}"#), false), "\"/entry.sh 012345678…\"");
        assert_eq!(super::image(&with("{}")), "web:1");
        assert_eq!(super::image(&parse(r#"{"config":{"rootfs":"/srv/x"}}"#)), "/srv/x");
    }

    #[test]
    fn states_in_words() {
        let now: Timestamp = "2026-01-02T05:00:00Z".parse().unwrap();
        let container = |status: &str| Container {
            status: Some(status.into()),
            started_at: Some("2026-01-02T04:57:00.123456789Z".into()),
            finished_at: Some("2026-01-02T03:00:00Z".into()),
            exit_code: Some(137).filter(|_| status != "running"),
            ..Container::default()
        };
        assert_eq!(status(&container("running"), now), "Up 3 minutes");
        let health = |status: &str| record::Health { status: status.into(), ..record::Health::default() };
        let with = |status| Container { health: Some(health(status)), ..container("running") };
        assert_eq!(status(&with("starting"), now), "Up 3 minutes (health: starting)");
        assert_eq!(status(&with("unhealthy"), now), "Up 3 minutes (unhealthy)");
        assert_eq!(status(&container("paused"), now), "Up 3 minutes (Paused)");
        assert_eq!(status(&container("exited"), now), "Exited (137) 2 hours ago");
        assert_eq!(status(&container("created"), now), "Created");
        let cut_off = Container { finished_at: None, ..container("exited") };
        assert_eq!(status(&cut_off, now), "Exited (137)");
    }

    #[test]
    fn ports_and_ranges() {
        let on = |addresses: &str, text: &str| {
            let attachment = format!(r#"{{"name":"web","addresses":{addresses},"ports":[{text}]}}"#);
            // Of two networks it is the same port.
            let record = parse(&format!(r#"{{"networks":[{attachment},{attachment}]}}"#));
            ports(&Listed { record, container: Container::default(), created: None })
        };
        let port = |text: &str| on(r#"["10.89.0.2/16"]"#, text);
        assert_eq!(port(r#"{"host":8080,"container":80}"#), "0.0.0.0:8080->80/tcp");
        let any = r#"{"host":8080,"container":80}"#;
        assert_eq!(on(r#"["10.89.0.2/16","fd00::2/64"]"#, any), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        assert_eq!(on(r#"["fd00::2/64"]"#, any), "[::]:8080->80/tcp");
        assert_eq!(on("[]", any), "0.0.0.0:8080->80/tcp");
        assert_eq!(port(r#"{"ip":"::1","host":53,"container":53,"protocol":"udp"}"#), "[::1]:53->53/udp");
        assert_eq!(
            port(r#"{"ip":"127.0.0.1","host":8000,"container":65535,"count":3}"#),
            "127.0.0.1:8000-8002->65535-65537/tcp"
        );
        assert_eq!(port(r#"{"container":80}"#), "80/tcp");
    }
}
