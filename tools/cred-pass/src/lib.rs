//! A credential helper that keeps logins in the password store: `pass`, which encrypts with gpg.
//!
//! Names are those of docker-credential-pass, so that either can take over from the other:
//! `docker-credential-helpers/<base64url of the server>/<user>`.
#![forbid(unsafe_code)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use credential::{Keychain, Login};
use fault::{Explain, Fault, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const NAME: &str = "cred-pass";
/// Where in the password store.
const FOLDER: &str = "docker-credential-helpers";

pub fn command() -> clap::Command {
    credential::server::command(NAME, "Keep logins encrypted in the password store, pass (a credential helper of docker's protocol)")
        .after_help(
            "Examples:\n  pass init me@example.org   # once: whose key\n  jq '.credsStore = \"staves-pass\"' ~/.docker/config.json   # docker calls it docker-credential-staves-pass\n  echo r.example | cred-pass get | jq -r .Username\n  cred-pass list",
        )
}

pub fn main(arguments: &[OsString]) -> u8 {
    credential::server::main(command(), arguments, || Ok(Box::new(PasswordStore::from_env()?)))
}

#[derive(Debug)]
struct PasswordStore {
    dir: PathBuf,
}

impl PasswordStore {
    fn from_env() -> Result<PasswordStore> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = variable("PASSWORD_STORE_DIR")
            .or_else(|| variable("HOME").map(|home| home.join(".password-store")))
            .ok_or_else(|| Fault::failed("no password store: neither PASSWORD_STORE_DIR nor HOME is set"))?;
        if !dir.join(".gpg-id").is_file() {
            return Err(Fault::failed(format!("there is no password store in {}", dir.display()))
                .hint("pass init KEY makes one"));
        }
        Ok(PasswordStore { dir })
    }

    /// Names in a folder below ours, sorted; none if there is no such folder.
    fn names(&self, below: &str) -> Result<Vec<String>> {
        let folder = self.dir.join(FOLDER).join(below);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).explain(|| format!("read {}", folder.display())),
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Users that have a password for the server.
    fn users(&self, server: &str) -> Result<Vec<String>> {
        let names = self.names(&URL_SAFE.encode(server))?;
        Ok(names.into_iter().filter_map(|name| name.strip_suffix(".gpg").map(str::to_owned)).collect())
    }
}

impl Keychain for PasswordStore {
    fn get(&self, server: &str) -> Result<Login> {
        let user = self.users(server)?.into_iter().next().ok_or_else(|| nothing(server))?;
        let shown = pass(&["show", &path(server, &user)], b"")?;
        let secret = String::from_utf8(shown)
            .map_err(|_| Fault::input(format!("the password for {server} is not text")))?;
        // As docker-credential-pass does: people who edit add a line's end.
        let secret = secret.trim_end_matches(['\n', '\r']).to_owned();
        Ok(Login { server: server.to_owned(), user, secret })
    }

    fn store(&self, login: &Login) -> Result<()> {
        if login.user.contains(['/', '\0']) || login.user.starts_with('.') || login.user.len() > 200 {
            return Err(Fault::input("pass keeps user names as file names, which this one cannot be")
                .hint("cred-file takes any"));
        }
        pass(
            &["insert", "--multiline", "--force", &path(&login.server, &login.user)],
            login.secret.as_bytes(),
        )?;
        // One login for a server: of several, the first by name would be found.
        for user in self.users(&login.server)? {
            if user != login.user {
                pass(&["rm", "--force", &path(&login.server, &user)], b"")?;
            }
        }
        Ok(())
    }

    fn erase(&self, server: &str) -> Result<()> {
        if self.names(&URL_SAFE.encode(server))?.is_empty() {
            return Err(nothing(server));
        }
        pass(&["rm", "--recursive", "--force", &format!("{FOLDER}/{}", URL_SAFE.encode(server))], b"")
            .map(drop)
    }

    fn list(&self) -> Result<BTreeMap<String, String>> {
        let mut list = BTreeMap::new();
        for name in self.names("")? {
            let server = URL_SAFE.decode(&name).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let Some(server) = server else { continue };
            if let Some(user) = self.users(&server)?.into_iter().next() {
                list.insert(server, user);
            }
        }
        Ok(list)
    }
}

fn path(server: &str, user: &str) -> String {
    format!("{FOLDER}/{}/{user}", URL_SAFE.encode(server))
}

/// Runs `pass`, the secret on stdin or stdout, never among its arguments.
fn pass(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let spawned = Command::new("pass")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            Fault::failed("pass is not installed").hint("apt-get install pass, or use cred-file")
        }
        _ => Fault::failed("run pass").because(error),
    })?;
    let failed = |error| Fault::failed("talk to pass").because(error);
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // It says itself why it reads nothing.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // gpg's reason comes before pass's own word.
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
    let why: String =
        if last.is_empty() { "it does not say why".to_owned() } else { last.chars().take(300).collect() };
    let action = arguments.first().copied().unwrap_or_default();
    Err(Fault::failed(format!("pass failed to {action}: {why}")))
}

fn nothing(server: &str) -> Fault {
    Fault::not_found(format!("nothing is kept for {server}"))
}
