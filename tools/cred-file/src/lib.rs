//! A credential helper that keeps logins in a file of its user's own.
#![forbid(unsafe_code)]

use credential::{Keychain, Login};
use fault::{Explain, Fault, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use store::{Lock, atomic};

const NAME: &str = "cred-file";
/// Thousands of logins.
const MAX_FILE_BYTES: u64 = 16 << 20;

pub fn command() -> clap::Command {
    credential::server::command(NAME, "Keep logins in a file (a credential helper of docker's protocol)")
        .long_about(
            "Keep logins in a file (a credential helper of docker's protocol)\n\nThe file is STAVES_CREDENTIALS, \
             or credentials.json in $XDG_DATA_HOME/staves, of mode 0600. It is not encrypted: it keeps other users \
             out, and passwords out of docker's config.json; root, this user's own programs and whoever has the \
             disk can read it. cred-pass encrypts.",
        )
        .after_help(
            "Examples:\n  jq '.credsStore = \"staves-file\"' ~/.docker/config.json   # docker calls it docker-credential-staves-file\n  echo '{\"ServerURL\":\"r.example\",\"Username\":\"me\",\"Secret\":\"s\"}' | cred-file store\n  echo r.example | cred-file get | jq -r .Username\n  cred-file list",
        )
}

pub fn main(arguments: &[OsString]) -> u8 {
    credential::server::main(command(), arguments, || Ok(Box::new(CredentialFile::from_env()?)))
}

#[derive(Debug)]
struct CredentialFile {
    path: PathBuf,
}

/// What is in the file.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    logins: BTreeMap<String, Kept>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    user: String,
    secret: String,
}

impl CredentialFile {
    fn from_env() -> Result<CredentialFile> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let default = || {
            variable("XDG_DATA_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
                .map(|data| data.join("staves/credentials.json"))
        };
        let path = variable("STAVES_CREDENTIALS").or_else(default).ok_or_else(|| {
            Fault::failed("no place for credentials: neither STAVES_CREDENTIALS nor HOME is set")
        })?;
        Ok(CredentialFile { path })
    }

    fn read(&self) -> Result<Content> {
        let name = || self.path.display().to_string();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Content::default()),
            Err(error) => return Err(error).explain(|| format!("open {}", name())),
        };
        let metadata = file.metadata().explain(|| format!("look at {}", name()))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(Fault::denied(format!("others than its owner have access to {}", name())).hint(
                format!("chmod 600 {}, and change the passwords in it if others have read it", name()),
            ));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).explain(|| format!("read {}", name()))?;
        // The parser's message would quote what is around the error, a secret perhaps.
        let content: Option<Content> = serde_json::from_slice(&bytes).ok();
        content
            .filter(|content| content.version == 1)
            .ok_or_else(|| Fault::input(format!("{} is not a file of cred-file's", name())))
    }

    /// Changes the file; nobody else does meanwhile.
    fn change(&self, act: impl FnOnce(&mut Content) -> Result<()>) -> Result<()> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .explain(|| format!("make directory {}", folder.display()))?;
        let mut lock = self.path.clone().into_os_string();
        lock.push(".lock");
        let _lock = Lock::exclusive(Path::new(&lock))?;
        let mut content = self.read()?;
        content.version = 1;
        act(&mut content)?;
        let mut text = serde_json::to_vec_pretty(&content)
            .explain_as(Kind::Failed, || "write credentials".to_owned())?;
        text.push(b'\n');
        // A link stays one.
        let target = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        atomic::write(&target, &text, 0o600)
    }
}

impl Keychain for CredentialFile {
    fn get(&self, server: &str) -> Result<Login> {
        let kept = self.read()?.logins.remove(server).ok_or_else(|| nothing(server))?;
        Ok(Login { server: server.to_owned(), user: kept.user, secret: kept.secret })
    }

    fn store(&self, login: &Login) -> Result<()> {
        self.change(|content| {
            let kept = Kept { user: login.user.clone(), secret: login.secret.clone() };
            content.logins.insert(login.server.clone(), kept);
            Ok(())
        })
    }

    fn erase(&self, server: &str) -> Result<()> {
        // Nothing is made where there is nothing.
        if !self.read()?.logins.contains_key(server) {
            return Err(nothing(server));
        }
        self.change(|content| content.logins.remove(server).map(drop).ok_or_else(|| nothing(server)))
    }

    fn list(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.read()?.logins.into_iter().map(|(server, kept)| (server, kept.user)).collect())
    }
}

fn nothing(server: &str) -> Fault {
    Fault::not_found(format!("nothing is kept for {server}"))
}
