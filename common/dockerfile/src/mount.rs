//! `RUN --mount`.

#[cfg(test)]
mod tests;

use crate::{Problem, suggest};
use serde::Serialize;

/// A mount as written. All but `from` may hold variables, so that the rest is read when they have values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flag {
    pub text: String,
    pub from: Option<String>,
}

/// `sharing` of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// Owner and mode of what is made for a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ownership {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const KINDS: [(&str, Kind); 5] = [
    ("bind", Kind::Bind),
    ("cache", Kind::Cache),
    ("tmpfs", Kind::Tmpfs),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
];

const SHARING: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A mount with its variables expanded; nothing of it means anything yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub kind: Kind,
    pub from: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub size: Option<u64>,
    pub id: String,
    pub sharing: Option<Sharing>,
    pub required: bool,
    pub env: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Fields {
    pub fn has_ownership(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some()
    }

    pub fn ownership(&self, mode: u32) -> Ownership {
        Ownership { uid: self.uid.unwrap_or(0), gid: self.gid.unwrap_or(0), mode: self.mode.unwrap_or(mode) }
    }
}

impl Flag {
    /// What has to be known before anything is expanded: where the files come from.
    pub(crate) fn read(text: &str) -> Result<Flag, Problem> {
        let mut from = None;
        for field in fields(text)? {
            let Some((key, value)) = field.split_once('=') else { continue };
            if !key.eq_ignore_ascii_case("from") {
                continue;
            }
            if value.find('$').is_some_and(|position| position + 1 != value.len()) {
                return Err(Problem::new("from= of a mount doesn't support variables")
                    .hint("define a stage for it: FROM $IMAGE AS name, then from=name"));
            }
            from = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        Ok(Flag { text: text.to_owned(), from })
    }

    /// Whether it is the same in every scope.
    pub(crate) fn is_constant(&self, escape: char) -> bool {
        !self.text.contains(['$', '\'', '"', escape])
    }

    /// With `expand` for every value.
    pub(crate) fn resolve(
        &self,
        expand: &mut dyn FnMut(&str) -> Result<String, Problem>,
    ) -> Result<Fields, Problem> {
        let mut mount = Fields::default();
        let mut read_only = None;
        for field in fields(&self.text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(expand(value)?)),
                None => (field.to_ascii_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("readonly" | "ro", None) => read_only = Some(true),
                ("readwrite" | "rw", None) => read_only = Some(false),
                ("required", None) => {
                    mount.required = required(mount.kind)?;
                }
                (_, None) => {
                    return Err(unknown(&key, &field, "it has to be name=value"));
                }
                ("readonly" | "ro", Some(value)) => read_only = Some(flag(&key, &value)?),
                ("readwrite" | "rw", Some(value)) => read_only = Some(!flag(&key, &value)?),
                (_, Some(value)) => mount.set(&key, value, &field)?,
            }
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, Kind::Cache | Kind::Tmpfs));
        mount.check()?;
        Ok(mount)
    }
}

impl Fields {
    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), Problem> {
        match key {
            "type" => self.kind = choose("type", &value, &KINDS)?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "id" => self.id = value,
            "env" => self.env = Some(value),
            "sharing" => self.sharing = Some(choose("sharing", &value, &SHARING)?),
            "required" => self.required = required(self.kind)? && flag(key, &value)?,
            "size" if self.kind != Kind::Tmpfs => return Err(not_of(key, self.kind)),
            "size" => {
                let size = oci::wishes::bytes(&value).map_err(|_| no_value(key, &value))?;
                self.size = Some(size).filter(|size| *size > 0);
            }
            "mode" => {
                let mode = u32::from_str_radix(&value, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode =
                    Some(mode.ok_or_else(|| no_value(key, &value).hint("an octal number: mode=0400"))?);
            }
            "uid" => self.uid = Some(value.parse().map_err(|_| no_value(key, &value))?),
            "gid" => self.gid = Some(value.parse().map_err(|_| no_value(key, &value))?),
            _ => return Err(unknown(key, field, "unexpected key")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Problem> {
        let refuse = |what: &str| Err(Problem::new(format!("{} mount: {what}", self.kind.name())));
        if self.has_ownership() && matches!(self.kind, Kind::Bind | Kind::Tmpfs) {
            return refuse("mode, uid and gid are of caches, secrets and ssh");
        }
        if self.sharing.is_some() && self.kind != Kind::Cache {
            return refuse("sharing is of caches");
        }
        if self.env.is_some() && self.kind != Kind::Secret {
            return refuse("env is of secrets");
        }
        match self.kind {
            Kind::Secret if !self.from.is_empty() => refuse("it has no from"),
            Kind::Secret if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() => {
                refuse("one of id, source and target is required")
            }
            Kind::Secret if !self.source.is_empty() && !self.id.is_empty() => {
                refuse("source and id are the same thing: give one")
            }
            Kind::Ssh if !self.source.is_empty() => refuse("it has no source"),
            _ => Ok(()),
        }
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

fn required(kind: Kind) -> Result<bool, Problem> {
    match kind {
        Kind::Secret | Kind::Ssh => Ok(true),
        kind => Err(not_of("required", kind)),
    }
}

fn choose<T: Copy>(key: &str, value: &str, known: &[(&'static str, T)]) -> Result<T, Problem> {
    let lower = value.to_ascii_lowercase();
    if let Some((_, chosen)) = known.iter().find(|(name, _)| *name == lower) {
        return Ok(*chosen);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let hint = suggest::hint(&lower, names.iter().copied()).unwrap_or_else(|| names.join(", "));
    Err(Problem::new(format!("unsupported {key} {:?} of a mount", crate::problem::shorten(value))).hint(hint))
}

fn flag(key: &str, value: &str) -> Result<bool, Problem> {
    boolean(value).ok_or_else(|| no_value(key, value).hint("true or false"))
}

fn no_value(key: &str, value: &str) -> Problem {
    Problem::new(format!("mount: {:?} is no value for {key}", crate::problem::shorten(value)))
}

fn not_of(key: &str, kind: Kind) -> Problem {
    Problem::new(format!("a mount of type {} has no {key}", kind.name()))
        .hint("type= comes before what belongs to it")
}

fn unknown(key: &str, field: &str, what: &str) -> Problem {
    let problem = Problem::new(format!("mount: {:?}: {what}", crate::problem::shorten(field)));
    match suggest::hint(key, KEYS) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// As Go's `strconv.ParseBool` has them.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The fields of a line of comma-separated values (RFC 4180).
pub(crate) fn fields(text: &str) -> Result<Vec<String>, Problem> {
    let malformed = || Problem::new(format!("malformed list: {}", crate::problem::shorten(text)));
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if field.contains('"') {
                return Err(malformed());
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => break,
            }
            continue;
        };
        let mut field = String::new();
        rest = quoted;
        // A quote that is doubled is one of the text.
        loop {
            let (part, after) = rest.split_once('"').ok_or_else(malformed)?;
            field.push_str(part);
            rest = after;
            match after.strip_prefix('"') {
                Some(after) => rest = after,
                None => break,
            }
            field.push('"');
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => break,
            None => return Err(malformed()),
        }
    }
    Ok(fields)
}
