//! Being a plugin: what its runtime asks (specification, "Parameters").

use crate::configuration::{check_container, check_interface};
use crate::refusal::code;
use crate::{Refusal, Success, Version, shown};
use fault::Fault;
use serde_json::{Map, Value};

/// More than any runtime hands over.
const LARGEST_CONFIGURATION_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// What a plugin is asked. Parameters a command has not are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub command: Command,
    pub container: String,
    /// Path of the network namespace. May be empty for `DEL`.
    pub namespace: String,
    pub interface: String,
    pub arguments: Vec<(String, String)>,
    pub version: Version,
    pub configuration: Map<String, Value>,
}

impl Command {
    fn parse(name: &str) -> Option<Command> {
        Some(match name {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            _ => return None,
        })
    }
}

impl Request {
    /// Reads a request from its environment and the standard input's content. The error is what the plugin answers.
    pub fn parse(environment: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<Request, Refusal> {
        let command = environment("CNI_COMMAND").unwrap_or_default();
        let command = Command::parse(&command).ok_or_else(|| invalid("CNI_COMMAND", &command))?;
        let configuration = configuration(input)?;
        let version = version(&configuration, command)?;
        let mut request = Request {
            command,
            container: String::new(),
            namespace: String::new(),
            interface: String::new(),
            arguments: Vec::new(),
            version,
            configuration,
        };
        if matches!(command, Command::Add | Command::Del | Command::Check) {
            request.container = required(&environment, "CNI_CONTAINERID", |id| check_container(id).is_ok())?;
            request.interface = required(&environment, "CNI_IFNAME", |name| check_interface(name).is_ok())?;
            request.namespace = match environment("CNI_NETNS").unwrap_or_default() {
                path if path.is_empty() && command == Command::Del => path,
                path if path.starts_with('/') && !path.contains('\0') => path,
                path => return Err(invalid("CNI_NETNS", &path)),
            };
            request.arguments = arguments(&environment("CNI_ARGS").unwrap_or_default())?;
        }
        Ok(request)
    }

    /// A member of the configuration that is text. Refuses one that is something else.
    pub fn text(&self, member: &str) -> Result<Option<&str>, Refusal> {
        match self.configuration.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(refusal(code::INVALID_CONFIGURATION, format!("{member} is no string"))),
        }
    }

    /// A member of `runtimeConfig`.
    pub fn capability(&self, capability: &str) -> Option<&Value> {
        self.configuration.get("runtimeConfig")?.get(capability).filter(|value| !value.is_null())
    }

    /// The result of what came before, or of `ADD`.
    pub fn previous(&self) -> Result<Option<Success>, Refusal> {
        match self.configuration.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(previous) => Success::parse(previous, self.version)
                .map(Some)
                .map_err(|fault| refusal(code::DECODING_FAILURE, format!("prevResult: {fault}"))),
        }
    }

    /// `cni.dev/valid-attachments`: container and interface of each.
    pub fn valid_attachments(&self) -> Result<Vec<(String, String)>, Refusal> {
        let wrong =
            || refusal(code::INVALID_CONFIGURATION, "cni.dev/valid-attachments is no list of attachments");
        let text = |value: &Value, member: &str| value.get(member)?.as_str().map(str::to_owned);
        // Without it everything would be stale.
        let Some(Value::Array(list)) = self.configuration.get("cni.dev/valid-attachments") else {
            return Err(wrong());
        };
        let pairs = list.iter().map(|value| Some((text(value, "containerID")?, text(value, "ifname")?)));
        pairs.collect::<Option<_>>().ok_or_else(wrong)
    }
}

fn configuration(input: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if input.len() > LARGEST_CONFIGURATION_BYTES {
        return Err(refusal(code::DECODING_FAILURE, "a network configuration of more than 1 MiB"));
    }
    match serde_json::from_slice(input) {
        Ok(Value::Object(configuration)) => Ok(configuration),
        Ok(_) => Err(refusal(code::DECODING_FAILURE, "the network configuration is no JSON object")),
        Err(error) => Err(refusal(code::DECODING_FAILURE, format!("the network configuration: {error}"))),
    }
}

/// Whoever asks for the versions may speak one that is not known.
fn version(configuration: &Map<String, Value>, command: Command) -> Result<Version, Refusal> {
    let text = configuration.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
    match Version::parse(text) {
        Ok(version) => Ok(version),
        Err(_) if command == Command::Version => Ok(Version::NEWEST),
        Err(fault) => Err(Refusal {
            code: code::INCOMPATIBLE_VERSION,
            msg: fault.to_string(),
            details: fault.hint_text().unwrap_or_default().to_owned(),
        }),
    }
}

fn required(
    environment: impl Fn(&str) -> Option<String>,
    name: &str,
    is_valid: impl Fn(&str) -> bool,
) -> Result<String, Refusal> {
    let value = environment(name).unwrap_or_default();
    if is_valid(&value) { Ok(value) } else { Err(invalid(name, &value)) }
}

fn arguments(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
    pairs.collect::<Option<_>>().ok_or_else(|| invalid("CNI_ARGS", text))
}

fn invalid(name: &str, value: &str) -> Refusal {
    refusal(code::INVALID_ENVIRONMENT, format!("{name}: \"{}\" is not valid", shown(value)))
}

fn refusal(code: u64, msg: impl Into<String>) -> Refusal {
    Refusal { code, msg: msg.into(), details: String::new() }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::of(&fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&str, &str)], input: &str) -> Result<Request, Refusal> {
        let find =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Request::parse(find, input.as_bytes())
    }

    const ADD: [(&str, &str); 4] =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0")];

    #[test]
    fn a_request_is_read_whole() {
        let input = r#"{"cniVersion":"1.0.0","name":"web","runtimeConfig":{"mac":"x"},"prevResult":null}"#;
        let mut pairs = ADD.to_vec();
        pairs.push(("CNI_ARGS", "IgnoreUnknown=1;A=b=c;"));
        let request = ask(&pairs, input).unwrap();
        assert_eq!(request.command, Command::Add);
        assert_eq!(request.text("name").unwrap(), Some("web"));
        assert_eq!(request.capability("mac").unwrap(), "x");
        assert_eq!(request.arguments[1], ("A".to_owned(), "b=c".to_owned()));
        assert_eq!(request.previous().unwrap(), None);
        assert_eq!(request.valid_attachments().unwrap_err().code, code::INVALID_CONFIGURATION);
    }

    #[test]
    fn what_is_wrong_is_refused_by_number() {
        let with = |name: &str, value: &'static str| {
            let mut pairs = ADD.to_vec();
            pairs.iter_mut().filter(|(key, _)| *key == name).for_each(|(_, old)| *old = value);
            ask(&pairs, r#"{"cniVersion":"1.0.0"}"#)
        };
        for (name, value) in [
            ("CNI_COMMAND", "add"),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_CONTAINERID", ""),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "sixteen-letters-"),
            ("CNI_NETNS", ""),
            ("CNI_NETNS", "relative"),
        ] {
            let refusal = with(name, value).unwrap_err();
            assert_eq!(refusal.code, code::INVALID_ENVIRONMENT);
            assert!(refusal.msg.contains(name), "{}", refusal.msg);
        }
        assert_eq!(ask(&ADD, "{").unwrap_err().code, code::DECODING_FAILURE);
        assert_eq!(ask(&ADD, "[]").unwrap_err().code, code::DECODING_FAILURE);
        assert_eq!(ask(&ADD, r#"{"cniVersion":"7.0.0"}"#).unwrap_err().code, code::INCOMPATIBLE_VERSION);
        let version = ask(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"7.0.0"}"#).unwrap();
        assert_eq!(version.version, Version::NEWEST);
        let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        assert_eq!(ask(&del, "{}").unwrap().namespace, "");
    }
}
