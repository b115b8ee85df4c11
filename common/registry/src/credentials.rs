//! Who to log in as: the `auths` of docker's `config.json` and of containers' `auth.json`
//! (containers-auth.json(5)). Read only when a registry asks.

use fault::{Explain, Fault, Kind, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The key docker keeps its own registry under.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
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

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: HashMap<String, Auth>,
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

/// From the first file that has an entry for the repository or its registry.
pub(crate) fn find(domain: &str, path: &str) -> Result<Option<Credentials>> {
    for file in files() {
        if let Some(found) = find_in(&file, domain, path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// As podman and docker look for them.
fn files() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = variable("HOME");
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let docker = variable("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    let config = variable("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    [
        variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
        config.map(|folder| folder.join("containers/auth.json")),
        docker.map(|folder| folder.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn find_in(file: &Path, domain: &str, path: &str) -> Result<Option<Credentials>> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).explain(|| format!("read {}", file.display())),
    };
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    // The parser's message would quote what is around the error, a password perhaps.
    let parsed: AuthFile = serde_json::from_slice(&text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        Fault::input(format!("{} is not a file of credentials: {place}", file.display()))
    })?;
    match keys(domain, path).iter().find_map(|key| parsed.auths.get(key)) {
        Some(auth) => {
            decode(auth).explain_as(Kind::Input, || format!("credentials for {domain} in {}", file.display()))
        }
        None => Ok(None),
    }
}

/// Most specific first: a repository, its parents, the registry, older spellings of it.
fn keys(domain: &str, path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = path;
    loop {
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

    #[test]
    fn the_most_specific_entry_wins() {
        let file = std::env::temp_dir().join(format!("registry-auth-{}.json", std::process::id()));
        // "u:p", "v:w:x", broken
        let text = r#"{"auths":{"r.example:5000":{"auth":"dTpw"},"r.example:5000/team":{"auth":"djp3Ong="},
            "https://index.docker.io/v1/":{"username":"d","password":"e"},"bad.example":{"auth":"%%"},
            "helper.example":{},"oauth.example":{"auth":"dTo=","identitytoken":"t"}},"credsStore":"pass"}"#;
        std::fs::write(&file, text).unwrap();
        let password = |user: &str, password: &str| {
            Some(Credentials::Password { user: user.into(), password: password.into() })
        };
        assert_eq!(find_in(&file, "r.example:5000", "other/x").unwrap(), password("u", "p"));
        assert_eq!(find_in(&file, "r.example:5000", "team/x").unwrap(), password("v", "w:x"));
        assert_eq!(find_in(&file, "docker.io", "library/debian").unwrap(), password("d", "e"));
        assert_eq!(
            find_in(&file, "oauth.example", "x").unwrap(),
            Some(Credentials::IdentityToken("t".into()))
        );
        for domain in ["r.example", "helper.example", "5000"] {
            assert_eq!(find_in(&file, domain, "x").unwrap(), None);
        }
        assert_eq!(find_in(&file, "bad.example", "x").unwrap_err().kind(), Kind::Input);
        std::fs::write(&file, r#"{"auths":{"x":{"auth":secret"#).unwrap();
        assert!(!find_in(&file, "x", "y").unwrap_err().to_string().contains("secret"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(find_in(&file, "x", "y").unwrap(), None);
    }
}
