//! The program git.

use super::GitUrl;
use crate::Login;
use fault::{Fault, Kind, Result};
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// Longest text of git's that is told.
const MAX_SAID: usize = 2000;
/// What git finds its way by, and how to trust.
const KEPT: [&str; 14] = [
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "TMPDIR",
];
/// Nothing a repository brings along is run, nobody is asked, nothing goes on in the background.
const SETTINGS: [(&str, &str); 9] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "master"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
];

/// `https://host:port/` of an HTTP address.
fn origin(remote: &str) -> Option<String> {
    let (scheme, rest) =
        remote.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let host = rest.split('/').next()?;
    Some(format!("{scheme}://{}/", host.rsplit('@').next()?))
}

/// git, with a repository to work on or without.
#[derive(Clone)]
pub struct Git {
    environment: Vec<(OsString, OsString)>,
    /// As it is told to git, and as it may be shown.
    remote: (String, String),
}

impl Git {
    pub fn new(url: &GitUrl, login: Option<&Login>) -> Git {
        let kept = KEPT.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        let mut environment: Vec<(OsString, OsString)> = kept.collect();
        // A repository's submodules may be reached in these ways and in no other. Of this machine is only what a test says.
        let protocols = if url.remote.starts_with("file://") { "file" } else { "http:https:ssh:git" };
        for (name, value) in [
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=30"),
            ("GIT_ALLOW_PROTOCOL", protocols),
        ] {
            environment.push((name.into(), value.into()));
        }
        let mut settings: Vec<(String, &str)> =
            SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        // In the environment, which others cannot read as they can arguments; and for this server only.
        let header = login.map(|login| format!("Authorization: {}", login.git()));
        if let (Some(header), Some(origin)) = (&header, origin(&url.remote)) {
            settings.push((format!("http.{origin}.extraheader"), header));
        }
        environment.push(("GIT_CONFIG_COUNT".into(), settings.len().to_string().into()));
        for (number, (key, value)) in settings.iter().enumerate() {
            environment.push((format!("GIT_CONFIG_KEY_{number}").into(), key.into()));
            environment.push((format!("GIT_CONFIG_VALUE_{number}").into(), value.into()));
        }
        Git { environment, remote: (url.remote.clone(), url.shown()) }
    }

    /// The same on a repository and its files.
    pub fn within(&self, git_dir: &Path, tree: &Path) -> Git {
        let mut other = self.clone();
        for (name, path) in [("GIT_DIR", git_dir), ("GIT_WORK_TREE", tree)] {
            other.environment.push((name.into(), path.into()));
        }
        other
    }

    /// Runs a command; gives what it prints.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        // What is checked out is to have the same modes whoever does it.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 022 && exec git \"$@\"", "git"]).args(arguments);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some((_, tree)) = self.environment.iter().find(|(name, _)| name == "GIT_WORK_TREE") {
            command.current_dir(tree);
        }
        command.stdin(Stdio::null());
        let output = command.output().map_err(|error| Fault::failed("run git").because(error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.failed(arguments, output.status.code(), &String::from_utf8_lossy(&output.stderr)))
    }

    fn failed(&self, arguments: &[&str], status: Option<i32>, said: &str) -> Fault {
        if status == Some(127) && said.contains("git: not found") {
            return Fault::failed("there is no program git").hint("install the package git");
        }
        let said = said.replace(&self.remote.0, &self.remote.1);
        let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let said: String = lines.collect::<Vec<_>>().join("; ").chars().take(MAX_SAID).collect();
        let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
        let kind = if has(&[
            "Authentication failed",
            "could not read Username",
            "Permission denied",
            "Host key verification",
            "error: 403",
        ]) {
            Kind::Denied
        } else if has(&["not found", "does not exist", "does not appear to be a git repository"]) {
            Kind::NotFound
        } else if has(&[
            "Could not resolve host",
            "Connection refused",
            "timed out",
            "Failed to connect",
            "Operation too slow",
        ]) {
            Kind::Retryable
        } else {
            Kind::Failed
        };
        let command = arguments.first().copied().unwrap_or_default();
        let fault = Fault::new(kind, format!("git {command}: {said}")).on(self.remote.1.clone());
        match kind {
            Kind::Denied if said.contains("Host key") => {
                fault.hint("ssh-keyscan HOST >>~/.ssh/known_hosts, when its fingerprint is the right one")
            }
            Kind::Denied => fault.hint("https://USER:TOKEN@HOST/…, or ssh with an agent (SSH_AUTH_SOCK)"),
            _ => fault,
        }
    }
}
