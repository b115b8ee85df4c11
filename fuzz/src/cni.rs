//! What CNI plugins answer, the configurations they are run by, and what a runtime asks of us as one.
//!
//! Input: JSON of an answer, an error, a configuration or a list of them.

use ::cni::{Attachment, Command, Configuration, Refusal, Request, Runtime, Success, Version};
use fault::Kind;
use std::path::PathBuf;
use std::time::Duration;

pub fn check(data: &[u8]) {
    configuration(data);
    if let Some(refusal) = Refusal::parse(data) {
        plain(&refusal.fault().to_string());
        for version in Version::ALL {
            assert!(refusal.to_value(version).is_object());
        }
    }
    if let Ok(answer) = serde_json::from_slice(data) {
        for version in Version::ALL {
            match Success::parse(&answer, version) {
                Ok(success) => success_of(&success),
                Err(fault) => plain(&fault.to_string()),
            }
        }
    }
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
        request(command, data);
    }
}

/// What is kept of a configuration is that configuration.
fn configuration(data: &[u8]) {
    let configuration = match Configuration::parse(data) {
        Ok(configuration) => configuration,
        Err(fault) => {
            assert_eq!(fault.kind(), Kind::Input, "{fault}");
            return plain(&fault.to_string());
        }
    };
    assert!((1..=64).contains(&configuration.plugins().len()));
    for plugin in configuration.plugins() {
        assert!(::cni::is_plugin_name(&plugin.name), "{}", plugin.name);
    }
    let kept = Configuration::from_value(configuration.to_value()).expect("what was kept");
    assert_eq!((&kept.name, kept.plugins()), (&configuration.name, configuration.plugins()));
    assert_eq!(kept.to_value(), configuration.to_value());
    // There is no folder with plugins, so nothing is run.
    let runtime = Runtime {
        path: vec![PathBuf::from("/nonexistent")],
        time_limit: Duration::from_secs(1),
        lacks: |_, _| false,
    };
    let attachment = Attachment {
        container: "c",
        namespace: "/proc/self/ns/net",
        interface: "eth0",
        arguments: &[],
        capabilities: serde_json::Map::new(),
    };
    assert!(runtime.add(&configuration, &attachment).is_err());
}

fn success_of(success: &Success) {
    let counts = [success.interfaces.len(), success.ips.len(), success.routes.len()];
    assert!(counts.into_iter().all(|count| count <= 1024));
    let _ = (success.inside("eth0"), success.outside(), success.addresses("eth0").count());
    for version in Version::ALL {
        let said = success.to_value(version);
        let again = Success::parse(&said, version).expect("its own answer");
        // What an old version cannot say is lost once, not twice.
        assert_eq!(again.to_value(version), said);
    }
}

fn request(command: &str, data: &[u8]) {
    let environment = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_CONTAINERID" => "c",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/proc/self/ns/net",
            "CNI_ARGS" => "IgnoreUnknown=1;A=b",
            _ => return None,
        };
        Some(value.to_owned())
    };
    match Request::parse(environment, data) {
        Ok(request) => {
            let _ = (request.text("name"), request.capability("ips"));
            if let Ok(Some(previous)) = request.previous() {
                success_of(&previous);
            }
            assert!(
                request.command == Command::Gc || request.valid_attachments().is_err() || data.len() > 30
            );
        }
        Err(refusal) => plain(&refusal.fault().to_string()),
    }
}

/// Nothing of a plugin's reaches a terminal as a command to it.
fn plain(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
