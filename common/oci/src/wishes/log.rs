//! `--log-driver` and `--log-opt`: docker's drivers and the options of each, checked.

use super::modes::unknown;
use fault::{Fault, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a container's output is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWish {
    pub driver: LogDriver,
    /// What a driver that has to wait for somebody may hold meanwhile, in bytes, before it drops what is new; `None`: the
    /// container waits instead (`mode=blocking`).
    pub most_buffered: Option<u64>,
    pub attributes: LogAttributes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDriver {
    /// `json-file` and `local`, which differ in what they do unless told.
    Files(LogFiles),
    Journald,
    Syslog(Syslog),
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// Bytes after which a new file is begun; `None`: never.
    pub max_size: Option<u64>,
    /// How many files are kept, the present one included.
    pub max_files: u32,
    /// Whether the files that are not written to any more are compressed (gzip, RFC 1952).
    pub compress: bool,
    /// Another place than the container's directory.
    pub path: Option<PathBuf>,
}

/// What is noted beside each message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogAttributes {
    /// Of these labels those the container has.
    pub labels: Vec<String>,
    /// Of these variables those the container has.
    pub env: Vec<String>,
    /// Checked, with docker's fields in it: see [`tag`].
    pub tag: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    pub address: SyslogAddress,
    pub format: SyslogFormat,
    /// RFC 5424, 6.2.1: 0 to 23.
    pub facility: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// `/dev/log`, or where else the machine's own daemon listens.
    Local,
    /// Host and port.
    Udp(String, u16),
    Tcp(String, u16),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogFormat {
    /// What the C library's syslog(3) sends.
    Local,
    Rfc3164,
    Rfc5424 {
        /// With a fraction of a second.
        micro: bool,
    },
}

/// What docker's tags may have between `{{` and `}}`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TagFields<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub image_id: &'a str,
    pub image_name: &'a str,
    pub command: &'a str,
}

/// Docker's default (`daemon/logger/jsonfilelog`, `local`).
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;
const MOST_BUFFERED: u64 = 1 << 20;
const DRIVERS: &str = "json-file, local, journald, syslog, passthrough, none";

impl Default for LogWish {
    fn default() -> LogWish {
        let files = LogFiles { max_size: None, max_files: 1, compress: false, path: None };
        LogWish { driver: LogDriver::Files(files), most_buffered: None, attributes: LogAttributes::default() }
    }
}

impl LogWish {
    pub fn parse(driver: Option<&str>, options: &BTreeMap<String, String>) -> Result<LogWish> {
        let name = driver.filter(|name| !name.is_empty()).unwrap_or("json-file");
        let known: &[&str] = match name {
            // k8s-file is podman's default, and its word for a log in files.
            "json-file" | "k8s-file" => &[
                "max-size",
                "max-file",
                "compress",
                "path",
                "labels",
                "env",
                "tag",
                "mode",
                "max-buffer-size",
            ],
            "local" => &["max-size", "max-file", "compress", "mode", "max-buffer-size"],
            "journald" => &["labels", "env", "tag", "mode", "max-buffer-size"],
            "syslog" => &[
                "syslog-address",
                "syslog-facility",
                "syslog-format",
                "labels",
                "env",
                "tag",
                "mode",
                "max-buffer-size",
            ],
            // Kept nowhere, passed on to who is attached: ctr-start --attach, and in a service so to the journal.
            "none" | "passthrough" => &[],
            "passthrough-tty" => {
                return Err(Fault::input(
                    "the log driver passthrough-tty is not supported: stdout of the tools carries records",
                )
                .hint("instead: --tty --log-driver none, and ctr-start --attach"));
            }
            "fluentd" | "gelf" | "awslogs" | "splunk" | "gcplogs" | "etwlogs" => {
                return Err(Fault::input(format!("the log driver {name} is not supported"))
                    .hint(format!("one of: {DRIVERS}; a service can read ctr-logs -f --output json, too")));
            }
            other => return Err(unknown("log driver", other, DRIVERS)),
        };
        for option in options.keys() {
            if !known.contains(&option.as_str()) {
                return Err(no_option(name, option, known));
            }
        }
        let get = |option: &str| options.get(option).map(String::as_str);
        let driver = match name {
            "none" | "passthrough" => LogDriver::None,
            "journald" => LogDriver::Journald,
            "syslog" => LogDriver::Syslog(syslog(&get)?),
            name => LogDriver::Files(files(name == "local", &get)?),
        };
        Ok(LogWish { driver, most_buffered: mode(&get)?, attributes: attributes(&get)? })
    }
}

type Options<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

fn no_option(driver: &str, option: &str, known: &[&str]) -> Fault {
    let fault = Fault::input(format!("the log driver {driver} has no option \"{option}\""));
    match option {
        "labels-regex" | "env-regex" => {
            fault.hint(format!("name them one by one: --log-opt {}=A,B", &option[..option.len() - 6]))
        }
        _ if option.starts_with("syslog-tls") => {
            fault.hint("TLS is not supported: let the machine's own daemon pass messages on")
        }
        _ if known.is_empty() => fault,
        _ => fault.hint(format!("there are {}", known.join(", "))),
    }
}

fn wrong(option: &str, value: &str, wanted: &str) -> Fault {
    Fault::input(format!("log option {option}: \"{value}\" is not {wanted}"))
}

fn size(option: &str, value: &str) -> Result<u64> {
    match super::bytes(value).map_err(|fault| fault.within(format!("log option {option}")))? {
        0 => Err(Fault::input(format!("log option {option}: it must be greater than 0"))),
        size => Ok(size),
    }
}

fn truth(option: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        other => Err(wrong(option, other, "true or false")),
    }
}

fn files(local: bool, get: &Options<'_>) -> Result<LogFiles> {
    let max_size = match get("max-size") {
        // -1 is docker's "unlimited".
        Some("-1") => None,
        Some(value) => Some(size("max-size", value)?),
        None => local.then_some(LOCAL_SIZE),
    };
    let max_files = match get("max-file") {
        Some(value) => value
            .parse()
            .ok()
            .filter(|count| (1..=1000).contains(count))
            .ok_or_else(|| wrong("max-file", value, "a number from 1 to 1000"))?,
        None if local => LOCAL_FILES,
        None => 1,
    };
    if max_size.is_none() && (max_files > 1 && get("max-file").is_some()) {
        return Err(Fault::input("log option max-file needs max-size too"));
    }
    let asked = get("compress").map(|value| truth("compress", value)).transpose()?;
    if asked == Some(true) && (max_size.is_none() || max_files < 2) {
        return Err(Fault::input(
            "log option compress needs max-size, and max-file of at least 2: nothing else is compressed",
        ));
    }
    let path = match get("path") {
        Some(path) if !path.starts_with('/') || path.ends_with('/') => {
            return Err(wrong("path", path, "a file's absolute path"));
        }
        path => path.map(PathBuf::from),
    };
    Ok(LogFiles { max_size, max_files, compress: asked.unwrap_or(local && max_files > 1), path })
}

fn mode(get: &Options<'_>) -> Result<Option<u64>> {
    let most = get("max-buffer-size").map(|value| size("max-buffer-size", value)).transpose()?;
    match (get("mode"), most) {
        (Some("non-blocking"), most) => Ok(Some(most.unwrap_or(MOST_BUFFERED))),
        (None | Some("blocking"), None) => Ok(None),
        (None | Some("blocking"), Some(_)) => {
            Err(Fault::input("log option max-buffer-size needs mode=non-blocking too"))
        }
        (Some(other), _) => Err(wrong("mode", other, "blocking or non-blocking")),
    }
}

fn attributes(get: &Options<'_>) -> Result<LogAttributes> {
    let list = |option: &str| -> Vec<String> {
        let names = get(option).unwrap_or_default().split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let tag_text = get("tag").map(str::to_owned);
    if let Some(text) = &tag_text {
        tag(text, &TagFields::default())?;
    }
    Ok(LogAttributes { labels: list("labels"), env: list("env"), tag: tag_text })
}

/// A tag with its fields filled in: docker's template of `{{.ID}}`, `{{.FullID}}`, `{{.Name}}`, `{{.ImageID}}`,
/// `{{.ImageFullID}}`, `{{.ImageName}}`, `{{.Command}}` and `{{.DaemonName}}`.
pub fn tag(text: &str, fields: &TagFields<'_>) -> Result<String> {
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let unended = || wrong("tag", text, "a tag: {{ has no }}");
        let (field, after) = after.split_once("}}").ok_or_else(unended)?;
        out.push_str(before);
        rest = after;
        match field.trim() {
            ".ID" => out.push_str(&short(fields.id)),
            ".FullID" => out.push_str(fields.id),
            ".Name" => out.push_str(fields.name),
            ".ImageID" => out.push_str(&short(fields.image_id)),
            ".ImageFullID" => out.push_str(fields.image_id),
            ".ImageName" => out.push_str(fields.image_name),
            ".Command" => out.push_str(fields.command),
            // There is no daemon; docker's own name stands in scripts that look for it.
            ".DaemonName" => out.push_str("staves"),
            other => {
                return Err(wrong("tag", other, "a field of a tag").hint(
                    "there are .ID .FullID .Name .ImageID .ImageFullID .ImageName .Command .DaemonName",
                ));
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn syslog(get: &Options<'_>) -> Result<Syslog> {
    let address = get("syslog-address").map_or(Ok(SyslogAddress::Local), syslog_address)?;
    let format = match get("syslog-format").unwrap_or_default() {
        "" => SyslogFormat::Local,
        "rfc3164" => SyslogFormat::Rfc3164,
        "rfc5424" => SyslogFormat::Rfc5424 { micro: false },
        "rfc5424micro" => SyslogFormat::Rfc5424 { micro: true },
        other => return Err(wrong("syslog-format", other, "one of rfc3164, rfc5424, rfc5424micro")),
    };
    Ok(Syslog { address, format, facility: facility(get("syslog-facility").unwrap_or("daemon"))? })
}

/// `FORM://…`, docker's.
fn syslog_address(text: &str) -> Result<SyslogAddress> {
    let malformed = || {
        wrong("syslog-address", text, "an address")
            .hint("udp://HOST:PORT, tcp://HOST:PORT, unix:///PATH or unixgram:///PATH")
    };
    let (form, rest) = text.split_once("://").ok_or_else(malformed)?;
    let path = || match rest {
        path if path.starts_with('/') && path.len() < 108 => Ok(PathBuf::from(path)),
        _ => Err(malformed()),
    };
    let host = || {
        // An IPv6 address is in brackets: its colons are none before a port.
        let in_brackets = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, port) = match in_brackets {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some("514"))),
            None => rest.split_once(':').map_or((rest, Some("514")), |(host, port)| (host, Some(port))),
        };
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0).ok_or_else(malformed)?;
        if host.is_empty() { Err(malformed()) } else { Ok((host.to_owned(), port)) }
    };
    Ok(match form {
        "udp" => host().map(|(host, port)| SyslogAddress::Udp(host, port))?,
        "tcp" => host().map(|(host, port)| SyslogAddress::Tcp(host, port))?,
        "unix" => SyslogAddress::Unix(path()?),
        "unixgram" => SyslogAddress::UnixDatagram(path()?),
        "tcp+tls" => {
            return Err(Fault::input("log option syslog-address: TLS is not supported")
                .hint("tcp:// or udp:// to the machine's own daemon, which passes messages on by TLS"));
        }
        _ => return Err(malformed()),
    })
}

/// RFC 5424, 6.2.1, by docker's names or the number.
fn facility(text: &str) -> Result<u8> {
    const NAMES: [&str; 24] = [
        "kern",
        "user",
        "mail",
        "daemon",
        "auth",
        "syslog",
        "lpr",
        "news",
        "uucp",
        "cron",
        "authpriv",
        "ftp",
        "ntp",
        "security",
        "console",
        "solaris-cron",
        "local0",
        "local1",
        "local2",
        "local3",
        "local4",
        "local5",
        "local6",
        "local7",
    ];
    let named = NAMES.iter().position(|name| *name == text).and_then(|number| u8::try_from(number).ok());
    named.or_else(|| text.parse().ok().filter(|number| *number < 24)).ok_or_else(|| {
        wrong("syslog-facility", text, "a facility")
            .hint("daemon, user, local0 … local7, or a number from 0 to 23")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: &str, options: &[(&str, &str)]) -> Result<LogWish> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogWish::parse(Some(driver), &options)
    }

    fn files(driver: &str, options: &[(&str, &str)]) -> LogFiles {
        match parse(driver, options).unwrap().driver {
            LogDriver::Files(files) => files,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_and_their_defaults() {
        assert_eq!(LogWish::parse(None, &BTreeMap::new()).unwrap(), LogWish::default());
        let with = |max_size, max_files, compress| LogFiles { max_size, max_files, compress, path: None };
        assert_eq!(
            files("json-file", &[("max-size", "10m"), ("max-file", "3")]),
            with(Some(10 << 20), 3, false)
        );
        assert_eq!(files("local", &[]), with(Some(20 << 20), 5, true));
        assert_eq!(files("local", &[("compress", "false")]), with(Some(20 << 20), 5, false));
        assert_eq!(files("local", &[("max-file", "1")]), with(Some(20 << 20), 1, false));
        assert_eq!(files("json-file", &[("path", "/var/log/a")]).path, Some("/var/log/a".into()));
        let wish = parse("json-file", &[("labels", "a, b"), ("env", "C"), ("tag", "{{.Name}}")]).unwrap();
        assert_eq!(wish.attributes.labels, ["a", "b"]);
        let wish = parse("syslog", &[("mode", "non-blocking"), ("max-buffer-size", "4m")]).unwrap();
        assert_eq!(wish.most_buffered, Some(4 << 20));
        assert_eq!(parse("local", &[("mode", "non-blocking")]).unwrap().most_buffered, Some(1 << 20));
    }

    #[test]
    fn syslog_addresses() {
        let address = |text: &str| match parse("syslog", &[("syslog-address", text)]).map(|wish| wish.driver)
        {
            Ok(LogDriver::Syslog(syslog)) => Some(syslog.address),
            _ => None,
        };
        assert_eq!(address("udp://a"), Some(SyslogAddress::Udp("a".into(), 514)));
        assert_eq!(address("tcp://a:1"), Some(SyslogAddress::Tcp("a".into(), 1)));
        assert_eq!(address("udp://[::1]:5"), Some(SyslogAddress::Udp("::1".into(), 5)));
        assert_eq!(address("unix:///a"), Some(SyslogAddress::Unix("/a".into())));
        assert_eq!(address("unixgram:///a"), Some(SyslogAddress::UnixDatagram("/a".into())));
        for wrong in [
            "",
            "a",
            "udp://",
            "udp://a:0",
            "udp://a:x",
            "unix://a",
            "tcp+tls://a:1",
            "http://a",
            "udp://[::1",
        ] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
        assert_eq!((facility("local7").unwrap(), facility("5").unwrap()), (23, 5));
        assert!(facility("24").is_err() && facility("x").is_err());
    }

    #[test]
    fn tags() {
        let id = "0123456789abcdef";
        let fields = TagFields { id, name: "web", image_id: "sha256:fedcba98765432", ..TagFields::default() };
        let filled = |text| tag(text, &fields).unwrap();
        assert_eq!(filled("{{.ID}}/{{ .Name }}/{{.ImageID}}!"), "0123456789ab/web/fedcba987654!");
        assert_eq!(filled("plain }} text"), "plain }} text");
        assert!(tag("{{.Nonsense}}", &fields).is_err() && tag("{{.ID", &fields).is_err());
    }

    #[test]
    fn what_is_refused() {
        for (driver, options) in [
            ("fluentd", &[][..]),
            ("x", &[]),
            ("passthrough-tty", &[]),
            ("passthrough", &[("tag", "x")]),
            ("none", &[("max-size", "1m")]),
            ("json-file", &[("labels-regex", "x")]),
            ("json-file", &[("max-file", "3")]),
            ("json-file", &[("max-size", "x")]),
            ("json-file", &[("max-size", "0")]),
            ("json-file", &[("max-size", "1m"), ("max-file", "0")]),
            ("json-file", &[("compress", "true")]),
            ("json-file", &[("path", "log")]),
            ("json-file", &[("tag", "{{.X}}")]),
            ("json-file", &[("mode", "x")]),
            ("json-file", &[("max-buffer-size", "1m")]),
            ("local", &[("tag", "x")]),
            ("journald", &[("max-size", "1m")]),
            ("syslog", &[("syslog-tls-cert", "x")]),
            ("syslog", &[("syslog-format", "x")]),
        ] {
            assert!(parse(driver, options).is_err(), "{driver:?} {options:?}");
        }
    }
}
