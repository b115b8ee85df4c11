//! Who to log in as: docker's `config.json` and containers' `auth.json` (containers-auth.json(5)), with the credential
//! helpers they name and those of `registries.conf`. Read only when a registry asks.

use crate::paths;
use crate::registries_conf::AUTH_FILES;
use crate::repository::lock;
use crate::transport::Transport;
use credential::{Helper, Login, TOKEN_USER};
use fault::{Explain, Fault, Kind, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The key docker keeps its own registry under.
pub(crate) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// How long what a helper said is believed: asking takes it up to seconds, and some give out what expires.
const HELPER_TRUST: Duration = Duration::from_mins(5);
const MAX_ANSWERS: usize = 64;

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// What an OAuth 2 server gave in place of a password.
    IdentityToken(String),
}

// Never derived: a password may not reach a log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl From<Login> for Credentials {
    fn from(login: Login) -> Credentials {
        match login.user.as_str() {
            TOKEN_USER => Credentials::IdentityToken(login.secret),
            _ => Credentials::Password { user: login.user, password: login.secret },
        }
    }
}

impl Credentials {
    /// The user's name, or what helpers have in its place for an identity token.
    pub(crate) fn user(&self) -> &str {
        match self {
            Credentials::Password { user, .. } => user,
            Credentials::IdentityToken(_) => TOKEN_USER,
        }
    }
}

/// What helpers said a short while ago, by program and server.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Mutex<HashMap<(String, String), HelperAnswer>>);

#[derive(Debug)]
struct HelperAnswer {
    since: Instant,
    login: Option<Login>,
}

impl Helpers {
    fn get(&self, helper: &Helper, server: &str) -> Result<Option<Login>> {
        let key = (helper.program(), server.to_owned());
        if let Some(answer) = lock(&self.0).get(&key)
            && answer.since.elapsed() < HELPER_TRUST
        {
            return Ok(answer.login.clone());
        }
        let login = helper.get(server)?;
        let mut all = lock(&self.0);
        if all.len() >= MAX_ANSWERS {
            all.clear();
        }
        all.insert(key, HelperAnswer { since: Instant::now(), login: login.clone() });
        Ok(login)
    }
}

#[derive(Default, Deserialize)]
pub(crate) struct AuthFile {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    /// Helper of everything, docker's.
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    /// Helpers by registry.
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    #[serde(rename = "auth")]
    encoded: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// From the first file or helper that has something for the repository or its registry.
pub(crate) fn find(transport: &Transport, domain: &str, path: &str) -> Result<Option<Credentials>> {
    let configured = &transport.registries()?.credential_helpers;
    if configured.is_empty() {
        return find_in_files(&transport.helpers, &files(), domain, path);
    }
    for name in configured {
        let found = match name.as_str() {
            AUTH_FILES => find_in_files(&transport.helpers, &files(), domain, path)?,
            name => ask(&transport.helpers, name, domain)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn find_in_files(
    helpers: &Helpers,
    files: &[PathBuf],
    domain: &str,
    path: &str,
) -> Result<Option<Credentials>> {
    for file in files {
        if let Some(found) = find_in(helpers, file, domain, path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where logins are kept: as podman and docker look for them.
pub(crate) fn files() -> Vec<PathBuf> {
    if let Some(file) = paths::variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    // Without a runtime directory podman and skopeo make do with one of the user's number.
    let runtime = match paths::variable("XDG_RUNTIME_DIR") {
        Some(folder) => folder.join("containers"),
        None => PathBuf::from(format!("/run/containers/{}", rustix::process::getuid().as_raw())),
    };
    [
        Some(runtime.join("auth.json")),
        paths::user_containers().map(|folder| folder.join("auth.json")),
        docker_file(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// docker's `config.json`.
pub(crate) fn docker_file() -> Option<PathBuf> {
    let below_home = || paths::variable("HOME").map(|home| home.join(".docker"));
    paths::variable("DOCKER_CONFIG").or_else(below_home).map(|folder| folder.join("config.json"))
}

/// What one file, or the helper it names for the registry, has.
pub(crate) fn find_in(
    helpers: &Helpers,
    file: &Path,
    domain: &str,
    path: &str,
) -> Result<Option<Credentials>> {
    let Some(parsed) = AuthFile::read(file)? else { return Ok(None) };
    let keys = keys(domain, path);
    let kept = |keys: &[String]| -> Result<Option<Credentials>> {
        for auth in keys.iter().filter_map(|key| parsed.auths.get(key)) {
            let found = decode(auth)
                .explain_as(Kind::Input, || format!("credentials for {domain} in {}", file.display()))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    };
    // Helpers keep logins for whole registries: one for a part of it is the more specific.
    let (of_parts, of_whole) = keys.split_at(keys.iter().position(|key| key == domain).unwrap_or(0));
    if let Some(found) = kept(of_parts)? {
        return Ok(Some(found));
    }
    // A helper goes before what may be left from before there was one; what it does not have may still be there.
    let mut failed = None;
    if let Some(name) = parsed.helper(domain) {
        match ask(helpers, name, domain) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(fault) => failed = Some(fault.within(file.display().to_string())),
        }
    }
    if let Some(found) = kept(of_whole)? {
        return Ok(Some(found));
    }
    failed.map_or(Ok(None), Err)
}

/// What a helper has for a registry, under any of the names it may have it under.
fn ask(helpers: &Helpers, name: &str, domain: &str) -> Result<Option<Credentials>> {
    let helper = Helper::new(name)?;
    for server in servers(domain) {
        if let Some(login) = helpers.get(&helper, server)? {
            return Ok(Some(login.into()));
        }
    }
    Ok(None)
}

/// The names helpers know a registry by, the one to store under first: docker has a name of its own for its registry.
pub(crate) fn servers(domain: &str) -> Vec<&str> {
    match domain {
        oci::reference::DEFAULT_DOMAIN => vec![DOCKER_HUB_KEY, domain],
        other => vec![other],
    }
}

impl AuthFile {
    /// `None` if there is no such file, or nothing in it.
    pub(crate) fn read(file: &Path) -> Result<Option<AuthFile>> {
        let Some(text) = paths::read(file)? else { return Ok(None) };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        // The parser's message would quote what is around the error, a password perhaps.
        let parsed = serde_json::from_slice(&text).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            Fault::input(format!("{} is not a file of credentials: {place}", file.display()))
        })?;
        Ok(Some(parsed))
    }

    /// The helper for a registry. An empty name under `credHelpers` means none.
    pub(crate) fn helper(&self, domain: &str) -> Option<&str> {
        let own = servers(domain).into_iter().find_map(|server| self.helpers.get(server));
        own.or(self.store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// All registries and repositories it has something for, or knows a helper of.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.auths.keys().chain(self.helpers.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Most specific first: a repository, its parents, the registry, older spellings of it.
pub(crate) fn keys(domain: &str, path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        keys.push(format!("{domain}/{rest}"));
        match rest.rfind('/').and_then(|slash| rest.get(..slash)) {
            Some(parent) => rest = parent,
            None => break,
        }
    }
    keys.push(domain.to_owned());
    if domain == oci::reference::DEFAULT_DOMAIN {
        keys.extend([
            DOCKER_HUB_KEY.to_owned(),
            "index.docker.io".to_owned(),
            "registry-1.docker.io".to_owned(),
        ]);
    }
    for suffix in ["", "/", "/v1/", "/v2/"] {
        keys.extend([format!("https://{domain}{suffix}"), format!("http://{domain}{suffix}")]);
    }
    keys
}

fn decode(auth: &Auth) -> Result<Option<Credentials>> {
    use base64::Engine;
    if let Some(token) = auth.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::IdentityToken(token.clone())));
    }
    if let Some(text) = auth.encoded.as_ref().filter(|text| !text.is_empty()) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = text
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .ok_or_else(|| Fault::input("\"auth\" is not user:password in base64"))?;
        // Old dockers padded with NUL bytes.
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Some(Credentials::Password { user: user.to_owned(), password }));
    }
    match (&auth.username, &auth.password) {
        (Some(user), Some(password)) => {
            Ok(Some(Credentials::Password { user: user.clone(), password: password.clone() }))
        }
        // A name alone belongs to a credential helper.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &Path, domain: &str, path: &str) -> Result<Option<Credentials>> {
        find_in(&Helpers::default(), file, domain, path)
    }

    #[test]
    fn helpers_are_named_by_registry_or_for_all() {
        let file: AuthFile = serde_json::from_str(
            r#"{"credsStore":"all","credHelpers":{"ecr.example":"ecr-login","file.example":"","docker.io":"hub"}}"#,
        )
        .unwrap();
        assert_eq!(file.helper("ecr.example"), Some("ecr-login"));
        assert_eq!(file.helper("file.example"), None);
        assert_eq!(file.helper("docker.io"), Some("hub"));
        assert_eq!(file.helper("r.example"), Some("all"));
        assert_eq!(file.names(), ["docker.io", "ecr.example", "file.example"]);
        assert_eq!(
            Credentials::from(Login { user: TOKEN_USER.into(), secret: "t".into(), ..Login::default() }),
            Credentials::IdentityToken("t".into())
        );
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let file = std::env::temp_dir().join(format!("registry-auth-{}.json", std::process::id()));
        // "u:p", "v:w:x", broken
        let text = r#"{"auths":{"r.example:5000":{"auth":"dTpw"},"r.example:5000/team":{"auth":"djp3Ong="},
            "https://index.docker.io/v1/":{"username":"d","password":"e"},"bad.example":{"auth":"%%"},
            "helper.example":{},"helper.example/team":{"auth":"dTpw"},"oauth.example":{"auth":"dTo=","identitytoken":"t"}},"credHelpers":{"helper.example":"no-such-helper","r.example:5000":"../x"}}"#;
        std::fs::write(&file, text).unwrap();
        let password = |user: &str, password: &str| {
            Some(Credentials::Password { user: user.into(), password: password.into() })
        };
        assert_eq!(found(&file, "r.example:5000", "other/x").unwrap(), password("u", "p"));
        assert_eq!(found(&file, "r.example:5000", "team/x").unwrap(), password("v", "w:x"));
        assert_eq!(found(&file, "docker.io", "library/debian").unwrap(), password("d", "e"));
        assert_eq!(found(&file, "oauth.example", "x").unwrap(), Some(Credentials::IdentityToken("t".into())));
        for domain in ["r.example", "5000"] {
            assert_eq!(found(&file, domain, "x").unwrap(), None);
        }
        assert_eq!(found(&file, "helper.example", "team/x").unwrap(), password("u", "p"));
        let missing = found(&file, "helper.example", "x").unwrap_err().to_string();
        assert!(missing.contains("docker-credential-no-such-helper is not installed"), "{missing}");
        assert_eq!(found(&file, "bad.example", "x").unwrap_err().kind(), Kind::Input);
        std::fs::write(&file, r#"{"auths":{"x":{"auth":secret"#).unwrap();
        assert!(!found(&file, "x", "y").unwrap_err().to_string().contains("secret"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(found(&file, "x", "y").unwrap(), None);
    }
}
