//! Flags applied to an image configuration (OCI image spec, config.md; docker's own members beside it).
//!
//! The document is changed in place: what is not asked for stays, in its order.

use crate::Args;
use crate::value::{duration, key_value, ports, time, words};
use cli::{Fault, Result};
use oci::wishes;
use serde_json::{Map, Value, json};

/// Applies what is asked for to a configuration.
///
/// # Errors
/// [`fault::Kind::Usage`] for flags that say nothing possible, [`fault::Kind::Input`] for a member that is not of its kind.
pub fn apply(args: &Args, config: &mut Value) -> Result<()> {
    for member in &args.unset {
        unset(config, member)?;
    }
    crate::change::apply(&args.change, config)?;
    apply_image(args, config)?;
    apply_process(args, config)?;
    apply_declared(args, config)?;
    apply_health(args, config)
}

/// Members of the image as a whole.
fn apply_image(args: &Args, config: &mut Value) -> Result<()> {
    let texts = [
        ("author", &args.author),
        ("os", &args.os),
        ("architecture", &args.arch),
        ("variant", &args.variant),
    ];
    for (member, text) in texts {
        if let Some(text) = text {
            let may_be_empty = matches!(member, "author" | "variant");
            if text.is_empty() && !may_be_empty {
                return Err(Fault::usage(format!("an image's {member} may not be empty")));
            }
            root(config)?.insert(member.to_owned(), json!(text));
        }
    }
    if let Some(text) = &args.created {
        root(config)?.insert("created".to_owned(), json!(time(text)?));
    }
    Ok(())
}

fn apply_process(args: &Args, config: &mut Value) -> Result<()> {
    if !args.env.is_empty() {
        let mut env = texts(process(config)?.get("Env"), "Env")?;
        for variable in &args.env {
            wishes::env::env(variable).map_err(|fault| fault.as_kind(cli::Kind::Usage))?;
            if !variable.contains('=') {
                return Err(Fault::usage(format!("the variable {variable} has no value"))
                    .hint(format!("{variable}=… sets it, --unset env.{variable} takes it away")));
            }
            wishes::env::set(&mut env, variable);
        }
        process(config)?.insert("Env".to_owned(), json!(env));
    }
    for (member, text) in [("Entrypoint", &args.entrypoint), ("Cmd", &args.cmd), ("Shell", &args.shell)] {
        if let Some(text) = text {
            let words = words(text)?;
            process(config)?.insert(member.to_owned(), json!(words));
        }
    }
    if let Some(dir) = &args.workdir {
        absolute(dir)?;
        process(config)?.insert("WorkingDir".to_owned(), json!(dir));
    }
    if let Some(user) = &args.user {
        process(config)?.insert("User".to_owned(), json!(user));
    }
    if let Some(signal) = &args.stop_signal {
        wishes::signal(signal).map_err(|fault| fault.as_kind(cli::Kind::Usage))?;
        process(config)?.insert("StopSignal".to_owned(), json!(signal));
    }
    if !args.onbuild.is_empty() {
        let mut all = texts(process(config)?.get("OnBuild"), "OnBuild")?;
        // Asked for once more, it is there already.
        all.extend(args.onbuild.iter().filter(|one| !all.contains(one)).cloned().collect::<Vec<_>>());
        process(config)?.insert("OnBuild".to_owned(), json!(all));
    }
    Ok(())
}

/// Labels, ports and volumes: what is in a map.
fn apply_declared(args: &Args, config: &mut Value) -> Result<()> {
    for label in &args.label {
        let (key, value) = key_value(label, "label")?;
        map(config, "Labels")?.insert(key.to_owned(), json!(value));
    }
    for text in &args.expose {
        for port in ports(text)? {
            map(config, "ExposedPorts")?.entry(port).or_insert_with(|| json!({}));
        }
    }
    for dir in &args.volume {
        absolute(dir)?;
        map(config, "Volumes")?.entry(dir.as_str()).or_insert_with(|| json!({}));
    }
    Ok(())
}

fn apply_health(args: &Args, config: &mut Value) -> Result<()> {
    if args.no_healthcheck {
        process(config)?.insert("Healthcheck".to_owned(), json!({"Test": ["NONE"]}));
        return Ok(());
    }
    if let Some(command) = &args.health_cmd {
        map(config, "Healthcheck")?.insert("Test".to_owned(), json!(["CMD-SHELL", command]));
    }
    for (member, text) in [
        ("Interval", &args.health_interval),
        ("Timeout", &args.health_timeout),
        ("StartPeriod", &args.health_start_period),
        ("StartInterval", &args.health_start_interval),
    ] {
        if let Some(text) = text {
            let nanoseconds = duration(text)?;
            map(config, "Healthcheck")?.insert(member.to_owned(), json!(nanoseconds));
        }
    }
    if let Some(retries) = args.health_retries {
        map(config, "Healthcheck")?.insert("Retries".to_owned(), json!(retries));
    }
    Ok(())
}

fn unset(config: &mut Value, member: &str) -> Result<()> {
    let (kind, key) = member.split_once('.').map_or((member, None), |(kind, key)| (kind, Some(key)));
    let in_map = |config: &mut Value, name: &str, key: &str| -> Result<()> {
        if process(config)?.get(name).is_some_and(|value| !value.is_null()) {
            map(config, name)?.shift_remove(key);
        }
        Ok(())
    };
    match (kind, key) {
        ("env", Some(name)) => {
            if process(config)?.get("Env").is_some() {
                let mut env = texts(process(config)?.get("Env"), "Env")?;
                env.retain(|variable| {
                    variable.split_once('=').map_or(variable.as_str(), |(own, _)| own) != name
                });
                process(config)?.insert("Env".to_owned(), json!(env));
            }
        }
        ("label", Some(key)) => in_map(config, "Labels", key)?,
        ("volume", Some(dir)) => in_map(config, "Volumes", dir)?,
        ("expose", Some(text)) => {
            for port in ports(text)? {
                in_map(config, "ExposedPorts", &port)?;
            }
        }
        // Of the manifest.
        ("annotation", Some(_)) => {}
        ("author" | "variant", None) => {
            root(config)?.shift_remove(kind);
        }
        (_, None) => {
            let name = match kind {
                "entrypoint" => "Entrypoint",
                "cmd" => "Cmd",
                "user" => "User",
                "workdir" => "WorkingDir",
                "stop-signal" => "StopSignal",
                "healthcheck" => "Healthcheck",
                "onbuild" => "OnBuild",
                "shell" => "Shell",
                "env" => "Env",
                "label" => "Labels",
                "volume" => "Volumes",
                "expose" => "ExposedPorts",
                _ => return Err(unknown(member)),
            };
            process(config)?.shift_remove(name);
        }
        _ => return Err(unknown(member)),
    }
    Ok(())
}

fn unknown(member: &str) -> Fault {
    Fault::usage(format!("--unset {member}: there is no such member to take away")).hint(
        "env.NAME, label.KEY, annotation.KEY, expose.PORT, volume.PATH, entrypoint, cmd, user, workdir, stop-signal, healthcheck, \
         onbuild, shell, author, variant",
    )
}

/// The document itself.
pub fn root(config: &mut Value) -> Result<&mut Map<String, Value>> {
    config.as_object_mut().ok_or_else(|| Fault::input("the image configuration is no object"))
}

/// Its member `config`, made if it is not there.
pub fn process(config: &mut Value) -> Result<&mut Map<String, Value>> {
    object(root(config)?, "config", "config")
}

/// A map in there, made if it is not there.
fn map<'a>(config: &'a mut Value, member: &str) -> Result<&'a mut Map<String, Value>> {
    object(process(config)?, member, &format!("config.{member}"))
}

fn object<'a>(
    within: &'a mut Map<String, Value>,
    member: &str,
    path: &str,
) -> Result<&'a mut Map<String, Value>> {
    let value = within.entry(member).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .ok_or_else(|| Fault::input(format!("{path} of the image configuration is no object")))
}

fn texts(value: Option<&Value>, member: &str) -> Result<Vec<String>> {
    let wrong = || Fault::input(format!("config.{member} of the image configuration is no list of texts"));
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(all)) => {
            all.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn absolute(dir: &str) -> Result<()> {
    if dir.starts_with('/') && !dir.contains('\0') {
        return Ok(());
    }
    Err(Fault::usage(format!("{dir}: not an absolute path")))
}
