//! What users write: every grammar of a flag, line by line, and a record's `config`.
//!
//! Input: a `config` as JSON, or lines of text.

use oci::capabilities::CapWish;
use oci::users::{self, UserFiles};
use oci::wishes::{self, Security, Wishes, env, mount};
use record::{Config, MountWish, PortWish, Quantity};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.trim_start().starts_with('{') {
        if let Ok(config) = serde_json::from_str::<Config>(text)
            && let Err(fault) = Wishes::parse(&config)
        {
            assert_eq!(fault.kind(), fault::Kind::Input, "{fault}");
        }
        return;
    }
    let files = UserFiles { passwd: Some(text.to_owned()), group: Some(text.to_owned()) };
    for line in text.lines() {
        scalars(line);
        mounts(line);
        modes(line);
        if let Ok(user) = users::resolve(line, &[line.to_owned()], &files) {
            assert!(user.groups.contains(&user.gid));
            assert!(i32::try_from(user.uid).is_ok());
        }
    }
    if let Ok(variables) = env::env_file(text, "f") {
        let mut environment = Vec::new();
        for variable in &variables {
            env::set(&mut environment, variable);
            let name = variable.split_once('=').map(|(name, _)| name);
            assert_eq!(env::has(&environment, name.unwrap_or(variable)), name.is_some());
        }
        let mut at_once = Vec::new();
        env::set_all(&mut at_once, &variables);
        assert_eq!(at_once, environment);
    }
}

fn scalars(line: &str) {
    if let Ok(bytes) = wishes::bytes(line) {
        assert!(i64::try_from(bytes).is_ok());
    }
    let _ = wishes::nano_cpus(&Quantity::Text(line.to_owned()));
    if let Ok(number) = line.parse::<f64>() {
        let _ = (wishes::bytes_of(&Quantity::Float(number)), wishes::nano_cpus(&Quantity::Float(number)));
    }
    if let Ok(number) = line.parse::<i64>() {
        let _ = (wishes::bytes_of(&Quantity::Integer(number)), wishes::nano_cpus(&Quantity::Integer(number)));
    }
    if let Ok(signal) = wishes::signal(line) {
        let name = wishes::signal_name(signal).unwrap_or_else(|| signal.to_string());
        assert_eq!(wishes::signal(&name).expect("a signal's own name"), signal);
    }
    if let Ok(limit) = wishes::ulimit(line) {
        assert!(limit.soft <= limit.hard && !wishes::ulimit_name(limit.kind).is_empty());
    }
    // A name becomes a path below /proc/sys.
    if wishes::sysctl(line).is_ok() {
        assert!(!line.contains("..") && !line.starts_with('/') && !line.contains('\0'));
    }
    let _ = (wishes::port(&PortWish::Text(line.to_owned())), env::env(line));
}

fn mounts(line: &str) {
    let _ = (mount::parse_volume(line), mount::parse_mount(line));
    let tmpfs = mount::parse_tmpfs(line).map(MountWish::Mount);
    for wish in [Ok(MountWish::Text(line.to_owned())), tmpfs].into_iter().flatten() {
        let Ok(plan) = mount::mount(&wish) else { continue };
        assert!(plan.target.starts_with('/') && plan.target.len() > 1, "{}", plan.target);
        assert!(!plan.target.contains('\0'));
        assert!(!plan.target[1..].split('/').any(|part| matches!(part, "" | "." | "..")), "{}", plan.target);
    }
    if let Ok(device) = wishes::device(line) {
        assert!(device.host.starts_with('/') && device.container.starts_with('/'));
    }
}

fn modes(line: &str) {
    let words = [line.to_owned()];
    let _ = (wishes::NetworkMode::parse(line), wishes::PidMode::parse(line), wishes::IpcMode::parse(line));
    let _ = (wishes::UtsMode::parse(line), wishes::RestartPolicy::parse(line), Security::parse(&words));
    let _ = (CapWish::parse(&words, &[]), CapWish::parse(&[], &words));
    if let Some((name, value)) = line.split_once('=') {
        let options = [(name.to_owned(), value.to_owned())].into();
        for driver in ["json-file", "local", "journald", "syslog"] {
            let _ = wishes::LogWish::parse(Some(driver), &options);
        }
    }
}
