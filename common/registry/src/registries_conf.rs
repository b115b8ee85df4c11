//! `registries.conf` in version 2 (containers-registries.conf(5)): mirrors, other locations, what is insecure or blocked.
//!
//! `unqualified-search-registries`, `short-name-mode` and `aliases` are not used: a name without a registry is one of
//! docker.io, as with docker. Asking several registries in turn gives an image's name to whoever takes it first on any
//! of them.

use crate::paths;
use fault::{Fault, Result};
use oci::Reference;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SYSTEM_FILE: &str = "/etc/containers/registries.conf";
const SYSTEM_FOLDER: &str = "/etc/containers/registries.conf.d";
/// The name under `credential-helpers` for the files of credentials.
pub(crate) const AUTH_FILES: &str = "containers-auth.json";

/// What all files say together.
#[derive(Debug, Default)]
pub(crate) struct RegistriesConf {
    tables: Vec<(Table, Arc<PathBuf>)>,
    /// Whom to ask for credentials, in this order; none if no file says so.
    pub(crate) credential_helpers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Content {
    #[serde(default)]
    registry: Vec<Table>,
    credential_helpers: Option<Vec<String>>,
    /// Version 1.
    registries: Option<toml::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorTable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// A place where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) insecure: bool,
}

/// Where to look for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locations {
    pub(crate) mirrors: Vec<Location>,
    pub(crate) own: Location,
}

impl RegistriesConf {
    /// From the files of this machine and user.
    pub(crate) fn load() -> Result<RegistriesConf> {
        let user = paths::user_containers();
        let mut conf = RegistriesConf::default();
        let of_user = user.as_ref().map(|folder| folder.join("registries.conf")).filter(|file| file.exists());
        if let Some(named) = paths::variable("CONTAINERS_REGISTRIES_CONF") {
            if !conf.add(&named)? {
                let name = named.display();
                return Err(Fault::failed(format!(
                    "CONTAINERS_REGISTRIES_CONF names {name}, which does not exist"
                )));
            }
        } else {
            // A user's file takes the place of the machine's.
            conf.add(&of_user.unwrap_or_else(|| PathBuf::from(SYSTEM_FILE)))?;
        }
        if let Some(folder) = paths::variable("CONTAINERS_REGISTRIES_CONF_DIR") {
            conf.add_folder(&folder)?;
        } else {
            conf.add_folder(Path::new(SYSTEM_FOLDER))?;
            if let Some(folder) = user {
                conf.add_folder(&folder.join("registries.conf.d"))?;
            }
        }
        Ok(conf)
    }

    /// The files `*.conf` of a folder, in the order of their names.
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
        files.sort();
        for file in files {
            self.add(&file)?;
        }
        Ok(())
    }

    /// A table takes the place of an earlier one with the same prefix. False if there is no such file.
    fn add(&mut self, file: &Path) -> Result<bool> {
        let Some(content) = paths::read_toml::<Content>(file)? else { return Ok(false) };
        if content.registries.is_some() {
            return Err(Fault::input(format!(
                "{} is in version 1 of its format, which is not supported",
                file.display()
            ))
            .hint("version 2 has tables [[registry]]: containers-registries.conf(5)"));
        }
        let name = Arc::new(file.to_owned());
        for mut table in content.registry {
            table.complete().map_err(|what| Fault::input(format!("{}: {what}", file.display())))?;
            self.tables.retain(|(other, _)| other.prefix != table.prefix);
            self.tables.push((table, Arc::clone(&name)));
        }
        if let Some(helpers) = content.credential_helpers {
            self.credential_helpers = helpers;
        }
        Ok(true)
    }

    /// The table with the longest prefix that fits, and how much of the name that is.
    fn find(&self, name: &str) -> Option<(&Table, &Path, usize)> {
        let fits = self.tables.iter().filter_map(|(table, file)| {
            matching(&table.prefix, name).map(|length| (table, file.as_path(), length))
        });
        fits.max_by_key(|(table, _, _)| table.prefix.len())
    }

    /// Where a repository is, mirrors first.
    ///
    /// # Errors
    /// [`fault::Kind::Denied`] when it is blocked, [`fault::Kind::Input`] when a location is none.
    pub(crate) fn locations(&self, reference: &Reference) -> Result<Locations> {
        let name = reference.name();
        let as_it_is = || Location {
            domain: reference.domain().to_owned(),
            path: reference.path().to_owned(),
            insecure: false,
        };
        let whole = match (reference.tag(), reference.digest()) {
            (_, Some(digest)) => format!("{name}@{digest}"),
            (Some(tag), None) => format!("{name}:{tag}"),
            (None, None) => name.clone(),
        };
        let Some((table, file, length)) = self.find(&whole) else {
            return Ok(Locations { mirrors: Vec::new(), own: as_it_is() });
        };
        if table.blocked {
            return Err(blocked(&table.prefix, file));
        }
        let rest = name.get(length..).unwrap_or_default();
        let at = |location: &str, insecure: bool| -> Result<Location> {
            // The prefix may be a single image's, with a tag, which no location has.
            if location.is_empty() || location == table.prefix {
                return Ok(Location { insecure, ..as_it_is() });
            }
            split(location, rest).map(|(domain, path)| Location { domain, path, insecure }).ok_or_else(|| {
                Fault::input(format!("{}: location {location:?} is not a registry's name", file.display()))
                    .hint("HOST[:PORT][/PATH], with neither https:// nor a tag")
            })
        };
        let by_digest = reference.digest().is_some();
        let mirrors = table.mirror.iter().filter(|mirror| mirror.serves(table, by_digest));
        Ok(Locations {
            mirrors: mirrors.map(|mirror| at(&mirror.location, mirror.insecure)).collect::<Result<_>>()?,
            own: at(&table.location, table.insecure)?,
        })
    }

    /// Whether a registry as a whole, or a repository of it, is insecure.
    ///
    /// # Errors
    /// [`fault::Kind::Denied`] when it is blocked.
    pub(crate) fn is_insecure(&self, name: &str) -> Result<bool> {
        match self.find(name) {
            Some((table, file, _)) if table.blocked => Err(blocked(&table.prefix, file)),
            found => Ok(found.is_some_and(|(table, _, _)| table.insecure)),
        }
    }
}

impl Table {
    fn complete(&mut self) -> Result<(), String> {
        for text in [&mut self.prefix, &mut self.location] {
            text.truncate(text.trim_end_matches('/').len());
        }
        if self.prefix.is_empty() {
            self.prefix.clone_from(&self.location);
        }
        if self.prefix.is_empty() {
            return Err("a [[registry]] has neither prefix nor location".to_owned());
        }
        if self.location.is_empty() && !self.prefix.starts_with("*.") {
            self.location.clone_from(&self.prefix);
        }
        if self.prefix.trim_start_matches("*.").contains('*') {
            return Err(format!("prefix {:?}: only *.DOMAIN may have an asterisk", self.prefix));
        }
        for mirror in &mut self.mirror {
            mirror.location.truncate(mirror.location.trim_end_matches('/').len());
            if mirror.location.is_empty() {
                return Err(format!("a mirror of {} has no location", self.prefix));
            }
            if !matches!(mirror.pull_from_mirror.as_str(), "" | "all" | "digest-only" | "tag-only") {
                return Err(format!(
                    "pull-from-mirror {:?}: it is all, digest-only or tag-only",
                    mirror.pull_from_mirror
                ));
            }
            if self.mirror_by_digest_only && !mirror.pull_from_mirror.is_empty() {
                return Err("mirror-by-digest-only and pull-from-mirror exclude each other".to_owned());
            }
        }
        Ok(())
    }
}

impl MirrorTable {
    fn serves(&self, of: &Table, by_digest: bool) -> bool {
        match self.pull_from_mirror.as_str() {
            "digest-only" => by_digest,
            "tag-only" => !by_digest,
            "all" => true,
            _ => by_digest || !of.mirror_by_digest_only,
        }
    }
}

fn blocked(prefix: &str, file: &Path) -> Fault {
    Fault::denied(format!("{prefix} is blocked in {}", file.display()))
}

/// How much of a name a prefix covers, if it ends where a component of the name does.
fn matching(prefix: &str, name: &str) -> Option<usize> {
    let ends_well = |end: &usize| matches!(name.as_bytes().get(*end), None | Some(b'/' | b':' | b'@'));
    match prefix.strip_prefix('*') {
        // The rest begins with a full stop: a subdomain has to be before it.
        Some(suffix) => name
            .match_indices(suffix)
            .filter(|(at, _)| *at > 0 && name.get(..*at).is_some_and(|before| !before.contains('/')))
            .map(|(at, _)| at + suffix.len())
            .find(ends_well),
        None => name.starts_with(prefix).then_some(prefix.len()).filter(ends_well),
    }
}

/// A location and what follows the prefix, as registry and repository.
fn split(location: &str, rest: &str) -> Option<(String, String)> {
    let text = format!("{location}{rest}");
    let (domain, path) = text.split_once('/')?;
    let parsed = Reference::parse(&text).ok()?;
    // Docker's own registry completes names of one component, which is not meant here.
    let is_same =
        parsed.domain() == domain && (parsed.path() == path || domain == oci::reference::DEFAULT_DOMAIN);
    (is_same
        && parsed.tag().is_none_or(|tag| !text.ends_with(&format!(":{tag}")))
        && parsed.digest().is_none())
    .then(|| (domain.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::Kind;

    fn conf(text: &str) -> Result<RegistriesConf> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registries.conf");
        std::fs::write(&file, text).unwrap();
        let mut conf = RegistriesConf::default();
        conf.add(&file).map(|_| conf)
    }

    fn names(conf: &RegistriesConf, reference: &str) -> Vec<String> {
        let found = conf.locations(&Reference::parse(reference).unwrap()).unwrap();
        let all = found.mirrors.iter().chain([&found.own]);
        all.map(|place| {
            format!("{}/{}{}", place.domain, place.path, if place.insecure { " insecure" } else { "" })
        })
        .collect()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let conf = conf(
            r#"
            unqualified-search-registries = ["evil.example"]
            [[registry]]
            prefix = "docker.io"
            location = "mirror.example:5000/hub/"
            [[registry.mirror]]
            location = "near.example/cache"
            insecure = true
            [[registry]]
            location = "docker.io/library"
            [[registry]]
            prefix = "*.example.com"
            insecure = true
            [[registry]]
            prefix = "bad.example.com/x"
            blocked = true
            [[registry]]
            prefix = "tagged.example/x:old"
            insecure = true
            "#,
        )
        .unwrap();
        assert_eq!(names(&conf, "debian:12"), ["docker.io/library/debian"]);
        assert_eq!(
            names(&conf, "team/app"),
            ["near.example/cache/team/app insecure", "mirror.example:5000/hub/team/app"]
        );
        assert_eq!(names(&conf, "a.b.example.com/c:1"), ["a.b.example.com/c insecure"]);
        assert_eq!(names(&conf, "tagged.example/x:old"), ["tagged.example/x insecure"]);
        assert_eq!(names(&conf, "tagged.example/x:older"), ["tagged.example/x"]);
        assert_eq!(names(&conf, "a.example.comx/c"), ["a.example.comx/c"]);
        assert_eq!(names(&conf, "docker.iox.example/c"), ["docker.iox.example/c"]);
        let denied = conf.locations(&Reference::parse("bad.example.com/x/y").unwrap()).unwrap_err();
        assert_eq!(denied.kind(), Kind::Denied);
        assert!(conf.is_insecure("q.example.com:5000").unwrap());
        assert!(!conf.is_insecure("example.com").unwrap());
    }

    #[test]
    fn mirrors_may_be_for_digests_or_tags_only() {
        let conf = conf(
            r#"
            credential-helpers = ["containers-auth.json", "pass"]
            [[registry]]
            location = "a.example"
            mirror-by-digest-only = true
            mirror = [{location = "m.example"}]
            [[registry]]
            location = "b.example"
            mirror = [{location = "t.example", pull-from-mirror = "tag-only"}, {location = "d.example/x", pull-from-mirror = "digest-only"}]
            "#,
        )
        .unwrap();
        let digest = format!("@sha256:{}", "a".repeat(64));
        assert_eq!(names(&conf, "a.example/x:1"), ["a.example/x"]);
        assert_eq!(names(&conf, &format!("a.example/x{digest}")), ["m.example/x", "a.example/x"]);
        assert_eq!(names(&conf, "b.example/y"), ["t.example/y", "b.example/y"]);
        assert_eq!(names(&conf, &format!("b.example/y{digest}")), ["d.example/x/y", "b.example/y"]);
        assert_eq!(conf.credential_helpers, [AUTH_FILES, "pass"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("[[registry]]", "neither prefix nor location"),
            ("[registries.search]\nregistries=[\"x\"]", "version 1"),
            ("[[registry]]\nlocation = 5", "line 2"),
            ("[[registry]]\nprefix = \"a.*.example\"", "asterisk"),
            (
                "[[registry]]\nlocation=\"a\"\nmirror=[{location=\"b\", pull-from-mirror=\"sometimes\"}]",
                "sometimes",
            ),
            ("[[registry]]\nlocation=\"a\"\nmirror=[{}]", "no location"),
        ] {
            let fault = conf(text).unwrap_err();
            assert_eq!(fault.kind(), Kind::Input);
            assert!(fault.to_string().contains(word), "{fault}");
        }
        let reference = Reference::parse("a.example/x").unwrap();
        for bad in ["https://b.example", "b", "b.example:tag/..", "../etc", "b.example/x:tag", ""] {
            let text = format!("[[registry]]\nprefix = \"a.example/x\"\nlocation = {bad:?}");
            let found = conf(&text).unwrap().locations(&reference);
            assert_eq!(found.is_err(), !bad.is_empty(), "{bad}");
        }
    }
}
