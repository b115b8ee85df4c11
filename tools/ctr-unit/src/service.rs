//! A record as a service of systemd (systemd.service(5)).
//!
//! The service's process is `ctr-start --attach`: its output is the container's, which goes to the journal, its status is the
//! container's, which Restart= looks at, and it tells systemd (`Type=notify`) when the command has been executed. The shim and
//! what it needs are in the service's control group, the container in its own.

use crate::section::{self, Unit};
use crate::syntax::{exec_line, is_plain, quoted};
use fault::{Fault, Kind, Result};
use oci::wishes::{MountKind, NetworkMode, RestartPolicy, mount};
use record::{Config, Record};
use std::fmt::Write;
use std::path::Path;

/// What a unit is to be like beside what the record says.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Make a container at each start, and remove it at the end.
    pub new: bool,
    /// Call the container by its name rather than its id.
    pub by_name: bool,
    pub prefix: String,
    pub separator: String,
    pub restart_policy: Option<String>,
    /// Seconds, as all times here.
    pub restart_sec: Option<u64>,
    pub start_timeout: Option<u64>,
    pub stop_timeout: Option<i64>,
    pub after: Vec<String>,
    pub requires: Vec<String>,
    pub wants: Vec<String>,
    /// `NAME=value` each, of the service's own processes.
    pub env: Vec<String>,
}

/// Where things are on this machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Directory of the tools.
    pub tools: String,
    /// Of the state, without which the container is not there.
    pub directories: Vec<String>,
}

/// A unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub text: String,
}

/// Seconds docker and ctr-stop wait after the stop signal.
const STOP_TIMEOUT: i64 = 10;
/// How much longer systemd waits for what ctr-stop waits for.
const GRACE: i64 = 30;
/// Pulling takes its time.
const PULL_TIMEOUT: &str = "15min";
/// A run longer than this, in seconds, makes docker's count of restarts begin again.
const LONG_RUN: u64 = 10;
/// What of a record goes into a unit, as text. Lines of units are 1 MiB at most, and escapes make it longer.
const MAX_RECORD: usize = 512 << 10;

/// systemd's word for a restart policy.
pub fn restart_word(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::No => "no",
        RestartPolicy::OnFailure(_) => "on-failure",
        // A service that a user stopped stays stopped.
        RestartPolicy::Always | RestartPolicy::UnlessStopped => "always",
    }
}

/// The container a unit is about.
struct Subject<'a> {
    record: &'a Record,
    config: Config,
    /// What only a quadlet or a user says.
    unit: Option<Unit>,
    /// `None`: it is to be made.
    id: Option<String>,
    name: String,
}

impl Subject<'_> {
    fn of<'a>(record: &'a Record, wishes: &Wishes) -> Result<Subject<'a>> {
        let config = record.config()?;
        let container = record.container()?;
        // A container there is not can only be made.
        let id = container.as_ref().filter(|_| !wishes.new).map(|container| container.id.clone());
        if let Some(id) = id.as_ref().filter(|id| !store::is_id(id)) {
            return Err(Fault::input("container.id is not 64 hexadecimal digits").on(id));
        }
        let name = container.map(|container| container.name).filter(|name| !name.is_empty());
        let name = match id {
            Some(_) => name.or_else(|| config.name.clone()),
            None => config.name.clone().filter(|name| !name.is_empty()).or(name),
        };
        let name = name.ok_or_else(|| {
            Fault::input("the record has no name for the container").hint("jq -c '.config.name = \"web\"'")
        })?;
        store::check_name(&name).map_err(|fault| fault.as_kind(Kind::Input))?;
        let unit = Unit::of(record)?;
        Ok(Subject { record, config, unit, id, name })
    }

    /// What commands call it.
    fn called(&self, wishes: &Wishes) -> &str {
        match &self.id {
            Some(id) if !wishes.by_name => id,
            _ => &self.name,
        }
    }

    fn has(&self, key: &str) -> bool {
        self.user(key).is_some()
    }

    /// What a user says in `[Service]`.
    fn user(&self, key: &str) -> Option<&str> {
        self.unit.as_ref().and_then(|unit| section::last(&unit.service, key))
    }
}

/// The name of a record's unit, with its suffix.
pub fn file_name(record: &Record, wishes: &Wishes, suffix: &str) -> Result<String> {
    let subject = Subject::of(record, wishes)?;
    let name = match subject.unit.as_ref().and_then(|unit| unit.name.clone()) {
        Some(name) => name,
        None => format!("{}{}{}", wishes.prefix, wishes.separator, subject.called(wishes)),
    };
    section::check_name(&name)?;
    Ok(format!("{name}.{suffix}"))
}

/// The service.
///
/// # Errors
/// Input for what would not be what it says in a unit.
pub fn service(record: &Record, wishes: &Wishes, machine: &Machine, header: bool) -> Result<File> {
    let name = file_name(record, wishes, "service")?;
    let subject = Subject::of(record, wishes)?;
    check(&subject)?;
    let mut text = String::new();
    if header {
        text.push_str(&first_lines(&name, &subject));
    }
    unit_section(&mut text, &subject, wishes, machine)?;
    service_section(&mut text, &subject, wishes, machine)?;
    let install = subject.unit.as_ref().map(|unit| unit.install.clone());
    let install = install.unwrap_or_else(|| vec!["WantedBy=multi-user.target".to_owned()]);
    if !install.is_empty() {
        let _ = write!(text, "\n[Install]\n{}\n", install.join("\n"));
    }
    Ok(File { name, text })
}

/// The comment a unit begins with.
fn first_lines(name: &str, subject: &Subject<'_>) -> String {
    let id = subject.id.as_deref().map(|id| format!(" ({})", &id[..12])).unwrap_or_default();
    format!(
        "# {name}\n# made by ctr-unit {} from container {}{id}\n\n",
        env!("CARGO_PKG_VERSION"),
        subject.name
    )
}

/// What in `[Service]` is the container's and not the user's.
fn check(subject: &Subject<'_>) -> Result<()> {
    for key in ["ExecStart", "StandardInput", "StandardInputText", "StandardInputData", "NotifyAccess"] {
        if subject.has(key) {
            return Err(Fault::input(format!("[Service] has {key}=, which is what runs the container"))
                .hint("ExecStartPre=, ExecStartPost= and ExecStopPost= may be added"));
        }
    }
    let one_of = |key: &str, known: &[&str]| match subject.user(key).filter(|value| !known.contains(value)) {
        Some(value) => Err(Fault::input(format!("{key}={value} does not go with a container"))
            .hint(format!("one of: {}", known.join(", ")))),
        None => Ok(()),
    };
    one_of("Type", &["notify", "oneshot"])?;
    one_of("KillMode", &["control-group", "mixed"])
}

fn unit_section(text: &mut String, subject: &Subject<'_>, wishes: &Wishes, machine: &Machine) -> Result<()> {
    let own = subject.unit.as_ref();
    let lines = own.map(|unit| unit.unit.as_slice()).unwrap_or_default();
    text.push_str("[Unit]\n");
    if section::last(lines, "Description").is_none() {
        setting(text, "Description", &format!("Container {}", subject.name));
    }
    if section::last(lines, "Documentation").is_none() {
        setting(text, "Documentation", "man:ctr-unit(1)");
    }
    if own.and_then(|unit| unit.default_dependencies).unwrap_or(true) {
        setting(text, "Wants", "network-online.target");
        setting(text, "After", "network-online.target");
    }
    let mut paths = machine.directories.clone();
    for wish in &subject.config.mounts {
        if let MountKind::Bind { source, .. } = mount::mount(wish)?.kind {
            paths.push(source);
        }
    }
    let paths: Vec<String> = paths.iter().map(|path| quoted(&path.replace('%', "%%"))).collect();
    setting(text, "RequiresMountsFor", &paths.join(" "));
    for (key, units) in [("Requires", &wishes.requires), ("Wants", &wishes.wants), ("After", &wishes.after)] {
        for unit in units {
            check_dependency(unit)?;
            setting(text, key, &unit.replace('%', "%%"));
        }
    }
    if let RestartPolicy::OnFailure(Some(times)) = policy(subject)?
        && wishes.restart_policy.is_none()
        && !subject.has("Restart")
        && section::last(lines, "StartLimitBurst").is_none()
    {
        let starts = u64::from(times) + 1;
        let each = LONG_RUN + wishes.restart_sec.unwrap_or_default();
        setting(text, "StartLimitBurst", &starts.to_string());
        setting(text, "StartLimitIntervalSec", &starts.saturating_mul(each).to_string());
    }
    for line in lines {
        plain(text, line);
    }
    Ok(())
}

fn service_section(
    text: &mut String,
    subject: &Subject<'_>,
    wishes: &Wishes,
    machine: &Machine,
) -> Result<()> {
    text.push_str("\n[Service]\n");
    let notifies = subject.user("Type") != Some("oneshot");
    if notifies {
        setting(text, "Type", "notify");
        // In a pipeline it is not the main process that knows.
        setting(text, "NotifyAccess", "all");
    }
    for variable in &wishes.env {
        setting(text, "Environment", &exec_word_without_variables(variable));
    }
    restart(text, subject, wishes)?;
    times(text, subject, wishes);
    if !subject.has("KillMode") {
        // What is left when the container has ended is asked to end, too, and not killed in the middle.
        setting(text, "KillMode", "control-group");
    }
    if !subject.has("SuccessExitStatus") {
        let signal = match &subject.config.stop_signal {
            Some(signal) if !signal.is_empty() => oci::wishes::signal(signal)?,
            _ => 15,
        };
        // What becomes of a container that is stopped as it wants to be.
        setting(text, "SuccessExitStatus", &(128 + signal).to_string());
    }
    if !subject.has("SyslogIdentifier") {
        setting(text, "SyslogIdentifier", "%N");
    }
    commands(text, subject, wishes, machine, notifies)?;
    let lines = subject.unit.as_ref().map(|unit| unit.service.as_slice()).unwrap_or_default();
    for line in lines {
        plain(text, line);
    }
    Ok(())
}

fn policy(subject: &Subject<'_>) -> Result<RestartPolicy> {
    RestartPolicy::parse(subject.config.restart.as_deref().unwrap_or_default())
}

fn restart(text: &mut String, subject: &Subject<'_>, wishes: &Wishes) -> Result<()> {
    let asked = subject.config.restart.as_deref().filter(|text| !text.is_empty());
    let word = match (&wishes.restart_policy, asked) {
        (Some(word), _) => Some(word.as_str()),
        (None, Some(_)) => Some(restart_word(policy(subject)?)),
        // A quadlet says all there is to say.
        (None, None) if subject.unit.is_some() => None,
        (None, None) => Some("on-failure"),
    };
    if let Some(word) = word.filter(|_| !subject.has("Restart") || wishes.restart_policy.is_some()) {
        setting(text, "Restart", word);
    }
    if let Some(seconds) = wishes.restart_sec {
        setting(text, "RestartSec", &seconds.to_string());
    }
    Ok(())
}

fn times(text: &mut String, subject: &Subject<'_>, wishes: &Wishes) {
    let both = subject.has("TimeoutSec");
    match wishes.start_timeout {
        Some(seconds) => setting(text, "TimeoutStartSec", &seconds.to_string()),
        None if subject.id.is_none() && !both && !subject.has("TimeoutStartSec") => {
            setting(text, "TimeoutStartSec", PULL_TIMEOUT);
        }
        None => {}
    }
    if wishes.stop_timeout.is_none() && (both || subject.has("TimeoutStopSec")) {
        return;
    }
    let seconds = wishes.stop_timeout.or(subject.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
    // Longer than the container is given, or systemd would end what waits for it.
    let limit = if seconds < 0 { "infinity".to_owned() } else { seconds.saturating_add(GRACE).to_string() };
    setting(text, "TimeoutStopSec", &limit);
}

fn commands(
    text: &mut String,
    subject: &Subject<'_>,
    wishes: &Wishes,
    machine: &Machine,
    notifies: bool,
) -> Result<()> {
    let called = subject.called(wishes);
    let tool = |name: &str| Path::new(&machine.tools).join(name).to_string_lossy().into_owned();
    let line = |name: &str, words: &[&str]| {
        let mut all = vec![tool(name)];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        exec_line(&all)
    };
    let mut start = vec!["--attach"];
    start.extend(notifies.then_some("--sdnotify"));
    if subject.id.is_some() {
        if policy(subject)? != RestartPolicy::No {
            text.push_str("# systemd starts it again, so its shim must not.\n");
            setting(text, "ExecStartPre", &line("ctr-update", &["--quiet", "--restart", "no", called]));
        }
        start.push(called);
        setting(text, "ExecStart", &line("ctr-start", &start));
    } else {
        let record = embedded(subject)?;
        setting(text, "StandardInput", "data");
        setting(text, "StandardInputText", &record);
        let script = pipeline(subject, &start, &tool)?;
        setting(text, "ExecStart", &exec_line(&["/bin/sh".to_owned(), "-c".to_owned(), script]));
    }
    if let Some(unit) = &subject.unit {
        if unit.notify.is_some() {
            setting(text, "ExecStartPost", &line("ctr-wait", &["--quiet", "--for", "healthy", called]));
        }
        if let Some(command) = &unit.reload_command {
            let mut words = vec![called];
            words.extend(command.iter().map(String::as_str));
            setting(text, "ExecReload", &line("ctr-exec", &words));
        }
        if let Some(signal) = &unit.reload_signal {
            setting(text, "ExecReload", &line("ctr-kill", &["--quiet", "--signal", signal, called]));
        }
    }
    let seconds = wishes.stop_timeout.map(|seconds| format!("--timeout={seconds}"));
    let mut stop = vec!["--quiet"];
    stop.extend(seconds.as_deref());
    stop.push(called);
    setting(text, "ExecStop", &line("ctr-stop", &stop));
    // When ctr-start was killed, ExecStop= is not run. A minus: it may be gone already.
    let last = match &subject.id {
        Some(_) => line("ctr-stop", &stop),
        None => line("ctr-rm", &["--force", "--volumes", "--quiet", called]),
    };
    setting(text, "ExecStopPost", &format!("-{last}"));
    Ok(())
}

/// The record a container is made from, as a line of `StandardInputText=`: escapes are undone first, then specifiers
/// (systemd.exec(5)).
fn embedded(subject: &Subject<'_>) -> Result<String> {
    let mut config = subject.config.clone();
    config.name = Some(subject.name.clone());
    // systemd's to do.
    config.restart = None;
    let mut record = Record::new();
    if config.rootfs.is_none() {
        let image = subject.record.image()?.filter(|image| !image.reference.is_empty());
        let image = image.ok_or_else(|| {
            Fault::input("the record names no image").hint(".image.reference, or .config.rootfs")
        })?;
        let reference = oci::Reference::parse(&image.reference)?.to_string();
        record.set("image", &serde_json::json!({ "reference": reference }))?;
    }
    record.set("config", &config)?;
    let line = record.to_line();
    if line.len() > MAX_RECORD {
        return Err(Fault::input(format!(
            "the record is longer than {MAX_RECORD} bytes, more than a unit can hold"
        )));
    }
    // JSON leaves these as they are, and a unit must not have them.
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    let line: String = line.chars().map(escaped).collect();
    Ok(line.replace('\\', "\\\\").replace('%', "%%"))
}

fn pipeline(subject: &Subject<'_>, start: &[&str], tool: &dyn Fn(&str) -> String) -> Result<String> {
    let unit = subject.unit.clone().unwrap_or_default();
    let mut stages: Vec<Vec<String>> = Vec::new();
    let stage = |name: &str, words: &[&str]| {
        std::iter::once(tool(name))
            .chain(words.iter().map(|word| (*word).to_owned()))
            .collect::<Vec<String>>()
    };
    if subject.config.rootfs.is_none() {
        let mut pull = stage("img-pull", &["--policy", unit.pull.as_deref().unwrap_or("missing")]);
        if let Some(platform) = &subject.config.platform {
            pull.extend(["--platform".to_owned(), platform.clone()]);
        }
        pull.extend(unit.retry.map(|retry| format!("--retry={retry}")));
        stages.push(pull);
        stages.push(stage("img-unpack", &[]));
    }
    stages.push(stage("ctr-create", &["--replace", "--name", &subject.name]));
    let network = NetworkMode::of(&subject.config)?;
    if matches!(network, NetworkMode::Bridge | NetworkMode::Private) {
        stages.push(stage("net-attach", &[]));
    }
    stages.push(stage("ctr-start", start));
    let words = |stage: Vec<String>| stage.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
    Ok(stages.into_iter().map(words).collect::<Vec<_>>().join(" | "))
}

/// A word as a POSIX shell reads it back.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Environment= has specifiers and no variables (systemd.exec(5)).
fn exec_word_without_variables(word: &str) -> String {
    quoted(&word.replace('%', "%%"))
}

fn check_dependency(unit: &str) -> Result<()> {
    let fits = unit.contains('.') && section::check_name(unit).is_ok();
    if fits {
        return Ok(());
    }
    Err(Fault::usage(format!("\"{unit}\" is not the name of a unit"))
        .hint("with its suffix: db.service, network.target"))
}

fn setting(text: &mut String, key: &str, value: &str) {
    plain(text, &format!("{key}={value}"));
}

/// Every line goes through here: nothing that comes in makes two of one.
fn plain(text: &mut String, line: &str) {
    debug_assert!(is_plain(line), "{line:?}");
    text.extend(line.chars().filter(|c| !c.is_control()));
    text.push('\n');
}
