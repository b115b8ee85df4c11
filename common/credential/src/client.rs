//! Calling a helper.

use crate::{Login, MAX_BYTES, NOT_FOUND};
use fault::{Explain, Fault, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// It may ask the user for a passphrase, so not short.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A helper by its name, `pass` for the program `docker-credential-pass`.
#[derive(Clone, Debug)]
pub struct Helper {
    program: OsString,
    timeout: Duration,
}

impl Helper {
    /// # Errors
    /// [`Kind::Input`] for a name that could lead to a program elsewhere than in `PATH`.
    pub fn new(name: &str) -> Result<Helper> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || name.starts_with(['-', '.']) || !name.bytes().all(is_plain) {
            let shown: String = name.chars().take(64).collect();
            return Err(Fault::input(format!("{shown:?} is not a name of a credential helper"))
                .hint("it is what follows docker-credential- in the program's name, as in \"pass\""));
        }
        Ok(Helper { program: format!("docker-credential-{name}").into(), timeout: TIMEOUT })
    }

    /// Name of its program.
    pub fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// What it keeps for a server; `None` if it keeps nothing.
    pub fn get(&self, server: &str) -> Result<Option<Login>> {
        let Some(answer) = self.call("get", server.as_bytes())? else { return Ok(None) };
        // The parser's message would quote what is around the error, a secret perhaps.
        let login: Login = serde_json::from_slice(&answer)
            .map_err(|_| self.fault(Kind::Input, "does not answer with credentials"))?;
        Ok(Some(login).filter(|login| !login.secret.is_empty() || !login.user.is_empty()))
    }

    /// Keeps it in place of what there was for the server.
    pub fn store(&self, login: &Login) -> Result<()> {
        let text = serde_json::to_vec(login).explain(|| "write credentials".to_owned())?;
        self.call("store", &text).map(drop)
    }

    /// Forgets what it keeps for a server; nothing is fine too.
    pub fn erase(&self, server: &str) -> Result<()> {
        self.call("erase", server.as_bytes()).map(drop)
    }

    /// User names by server.
    pub fn list(&self) -> Result<BTreeMap<String, String>> {
        let Some(answer) = self.call("list", b"")? else { return Ok(BTreeMap::new()) };
        // Go's helpers print an empty map as null.
        let list: Option<BTreeMap<String, String>> = serde_json::from_slice(&answer)
            .map_err(|_| self.fault(Kind::Input, "does not answer with a list of servers"))?;
        Ok(list.unwrap_or_default())
    }

    /// What it says to an action; `None` if it has nothing for the server.
    fn call(&self, action: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
        if input.len() > MAX_BYTES {
            return Err(self.fault(Kind::Input, "gets no more than a megabyte"));
        }
        // stderr stays this tool's own: a helper may have to talk to the user.
        let spawned =
            Command::new(&self.program).arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| match error.kind() {
            ErrorKind::NotFound => self
                .fault(Kind::Failed, "is not installed")
                .hint("install it, or take it out of credsStore, credHelpers or credential-helpers"),
            _ => self.fault(Kind::Failed, "cannot be run").because(error),
        })?;
        let talked = self.talk(&mut child, input);
        if talked.is_err() {
            // What is being reported matters more.
            let _ = child.kill();
            let _ = child.wait();
        }
        let (answer, is_success) = talked?;
        if is_success {
            return Ok(Some(answer));
        }
        let said = String::from_utf8_lossy(&answer).trim().to_owned();
        if said == NOT_FOUND {
            return Ok(None);
        }
        let said: String = said.chars().take(200).collect();
        let why = if said.is_empty() { "it does not say why" } else { &said };
        Err(self.fault(Kind::Failed, &format!("failed to {action}: {why}")))
    }

    fn talk(&self, child: &mut Child, input: &[u8]) -> Result<(Vec<u8>, bool)> {
        let deadline = Instant::now() + self.timeout;
        let broken = |error: std::io::Error| self.fault(Kind::Failed, "cannot be talked to").because(error);
        let mut stdin = child.stdin.take();
        let mut stdout = child.stdout.take().ok_or_else(|| self.fault(Kind::Failed, "has no stdout"))?;
        if let Some(stdin) = &stdin {
            // One that reads nothing must not hold this up.
            let flags = fcntl_getfl(stdin).map_err(|error| broken(error.into()))?;
            fcntl_setfl(stdin, flags | OFlags::NONBLOCK).map_err(|error| broken(error.into()))?;
        }
        let mut rest = input;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let ready = {
                let mut waited = vec![PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN)];
                waited.extend(
                    stdin.as_ref().map(|stdin| PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT)),
                );
                let left = self.time_left(deadline)?;
                let left = Timespec::try_from(left).unwrap_or_default();
                match poll(&mut waited, Some(&left)) {
                    Err(rustix::io::Errno::INTR) => continue,
                    other => other.map_err(|error| broken(error.into()))?,
                };
                waited.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>()
            };
            if ready.get(1) == Some(&true) && give(&mut stdin, &mut rest) {
                stdin = None;
            }
            if ready.first() == Some(&true) {
                let read = stdout.read(&mut chunk).map_err(broken)?;
                if read == 0 {
                    break;
                }
                answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
                if answer.len() > MAX_BYTES {
                    return Err(self.fault(Kind::Input, "says more than a megabyte"));
                }
            }
        }
        drop(stdin);
        loop {
            if let Some(status) = child.try_wait().map_err(broken)? {
                return Ok((answer, status.success()));
            }
            self.time_left(deadline)?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn time_left(&self, deadline: Instant) -> Result<Duration> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what = format!("does not answer within {} seconds", self.timeout.as_secs_f32());
            return Err(self.fault(Kind::Retryable, &what));
        }
        Ok(left)
    }

    fn fault(&self, kind: Kind, what: &str) -> Fault {
        Fault::new(kind, format!("the credential helper {} {what}", self.program()))
    }
}

/// Writes what fits; true when there is no more to write or nobody who reads.
fn give(stdin: &mut Option<ChildStdin>, rest: &mut &[u8]) -> bool {
    let Some(stdin) = stdin else { return true };
    match stdin.write(rest) {
        Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        // It may know enough without reading all.
        Err(_) => return true,
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn helper(script: &str) -> (tempfile::TempDir, Helper) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-test");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, Helper { program: program.into(), timeout: Duration::from_secs(5) })
    }

    #[test]
    fn names_are_no_paths() {
        assert_eq!(Helper::new("ecr-login").unwrap().program(), "docker-credential-ecr-login");
        for bad in ["", "../x", "a/b", "-x", ".", "a b", "a\0", "é", &"x".repeat(65)] {
            assert_eq!(Helper::new(bad).unwrap_err().kind(), Kind::Input, "{bad:?}");
        }
    }

    #[test]
    fn answers_are_understood() {
        let (_dir, good) = helper(
            r#"case $1 in
            get) read -r server; printf '{"ServerURL":"%s","Username":"u","Secret":"s"}' "$server";;
            list) echo null;;
            store) cat >"$0.stored";;
            erase) echo 'credentials not found in native keychain'; exit 1;;
            esac"#,
        );
        let login = Login { server: "r.example".into(), user: "u".into(), secret: "s".into() };
        assert_eq!(good.get("r.example").unwrap(), Some(login.clone()));
        assert!(good.list().unwrap().is_empty());
        good.store(&login).unwrap();
        let stored = std::fs::read(format!("{}.stored", good.program())).unwrap();
        assert_eq!(serde_json::from_slice::<Login>(&stored).unwrap(), login);
        good.erase("r.example").unwrap();
    }

    #[test]
    fn hostile_helpers_end() {
        for (script, kind, word) in [
            ("echo hunter2", Kind::Input, "does not answer with credentials"),
            ("echo out of order; exit 3", Kind::Failed, "out of order"),
            ("exit 1", Kind::Failed, "it does not say why"),
            ("yes", Kind::Input, "more than a megabyte"),
            ("exec sleep 60 >/dev/null", Kind::Retryable, "does not answer"),
            ("exec sleep 60", Kind::Retryable, "does not answer"),
        ] {
            let (_dir, mut bad) = helper(script);
            if kind == Kind::Retryable {
                bad.timeout = Duration::from_millis(200);
            }
            let fault = bad.get("x").unwrap_err();
            assert_eq!(fault.kind(), kind, "{script}");
            assert!(fault.to_string().contains(word), "{fault}");
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
        // It reads nothing of what does not fit into a pipe, and ends.
        let (_dir, deaf) = helper("exit 0");
        let login = Login { secret: "x".repeat(500_000), ..Login::default() };
        deaf.store(&login).unwrap();
        let missing = Helper::new("no-such-helper-anywhere").unwrap().get("x").unwrap_err();
        assert!(missing.to_string().contains("is not installed"), "{missing}");
    }
}
