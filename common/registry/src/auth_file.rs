//! Changing a file of logins, docker's `config.json` or containers' `auth.json`: nothing else in it changes.

use crate::paths;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fault::{Explain, Fault, Kind, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use store::{Lock, atomic};

/// What to write under `auths`.
pub(crate) enum Entry<'a> {
    Password {
        user: &'a str,
        password: &'a str,
    },
    IdentityToken(&'a str),
    /// A helper has it: docker lists it all the same.
    InHelper,
}

/// Writes the entry of `key` and takes away what else is under `others`.
pub(crate) fn put(file: &Path, key: &str, others: &[String], entry: &Entry<'_>) -> Result<()> {
    change(file, |auths| {
        let value = match entry {
            Entry::Password { user, password } => json!({"auth": STANDARD.encode(format!("{user}:{password}"))}),
            Entry::IdentityToken(token) => json!({"auth": STANDARD.encode("00000000-0000-0000-0000-000000000000:"), "identitytoken": token}),
            Entry::InHelper => json!({}),
        };
        for other in others.iter().filter(|other| *other != key) {
            // Not `remove`, which moves the last member into the gap.
            auths.shift_remove(other);
        }
        auths.insert(key.to_owned(), value);
        true
    })
    .map(drop)
}

/// Takes away what is under these keys; false if there was nothing.
pub(crate) fn remove(file: &Path, keys: &[String]) -> Result<bool> {
    if paths::read(file)?.is_none() {
        return Ok(false);
    }
    change(file, |auths| {
        let mut found = false;
        for key in keys {
            found |= auths.shift_remove(key).is_some();
        }
        found
    })
}

/// Reads the file, lets `act` change its `auths` and writes it again if that says so.
fn change(file: &Path, act: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool> {
    // A link to the real file, as people have who keep their configuration elsewhere, stays one.
    let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let name = target.display();
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .explain(|| format!("make directory {}", folder.display()))?;
    let _lock = Lock::exclusive(folder)?;
    let text = paths::read(&target)?.unwrap_or_default();
    let mut content: Map<String, Value> = if text.iter().all(u8::is_ascii_whitespace) {
        Map::new()
    } else {
        // The parser's message would quote what is around the error, a password perhaps.
        serde_json::from_slice(&text).map_err(|error| {
            Fault::input(format!(
                "{name} is not a file of credentials: line {} column {}",
                error.line(),
                error.column()
            ))
        })?
    };
    let auths = content.entry("auths").or_insert_with(|| json!({}));
    if auths.is_null() {
        *auths = json!({});
    }
    let auths =
        auths.as_object_mut().ok_or_else(|| Fault::input(format!("{name}: \"auths\" is not an object")))?;
    if !act(auths) {
        return Ok(false);
    }
    let mut text = Vec::new();
    // As docker writes it.
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    content
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
        .explain_as(Kind::Failed, || format!("write {name}"))?;
    text.push(b'\n');
    let owner = std::fs::metadata(&target).ok().map(|metadata| (metadata.uid(), metadata.gid()));
    atomic::write(&target, &text, 0o600)?;
    if let Some((user, group)) = owner.filter(|_| rustix::process::geteuid().is_root()) {
        // Root working in a user's directory: the file stays that user's.
        std::os::unix::fs::chown(&target, Some(user), Some(group))
            .explain(|| format!("give {name} to its owner"))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.json");
        let file = dir.path().join("below/config.json");
        std::fs::write(&real, r#"{"zzz":{"b":1,"a":[2]},"auths":{"x":{"auth":"eA=="},"https://r/v1/":{},"y":{}},"credHelpers":{"e":"f"}}"#).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&real, &file).unwrap();
        put(&file, "r", &["https://r/v1/".into(), "r".into()], &Entry::Password { user: "u", password: "p" })
            .unwrap();
        let text = std::fs::read_to_string(&real).unwrap();
        let expected = json!({"zzz":{"b":1,"a":[2]},"auths":{"x":{"auth":"eA=="},"y":{},"r":{"auth":"dTpw"}},"credHelpers":{"e":"f"}});
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap().to_string(), expected.to_string());
        assert!(text.contains("\n\t\"auths\": {\n"), "{text}");
        assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file.is_symlink());
        assert!(remove(&file, &["r".into()]).unwrap());
        assert!(!remove(&file, &["r".into()]).unwrap());
        let missing = dir.path().join("no/such");
        assert!(!remove(&missing, &["r".into()]).unwrap());
        assert!(!missing.parent().unwrap().exists());
        put(&missing, "r", &[], &Entry::IdentityToken("t")).unwrap();
        assert_eq!(std::fs::metadata(&missing).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_such_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        for bad in ["[]", "{\"auths\":[]}", "{\"auths\":{\"x\":{\"auth\":hunter2", "{"] {
            std::fs::write(&file, bad).unwrap();
            let fault = put(&file, "r", &[], &Entry::InHelper).unwrap_err();
            assert_eq!(fault.kind(), Kind::Input);
            assert!(!fault.to_string().contains("hunter2"));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), bad);
        }
        std::fs::write(&file, "{\"auths\":null}\n").unwrap();
        put(&file, "r", &[], &Entry::InHelper).unwrap();
    }
}
