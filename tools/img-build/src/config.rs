//! Instructions that say something of the image and change no file.

use dockerfile::instruction::Healthcheck;
use dockerfile::scope::Change;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Writes a change into an image's configuration. `env` is the whole environment of the image.
pub fn apply(config: &mut Value, change: &Change, env: &[String]) {
    if let Change::Maintainer(author) = change {
        config["author"] = json!(author);
        return;
    }
    if !config["config"].is_object() {
        config["config"] = json!({});
    }
    let Some(process) = config["config"].as_object_mut() else { return };
    match change {
        Change::Env(_) => set(process, "Env", json!(env)),
        Change::Label(pairs) => {
            add(process, "Labels", pairs.iter().map(|(name, value)| (name, json!(value))));
        }
        Change::Cmd(argv) => {
            set(process, "Cmd", json!(argv));
            // Of no meaning on Linux; docker has written it since it knew windows.
            set(process, "ArgsEscaped", Value::Bool(true));
        }
        Change::Entrypoint { argv, resets_cmd } => {
            set(process, "Entrypoint", json!(argv));
            if *resets_cmd {
                set(process, "Cmd", Value::Null);
            }
        }
        Change::Expose(ports) => add(process, "ExposedPorts", ports.iter().map(|port| (port, json!({})))),
        Change::User(user) => set(process, "User", json!(user)),
        Change::Volume(paths) => add(process, "Volumes", paths.iter().map(|path| (path, json!({})))),
        Change::StopSignal(signal) => set(process, "StopSignal", json!(signal)),
        Change::Shell(argv) => set(process, "Shell", json!(argv)),
        Change::Healthcheck(check) => set(process, "Healthcheck", healthcheck(check)),
        Change::Onbuild(trigger) => {
            let mut triggers = process.get("OnBuild").and_then(Value::as_array).cloned().unwrap_or_default();
            triggers.push(json!(trigger));
            set(process, "OnBuild", Value::Array(triggers));
        }
        Change::Maintainer(_) => {}
    }
}

/// Null takes it away.
fn set(process: &mut Map<String, Value>, member: &str, value: Value) {
    if value.is_null() {
        process.shift_remove(member);
    } else {
        process.insert(member.to_owned(), value);
    }
}

fn add<'a>(process: &mut Map<String, Value>, member: &str, pairs: impl Iterator<Item = (&'a String, Value)>) {
    let mut all = process.get(member).and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, value) in pairs {
        all.insert(name.clone(), value);
    }
    // As docker writes maps: the same however they came about.
    all.sort_keys();
    set(process, member, Value::Object(all));
}

/// Durations are nanoseconds there; what was not given is left out.
fn healthcheck(check: &Healthcheck) -> Value {
    let mut members = Map::new();
    members.insert("Test".to_owned(), json!(check.test));
    let durations: [(&str, Duration); 4] = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, duration) in durations {
        if let Ok(nanoseconds) = u64::try_from(duration.as_nanos())
            && nanoseconds > 0
        {
            members.insert(name.to_owned(), json!(nanoseconds));
        }
    }
    if check.retries > 0 {
        members.insert("Retries".to_owned(), json!(check.retries));
    }
    Value::Object(members)
}
