//! OCI hooks out of directories, as podman has them (oci-hooks(5)): which ones a container gets, and the stage `precreate`,
//! whose programs are filters of the specification.

use cli::{Explain, Fault, Kind, Result};
use record::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use sys::regex::Regex;

/// Of a file of one name, that in the later directory counts.
const DIRECTORIES: [&str; 2] = ["/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"];

/// Files of one directory, and bytes of one file.
const MAX_FILES: usize = 1000;
const MAX_BYTES: u64 = 1 << 20;

/// Longest specification a filter may print.
const MAX_SPEC: u64 = 16 << 20;

/// For filters that name no time, in seconds.
const FILTER_TIMEOUT: u64 = 10;

const STAGES: [&str; 7] =
    ["precreate", "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

#[derive(Debug, Deserialize)]
struct File {
    version: String,
    hook: Hook,
    when: When,
    stages: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Hook {
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct When {
    always: Option<bool>,
    annotations: BTreeMap<String, String>,
    commands: Vec<String>,
    has_bind_mounts: Option<bool>,
}

/// Puts the hooks that fit into a specification and lets the filters change it. `binds`: whether the user bound anything.
///
/// Fails on a file that is wrong, whatever it is about: a hook that is left out in silence may be the one that protects.
pub fn apply(mut spec: Value, config: &Config, binds: bool) -> Result<Value> {
    let hooks = read(config)?;
    let mut filters = Vec::new();
    for (path, file) in &hooks {
        let on = |fault: Fault| fault.within(format!("the hook of {}", path.display()));
        if !file.when.fits(&spec, config, binds).map_err(on)? {
            continue;
        }
        for stage in &file.stages {
            if stage == "precreate" {
                filters.push((path, &file.hook));
            } else {
                add(&mut spec, stage, &file.hook).map_err(on)?;
            }
        }
    }
    for (path, hook) in filters {
        spec = filter(&spec, hook)
            .map_err(|fault| fault.within(format!("the precreate hook of {}", path.display())))?;
    }
    Ok(spec)
}

/// By the names of their files.
fn read(config: &Config) -> Result<Vec<(PathBuf, File)>> {
    let mut paths: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for dir in DIRECTORIES {
        // Most machines have neither.
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        list(entries, &mut paths);
    }
    for dir in &config.hooks_dir {
        let entries = std::fs::read_dir(dir).map_err(|error| {
            let kind = if error.kind() == std::io::ErrorKind::NotFound {
                Kind::NotFound
            } else {
                Kind::of_io(&error)
            };
            Fault::new(kind, format!("read the directory of hooks {dir}")).because(error)
        })?;
        list(entries, &mut paths);
    }
    paths.into_values().map(|path| parse(&path).map(|file| (path, file))).collect()
}

fn list(entries: std::fs::ReadDir, paths: &mut BTreeMap<std::ffi::OsString, PathBuf>) {
    for entry in entries.flatten().take(MAX_FILES) {
        if entry.path().extension().is_some_and(|end| end == "json") {
            paths.insert(entry.file_name(), entry.path());
        }
    }
}

fn parse(path: &Path) -> Result<File> {
    let what = || format!("read the hook {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).explain(what)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).explain(what)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Fault::input(format!("{} is longer than {MAX_BYTES} bytes", path.display())));
    }
    let file: File = serde_json::from_str(&text).explain_as(Kind::Input, what)?;
    if file.version != "1.0.0" {
        return Err(Fault::input(format!(
            "the hook {} is of version {:?}, not 1.0.0",
            path.display(),
            file.version
        )));
    }
    if !Path::new(&file.hook.path).is_absolute() {
        return Err(Fault::input(format!("the hook {}: hook.path is not absolute", path.display())));
    }
    if let Some(stage) = file.stages.iter().find(|stage| !STAGES.contains(&stage.as_str())) {
        return Err(Fault::input(format!("the hook {}: there is no stage {stage:?}", path.display()))
            .hint(format!("one of: {}", STAGES.join(", "))));
    }
    Ok(file)
}

impl When {
    /// Every condition that is there has to hold, and there has to be one.
    fn fits(&self, spec: &Value, config: &Config, binds: bool) -> Result<bool> {
        let mut conditions = Vec::new();
        conditions.extend(self.always);
        conditions.extend(self.has_bind_mounts.map(|wanted| wanted && binds));
        for (key, value) in &self.annotations {
            let (key, value) = (expression(key)?, expression(value)?);
            conditions.push(config.annotations.iter().any(|(k, v)| key.matches(k) && value.matches(v)));
        }
        if !self.commands.is_empty() {
            let command = spec["process"]["args"][0].as_str().unwrap_or_default();
            let mut any = false;
            for pattern in &self.commands {
                any |= expression(pattern)?.matches(command);
            }
            conditions.push(any);
        }
        Ok(!conditions.is_empty() && conditions.into_iter().all(|holds| holds))
    }
}

fn expression(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|why| {
        Fault::input(format!("\"{pattern}\" is not a regular expression: {why}"))
            .hint("POSIX extended ones are known: [0-9] for \\d")
    })
}

fn add(spec: &mut Value, stage: &str, hook: &Hook) -> Result<()> {
    let mut entry = json!({ "path": hook.path });
    if !hook.args.is_empty() {
        entry["args"] = json!(hook.args);
    }
    if !hook.env.is_empty() {
        entry["env"] = json!(hook.env);
    }
    if let Some(timeout) = hook.timeout {
        entry["timeout"] = json!(timeout);
    }
    let malformed = || Fault::input("spec.hooks is not an object of lists");
    let object = spec.as_object_mut().ok_or_else(malformed)?;
    let hooks = object.entry("hooks").or_insert_with(|| json!({})).as_object_mut().ok_or_else(malformed)?;
    hooks.entry(stage).or_insert_with(|| json!([])).as_array_mut().ok_or_else(malformed)?.push(entry);
    Ok(())
}

/// The specification goes in, what comes out is the specification.
fn filter(spec: &Value, hook: &Hook) -> Result<Value> {
    let text = serde_json::to_vec(spec).explain(|| "write the specification".into())?;
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|pair| pair.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().explain(|| format!("start {}", hook.path))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    // One that does not read its input to the end is no failure by itself.
    let writer = std::thread::spawn(move || input.map(|mut input| input.write_all(&text)));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut printed = Vec::new();
        let read = output.map(|output| output.take(MAX_SPEC + 1).read_to_end(&mut printed));
        let _ = sender.send(read.transpose().map(|_| printed));
    });
    let seconds = hook.timeout.unwrap_or(FILTER_TIMEOUT);
    let printed = receiver.recv_timeout(Duration::from_secs(seconds));
    if printed.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().explain(|| format!("wait for {}", hook.path))?;
    let Ok(printed) = printed else {
        return Err(Fault::failed(format!("{} was killed: it took more than {seconds} seconds", hook.path)));
    };
    let printed = printed.explain(|| format!("read what {} prints", hook.path))?;
    let _ = writer.join();
    if !status.success() {
        return Err(Fault::failed(format!("{}: {status}", hook.path)));
    }
    if printed.len() as u64 > MAX_SPEC {
        return Err(Fault::input(format!("{} printed more than {MAX_SPEC} bytes", hook.path)));
    }
    let spec: Value = serde_json::from_slice(&printed)
        .explain_as(Kind::Input, || format!("{} did not print a specification", hook.path))?;
    if !spec.is_object() {
        return Err(Fault::input(format!("{} did not print a specification: not an object", hook.path)));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str, config: &str, binds: bool) -> Result<bool> {
        let when: When = serde_json::from_str(text).unwrap();
        let spec = json!({"process": {"args": ["/usr/bin/python3", "x"]}});
        when.fits(&spec, &serde_json::from_str(config).unwrap(), binds)
    }

    #[test]
    fn conditions() {
        let config = r#"{"annotations":{"org.hook":"on"}}"#;
        for (text, binds, fits) in [
            (r#"{"always":true}"#, false, true),
            (r#"{"always":false}"#, false, false),
            ("{}", true, false),
            (r#"{"hasBindMounts":true}"#, true, true),
            (r#"{"hasBindMounts":true}"#, false, false),
            (r#"{"annotations":{"^org\\.hook$":"^o[nk]$"}}"#, false, true),
            (r#"{"annotations":{"^org\\.hook$":"^off$"}}"#, false, false),
            (r#"{"commands":["^/bin/sh$","python[0-9.]*$"]}"#, false, true),
            (r#"{"commands":["^/bin/sh$"]}"#, false, false),
            (r#"{"commands":["python"],"hasBindMounts":true}"#, false, false),
        ] {
            assert_eq!(when(text, config, binds).unwrap(), fits, "{text}");
        }
        assert_eq!(when(r#"{"commands":["("]}"#, config, false).unwrap_err().kind(), Kind::Input);
    }

    #[test]
    fn filters_change_the_specification() {
        let hook = |program: &str, args: &[&str], timeout| Hook {
            path: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            timeout,
        };
        let spec = json!({"hostname": "a", "pad": "x".repeat(200_000)});
        let changed = filter(&spec, &hook("/bin/sed", &["sed", "s/\"a\"/\"b\"/"], None)).unwrap();
        assert_eq!((&changed["hostname"], &changed["pad"]), (&json!("b"), &spec["pad"]));
        assert_eq!(filter(&spec, &hook("/bin/echo", &["echo", "{}"], None)).unwrap(), json!({}));
        for (program, args, kind) in [
            ("/bin/false", &["false"][..], Kind::Failed),
            ("/bin/echo", &["echo", "[]"], Kind::Input),
            ("/bin/true", &["true"], Kind::Input),
            ("/bin/sleep", &["sleep", "60"], Kind::Failed),
        ] {
            assert_eq!(filter(&spec, &hook(program, args, Some(1))).unwrap_err().kind(), kind, "{program}");
        }
    }
}
