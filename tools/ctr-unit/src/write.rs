//! A record as a quadlet. What no setting says is a flag in `PodmanArgs=`; what was written is read back and compared, so that
//! nothing is lost without a word.

use crate::compare::canonical;
use crate::mounts::{self, Form, quantity};
use crate::read::{Origin, quadlet};
use crate::section::Unit;
use crate::service;
use crate::syntax::{is_plain, literal, quoted};
use fault::{Fault, Result};
use oci::wishes::{self, RestartPolicy};
use record::{Config, Healthcheck, Quantity, Record};

/// The text of a `.container` file.
///
/// # Errors
/// Input when the record asks for something a quadlet cannot say, or names no image.
pub fn text(record: &Record, header: &str) -> Result<String> {
    let unit = Unit::of(record)?.unwrap_or_default();
    let config = record.config()?;
    let mut lines = Lines::default();
    if config.rootfs.is_none() {
        let image = record.image()?.filter(|image| !image.reference.is_empty()).ok_or_else(|| {
            Fault::input("the record names no image").hint(".image.reference, or .config.rootfs")
        })?;
        lines.last("Image", "", &oci::Reference::parse(&image.reference)?.to_string());
    }
    container(&config, &mut lines)?;
    around(&unit, &mut lines);
    let mut text = header.to_owned();
    let mut section = |name: &str, settings: &[String]| {
        if !settings.is_empty() {
            text.push_str(if text.is_empty() { "[" } else { "\n[" });
            text.push_str(name);
            text.push_str("]\n");
            for setting in settings {
                text.push_str(setting);
                text.push('\n');
            }
        }
    };
    section("Unit", &unit.unit);
    section("Container", &lines.all());
    section("Service", &[restart(&config)?, unit.service.clone()].concat());
    section("Install", &unit.install);
    if let Some(wanted) = unit.default_dependencies {
        section("Quadlet", &[format!("DefaultDependencies={wanted}")]);
    }
    read_back(&text, record, &config)?;
    Ok(text)
}

fn read_back(text: &str, record: &Record, config: &Config) -> Result<()> {
    let again = quadlet(text, &Origin::default()).map_err(|fault| fault.within("as a quadlet"))?;
    let (wanted, said) = (canonical(config)?, canonical(&again.config()?)?);
    let mut lost: Vec<&String> =
        wanted.iter().filter(|(name, value)| said.get(*name) != Some(value)).map(|(name, _)| name).collect();
    lost.extend(said.keys().filter(|name| !wanted.contains_key(*name)));
    let Some(name) = lost.first() else { return Ok(()) };
    Err(Fault::input(format!("no setting of a quadlet says config.{name} as the record has it"))
        .hint(format!("--format service holds the whole record; jq 'del(.config.{name})' leaves it out"))
        .on(record.container()?.map(|container| container.name).unwrap_or_default()))
}

#[derive(Default)]
struct Lines {
    settings: Vec<String>,
    /// At the end, since they may take the place of what is before them.
    flags: Vec<String>,
}

impl Lines {
    fn all(mut self) -> Vec<String> {
        self.settings.append(&mut self.flags);
        self.settings
    }

    fn flag(&mut self, flag: &str, value: &str) {
        self.flags.push(format!("PodmanArgs={}", quoted(&literal(&format!("{flag}={value}")))));
    }

    /// The value of a key of which the last one counts, without a pair of quotes around it.
    fn last(&mut self, key: &str, flag: &str, value: &str) {
        let text = literal(value);
        let loses_quotes = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
        let in_quotes = format!("\"{text}\"");
        if is_plain(&text) && !loses_quotes && !text.is_empty() {
            self.settings.push(format!("{key}={text}"));
        } else if is_plain(&in_quotes) && !text.is_empty() {
            self.settings.push(format!("{key}={in_quotes}"));
        } else if !text.is_empty() {
            self.flag(flag, value);
        }
    }

    /// A value as it is, one of many.
    fn each(&mut self, key: &str, flag: &str, value: &str) {
        let text = literal(value);
        if is_plain(&text) && !text.is_empty() {
            self.settings.push(format!("{key}={text}"));
        } else {
            self.flag(flag, value);
        }
    }

    /// A word that has no escapes.
    fn name(&mut self, key: &str, flag: &str, value: &str) {
        if value.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'') {
            self.flag(flag, value);
        } else {
            self.each(key, flag, value);
        }
    }

    /// A word as in ExecStart=.
    fn word(&mut self, key: &str, value: &str) {
        self.settings.push(format!("{key}={}", quoted(&literal(value))));
    }

    fn words(&mut self, key: &str, values: &[String]) {
        let words: Vec<String> = values.iter().map(|value| quoted(&literal(value))).collect();
        self.settings.push(format!("{key}={}", words.join(" ")));
    }
}

fn container(config: &Config, lines: &mut Lines) -> Result<()> {
    process(config, lines);
    files(config, lines)?;
    security(config, lines);
    limits(config, lines);
    names(config, lines)?;
    life(config, lines)
}

fn singles(lines: &mut Lines, values: &[(&str, &str, &Option<String>)]) {
    for (key, flag, value) in values {
        match value {
            Some(value) if key.is_empty() => lines.flag(flag, value),
            Some(value) => lines.last(key, flag, value),
            None => {}
        }
    }
}

fn flags(lines: &mut Lines, values: &[(&str, &[String])]) {
    for (flag, values) in values {
        values.iter().for_each(|value| lines.flag(flag, value));
    }
}

fn switches(lines: &mut Lines, values: &[(&str, &str, bool)]) {
    for (key, flag, on) in values.iter().filter(|(.., on)| *on) {
        if key.is_empty() {
            lines.flags.push(format!("PodmanArgs={flag}"));
        } else {
            lines.settings.push(format!("{key}={on}"));
        }
    }
}

fn process(config: &Config, lines: &mut Lines) {
    singles(
        lines,
        &[("ContainerName", "--name", &config.name), ("HostName", "--hostname", &config.hostname)],
    );
    match config.entrypoint.as_deref() {
        None => {}
        Some([]) => lines.settings.push("Entrypoint=".to_owned()),
        Some([word]) if word.is_empty() => lines.settings.push("Entrypoint=".to_owned()),
        Some([word]) if !word.starts_with('[') => lines.last("Entrypoint", "--entrypoint", word),
        Some(words) => lines.last("Entrypoint", "--entrypoint", &json_list(words)),
    }
    if let Some(command) = config.command.as_ref().filter(|command| !command.is_empty()) {
        lines.words("Exec", command);
    }
    config.env.iter().for_each(|variable| lines.word("Environment", variable));
    match config.user.as_deref().map(|user| user.split_once(':').unwrap_or((user, ""))) {
        Some((user, group)) if !user.is_empty() => {
            lines.last("User", "--user", user);
            lines.last("Group", "--user", group);
        }
        Some(_) => singles(lines, &[("", "--user", &config.user)]),
        None => {}
    }
    config.group_add.iter().for_each(|group| lines.each("GroupAdd", "--group-add", group));
    singles(
        lines,
        &[
            ("WorkingDir", "--workdir", &config.workdir),
            ("Timezone", "--tz", &config.tz),
            ("", "--umask", &config.umask),
            ("", "--domainname", &config.domainname),
            ("", "--passwd-entry", &config.passwd_entry),
            ("", "--group-entry", &config.group_entry),
            ("", "--personality", &config.personality),
        ],
    );
    flags(lines, &[("--env-merge", &config.env_merge), ("--unsetenv", &config.unsetenv)]);
    switches(
        lines,
        &[
            // Its variables are those of whoever reads it, too.
            ("EnvironmentHost", "", !config.env_host.is_empty()),
            ("RunInit", "", config.init),
            ("", "--tty", config.tty),
            ("", "--interactive", config.interactive),
            ("", "--unsetenv-all", config.unsetenv_all),
        ],
    );
}

fn files(config: &Config, lines: &mut Lines) -> Result<()> {
    for wish in &config.mounts {
        match mounts::text(wish)? {
            (Form::Volume, text) => lines.each("Volume", "--volume", &text),
            (Form::Tmpfs, text) => lines.each("Tmpfs", "--tmpfs", &text),
            (Form::Mount, text) => lines.word("Mount", &text),
        }
    }
    config.secrets.iter().for_each(|secret| lines.word("Secret", secret));
    config.devices.iter().for_each(|device| lines.name("AddDevice", "--device", device));
    flags(
        lines,
        &[("--volumes-from", &config.volumes_from), ("--device-cgroup-rule", &config.device_cgroup_rules)],
    );
    singles(lines, &[("Rootfs", "--rootfs", &config.rootfs), ("", "--volume-driver", &config.volume_driver)]);
    switches(lines, &[("ReadOnly", "", config.read_only), ("ReadOnlyTmpfs", "", config.read_only_tmpfs)]);
    Ok(())
}

fn security(config: &Config, lines: &mut Lines) {
    config.cap_drop.iter().for_each(|cap| lines.name("DropCapability", "--cap-drop", cap));
    config.cap_add.iter().for_each(|cap| lines.name("AddCapability", "--cap-add", cap));
    for option in &config.security_opt {
        match option.split_once('=') {
            None if option == "no-new-privileges" => lines.settings.push("NoNewPrivileges=true".to_owned()),
            Some(("label", "disable")) => lines.settings.push("SecurityLabelDisable=true".to_owned()),
            Some(("seccomp", profile)) if !profile.is_empty() => {
                if profile.starts_with('/') || !profile.contains('/') {
                    lines.last("SeccompProfile", "--security-opt", profile);
                } else {
                    lines.flag("--security-opt", option);
                }
            }
            Some(("apparmor", profile)) if !profile.is_empty() && is_plain(profile) => {
                lines.last("AppArmor", "--security-opt", profile);
            }
            Some(("mask", paths)) => lines.word("Mask", paths),
            Some(("unmask", paths)) => lines.word("Unmask", paths),
            _ => lines.flag("--security-opt", option),
        }
    }
    switches(lines, &[("", "--privileged", config.privileged)]);
}

fn limits(config: &Config, lines: &mut Lines) {
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    let text = |quantity_: &Option<Quantity>| quantity_.as_ref().map(quantity);
    singles(
        lines,
        &[
            ("Memory", "--memory", &text(&config.memory)),
            ("", "--memory-reservation", &text(&config.memory_reservation)),
            ("", "--memory-swap", &text(&config.memory_swap)),
            ("", "--memory-swappiness", &number(config.memory_swappiness)),
            ("", "--oom-score-adj", &number(config.oom_score_adj.map(i64::from))),
            ("", "--cpus", &text(&config.cpus)),
            ("", "--cpu-shares", &config.cpu_shares.map(|number| number.to_string())),
            ("", "--cpu-period", &config.cpu_period.map(|number| number.to_string())),
            ("", "--cpu-quota", &number(config.cpu_quota)),
            ("", "--cpu-rt-period", &config.cpu_rt_period.map(|number| number.to_string())),
            ("", "--cpu-rt-runtime", &number(config.cpu_rt_runtime)),
            ("", "--cpuset-cpus", &config.cpuset_cpus),
            ("", "--cpuset-mems", &config.cpuset_mems),
            ("", "--blkio-weight", &number(config.blkio_weight.map(i64::from))),
            ("PidsLimit", "--pids-limit", &number(config.pids_limit)),
            ("ShmSize", "--shm-size", &text(&config.shm_size)),
            ("", "--rdt-class", &config.rdt_class),
        ],
    );
    switches(lines, &[("", "--oom-kill-disable", config.oom_kill_disable)]);
    flags(
        lines,
        &[
            ("--blkio-weight-device", &config.blkio_weight_devices),
            ("--device-read-bps", &config.device_read_bps),
            ("--device-write-bps", &config.device_write_bps),
            ("--device-read-iops", &config.device_read_iops),
            ("--device-write-iops", &config.device_write_iops),
        ],
    );
    config.ulimits.iter().for_each(|limit| lines.each("Ulimit", "--ulimit", limit));
    for (name, value) in &config.sysctls {
        lines.name("Sysctl", "--sysctl", &format!("{name}={value}"));
    }
    for (flag, values) in [("--cgroup-conf", &config.cgroup_conf), ("--storage-opt", &config.storage_opts)] {
        for (name, value) in values {
            lines.flag(flag, &format!("{name}={value}"));
        }
    }
}

fn names(config: &Config, lines: &mut Lines) -> Result<()> {
    if let Some(network) = &config.network {
        lines.each("Network", "--network", network);
    }
    for wish in &config.networks {
        lines.each("Network", "--network", &wishes::network_text(wish));
    }
    for wish in &config.ports {
        lines.each("PublishPort", "--publish", &mounts::port(&wishes::port(wish)?));
    }
    let lists: [(&str, &str, &[String]); 5] = [
        ("ExposeHostPort", "--expose", &config.expose),
        ("AddHost", "--add-host", &config.add_host),
        ("DNS", "--dns", &config.dns),
        ("DNSSearch", "--dns-search", &config.dns_search),
        ("DNSOption", "--dns-option", &config.dns_option),
    ];
    for (key, flag, values) in lists {
        for value in values {
            lines.each(key, flag, value);
        }
    }
    config.uidmap.iter().for_each(|map| lines.name("UIDMap", "--uidmap", map));
    config.gidmap.iter().for_each(|map| lines.name("GIDMap", "--gidmap", map));
    singles(
        lines,
        &[
            ("UserNS", "--userns", &config.userns),
            ("SubUIDMap", "--subuidname", &config.subuidname),
            ("SubGIDMap", "--subgidname", &config.subgidname),
            ("", "--pid", &config.pid),
            ("", "--ipc", &config.ipc),
            ("", "--uts", &config.uts),
            ("", "--cgroupns", &config.cgroupns),
            ("", "--cgroup-parent", &config.cgroup_parent),
        ],
    );
    switches(lines, &[("", "--publish-all", config.publish_all)]);
    Ok(())
}

fn life(config: &Config, lines: &mut Lines) -> Result<()> {
    for (name, value) in &config.labels {
        lines.word("Label", &format!("{name}={value}"));
    }
    for (name, value) in &config.annotations {
        lines.word("Annotation", &format!("{name}={value}"));
    }
    if let Some(check) = &config.healthcheck {
        health(check, lines)?;
    }
    singles(
        lines,
        &[
            ("StopSignal", "--stop-signal", &config.stop_signal),
            ("StopTimeout", "--stop-timeout", &config.stop_timeout.map(|seconds| seconds.to_string())),
            ("LogDriver", "--log-driver", &config.log_driver),
            ("", "--timeout", &config.timeout.map(|seconds| seconds.to_string())),
            ("", "--runtime", &config.runtime),
            ("", "--pidfile", &config.pidfile),
            ("", "--platform", &config.platform),
        ],
    );
    for (name, value) in &config.log_opts {
        lines.name("LogOpt", "--log-opt", &format!("{name}={value}"));
    }
    flags(lines, &[("--hooks-dir", &config.hooks_dir)]);
    switches(lines, &[("", "--rm", config.auto_remove)]);
    Ok(())
}

fn health(check: &Healthcheck, lines: &mut Lines) -> Result<()> {
    match check.test.as_slice() {
        [] => {}
        [kind] if kind == "NONE" => lines.settings.push("HealthCmd=none".to_owned()),
        [kind, text] if kind == "CMD-SHELL" && text != "none" && !text.starts_with('[') && is_plain(text) => {
            lines.last("HealthCmd", "--health-cmd", text);
        }
        words => lines.last("HealthCmd", "--health-cmd", &json_list(words)),
    }
    let times = [
        ("HealthInterval", "--health-interval", &check.interval),
        ("HealthTimeout", "--health-timeout", &check.timeout),
        ("HealthStartPeriod", "--health-start-period", &check.start_period),
    ];
    for (key, flag, time) in times {
        if let Some(time) = time {
            lines.last(key, flag, &duration(time)?);
        }
    }
    if let Some(time) = &check.start_interval {
        lines.flag("--health-start-interval", &duration(time)?);
    }
    if let Some(retries) = check.retries {
        lines.settings.push(format!("HealthRetries={retries}"));
    }
    singles(lines, &[("HealthOnFailure", "--health-on-failure", &check.on_failure)]);
    Ok(())
}

/// A list that is one line, whatever is in it.
fn json_list(words: &[String]) -> String {
    let text = serde_json::json!(words).to_string();
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// With a unit, as podman wants one.
fn duration(time: &Quantity) -> Result<String> {
    let duration = wishes::health::duration_of(time).map_err(|fault| fault.within("config.healthcheck"))?;
    Ok(match time {
        Quantity::Text(text) => text.clone(),
        _ if duration.subsec_nanos() == 0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ns", duration.as_nanos()),
    })
}

/// The restart policy, which is systemd's to follow. What its words do not tell apart is told beside.
fn restart(config: &Config) -> Result<Vec<String>> {
    let Some(text) = config.restart.as_deref().filter(|text| !text.is_empty()) else { return Ok(Vec::new()) };
    let word = service::restart_word(RestartPolicy::parse(text)?);
    let mut settings = vec![format!("Restart={word}")];
    if word != text {
        settings.push(format!("X-RestartPolicy={text}"));
    }
    Ok(settings)
}

/// What is said in `[Container]` and is not the container's.
fn around(unit: &Unit, lines: &mut Lines) {
    if let Some(pull) = &unit.pull {
        lines.settings.push(format!("Pull={pull}"));
    }
    if let Some(retry) = unit.retry {
        lines.settings.push(format!("Retry={retry}"));
    }
    if let Some(notify) = &unit.notify {
        lines.settings.push(format!("Notify={notify}"));
    }
    if let Some(words) = &unit.reload_command {
        lines.words("ReloadCmd", words);
    }
    if let Some(signal) = &unit.reload_signal {
        lines.settings.push(format!("ReloadSignal={signal}"));
    }
}
