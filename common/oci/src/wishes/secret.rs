//! `--secret`: where a secret comes from and where in the container it goes. What it is, nobody here gets to know.

use super::is_name;
use fault::{Fault, Result};
use serde::{Deserialize, Serialize};

/// Where secrets are in a container unless told otherwise.
const PLACE: &str = "/run/secrets";

/// A secret that makes sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub name: String,
    pub source: SecretSource,
    pub goes: SecretGoes,
}

/// Read when the container starts, each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// `$STAVES_ROOT/secrets/<name>`.
    Named(String),
    /// An absolute path on the host.
    File(String),
    /// A variable of whoever starts the container.
    Variable(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretGoes {
    File {
        /// Absolute, clean.
        target: String,
        uid: u32,
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
    Variable(String),
}

/// `NAME[,key=value…]` as podman has it, or `id=…,src=…` as docker has it.
pub fn secret(text: &str) -> Result<Secret> {
    let wrong = |why: String| {
        Fault::input(format!("\"{text}\" is not a secret: {why}")).hint(
            "NAME[,type=mount|env,target=…,uid=…,gid=…,mode=…], or id=NAME,src=FILE, or id=NAME,env=VARIABLE",
        )
    };
    let (mut name, mut source, mut variable, mut target) = (None, None, None, None);
    let (mut as_variable, mut uid, mut gid, mut mode) = (false, None, None, None);
    for (place, field) in text.split(',').enumerate() {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), value),
            None if place == 0 => ("id".to_owned(), field),
            None => return Err(wrong(format!("\"{field}\" has no value"))),
        };
        if value.is_empty() || value.contains('\0') {
            return Err(wrong(format!("{key} has no value")));
        }
        let number = || {
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            value
                .parse::<u32>()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| wrong(format!("{key} is not a number")))
        };
        match key.as_str() {
            "id" => name = Some(value.to_owned()),
            "src" | "source" if value.contains('/') => source = Some(value.to_owned()),
            "src" | "source" if name.is_none() => name = Some(value.to_owned()),
            "src" | "source" => source = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            "target" | "dst" | "destination" => target = Some(value.to_owned()),
            "type" => match value {
                "mount" | "file" => as_variable = false,
                "env" => as_variable = true,
                other => return Err(wrong(format!("there is no type {other}"))),
            },
            "uid" => uid = Some(number()?),
            "gid" => gid = Some(number()?),
            "mode" => {
                let digits = value.strip_prefix("0o").unwrap_or(value);
                let bits = u32::from_str_radix(digits, 8)
                    .ok()
                    .filter(|bits| *bits <= 0o7777 && !digits.starts_with('+'));
                mode = Some(bits.ok_or_else(|| wrong("mode is not octal permissions".to_owned()))?);
            }
            _ => return Err(wrong(format!("there is no key \"{key}\""))),
        }
    }
    let name = match (name, &source) {
        (Some(name), _) => name,
        (None, Some(source)) => source.rsplit('/').next().unwrap_or_default().to_owned(),
        (None, None) => variable.clone().ok_or_else(|| wrong("it has no name".to_owned()))?,
    };
    if !is_name(&name) {
        return Err(wrong(format!("\"{name}\" is not a name")));
    }
    let source = match (source, variable) {
        (Some(_), Some(_)) => return Err(wrong("src and env exclude each other".to_owned())),
        (Some(file), None) => SecretSource::File(file),
        (None, Some(variable)) if is_variable(&variable) => SecretSource::Variable(variable),
        (None, Some(variable)) => return Err(wrong(format!("\"{variable}\" is not a variable"))),
        (None, None) => SecretSource::Named(name.clone()),
    };
    let goes = if as_variable {
        if uid.or(gid).or(mode).is_some() {
            return Err(wrong("uid, gid and mode are a file's, not a variable's".to_owned()));
        }
        let target = target.unwrap_or_else(|| name.clone());
        if !is_variable(&target) {
            return Err(wrong(format!("\"{target}\" is not a variable: type=env needs target=VARIABLE")));
        }
        SecretGoes::Variable(target)
    } else {
        let target = target.unwrap_or_else(|| name.clone());
        let target = if target.starts_with('/') { target } else { format!("{PLACE}/{target}") };
        let target = super::mount::clean_target(&target).map_err(|fault| wrong(fault.to_string()))?;
        if target == "/proc" || target.starts_with("/proc/") {
            return Err(wrong("nothing can be mounted over /proc or inside it".to_owned()));
        }
        SecretGoes::File { target, uid: uid.unwrap_or(0), gid: gid.unwrap_or(0), mode: mode.unwrap_or(0o444) }
    };
    Ok(Secret { name, source, goes })
}

fn is_variable(name: &str) -> bool {
    name.len() <= 4096 && !name.is_empty() && !name.contains(['=', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        let file = |target: &str, uid, gid, mode| SecretGoes::File { target: target.into(), uid, gid, mode };
        for (text, name, source, goes) in [
            ("db", "db", SecretSource::Named("db".into()), file("/run/secrets/db", 0, 0, 0o444)),
            (
                "db,target=/etc/x/../pw,uid=5,gid=6,mode=0400",
                "db",
                SecretSource::Named("db".into()),
                file("/etc/pw", 5, 6, 0o400),
            ),
            (
                "db,type=env,target=PW",
                "db",
                SecretSource::Named("db".into()),
                SecretGoes::Variable("PW".into()),
            ),
            ("id=k,src=/a/b", "k", SecretSource::File("/a/b".into()), file("/run/secrets/k", 0, 0, 0o444)),
            ("id=k,env=V", "k", SecretSource::Variable("V".into()), file("/run/secrets/k", 0, 0, 0o444)),
            ("source=k,target=t", "k", SecretSource::Named("k".into()), file("/run/secrets/t", 0, 0, 0o444)),
        ] {
            assert_eq!(secret(text).unwrap(), Secret { name: name.into(), source, goes }, "{text}");
        }
        for wrong in [
            "",
            ",",
            "a/b",
            "../x",
            "db,",
            "db,uid=x",
            "db,uid=+1",
            "db,mode=9",
            "db,type=x",
            "db,colour=red",
            "db,src=/a,env=B",
            "db,type=env,uid=5",
            "db,target=/",
            "db,target=../../..",
            "db,target=/proc/self/x",
            "db,target=\0",
        ] {
            assert!(secret(wrong).is_err(), "{wrong}");
        }
    }
}
