//! Logging in and out: checking a login with its registry, keeping it where docker, podman and skopeo find it too.

use crate::auth;
use crate::auth_file::{self, Entry};
use crate::credentials::{self, AuthFile, Credentials, find_in, keys, servers};
use crate::endpoint;
use crate::registries_conf::AUTH_FILES;
use crate::repository::{Repository, Target, status_text};
use crate::retry::{Failed, Patience, is_passing, retry_after};
use crate::scope::Scopes;
use crate::transport::{Content, Transport, error_text};
use crate::{Client, paths};
use credential::{Helper, Login, TOKEN_USER};
use fault::{Fault, Result};
use oci::Reference;
use oci::reference::DEFAULT_DOMAIN;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::http::{Method, StatusCode};

/// What a login is for: a registry, `quay.io`, or a part of one, `quay.io/team`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    domain: String,
    /// Empty for the whole registry.
    path: String,
}

/// What a registry said of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// It lets everybody in, so far.
    NotAsked,
}

impl Account {
    /// From what people type, docker's old forms (`https://index.docker.io/v1/`) among it.
    pub fn parse(text: &str) -> Result<Account> {
        let bad = || Fault::usage("not a registry").on(text).hint("HOST[:PORT][/PATH], as in quay.io");
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
        let bare = ["/v1", "/v2"].iter().find_map(|end| bare.strip_suffix(end)).unwrap_or(bare);
        let (domain, path) = bare.split_once('/').unwrap_or((bare, ""));
        if matches!(domain, "docker.io" | "index.docker.io" | "registry-1.docker.io") {
            let is_path = path.is_empty() || Reference::parse(&format!("{DEFAULT_DOMAIN}/{path}/x")).is_ok();
            return is_path
                .then(|| Account { domain: DEFAULT_DOMAIN.to_owned(), path: path.to_owned() })
                .ok_or_else(bad);
        }
        let below = if path.is_empty() { "x" } else { path };
        let reference = Reference::parse(&format!("{domain}/{below}")).map_err(|_| bad())?;
        let is_whole =
            reference.domain() == domain && reference.path() == below && reference.digest().is_none();
        // A tag would have been cut off.
        if !is_whole || path.contains([':', '@']) {
            return Err(bad());
        }
        Ok(Account { domain: domain.to_owned(), path: path.to_owned() })
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The key to write under `auths`: docker knows its own registry by one name only.
    fn key(&self) -> String {
        match self.domain.as_str() {
            _ if !self.path.is_empty() => format!("{}/{}", self.domain, self.path),
            DEFAULT_DOMAIN => credentials::DOCKER_HUB_KEY.to_owned(),
            domain => domain.to_owned(),
        }
    }

    /// All keys that mean the same.
    fn keys(&self) -> Vec<String> {
        if self.path.is_empty() { keys(&self.domain, "") } else { vec![self.key()] }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.domain)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

/// Where logins are written: a file, and the helpers it names.
#[derive(Clone, Debug)]
pub struct Place {
    file: PathBuf,
    /// The user named this file: no other is read.
    is_named: bool,
}

impl Place {
    /// The file given, else `REGISTRY_AUTH_FILE`, else docker's `config.json`, which podman and skopeo read as well.
    pub fn new(file: Option<&Path>) -> Result<Place> {
        let named = file.map(Path::to_owned).or_else(|| paths::variable("REGISTRY_AUTH_FILE"));
        let is_named = named.is_some();
        let file = named.or_else(credentials::docker_file).ok_or_else(|| {
            Fault::failed("no place for logins: neither HOME nor DOCKER_CONFIG is set")
                .hint("--authfile FILE")
        })?;
        Ok(Place { file, is_named })
    }

    /// The helper that is configured for the registry.
    fn helper(&self, transport: &Transport, domain: &str) -> Result<Option<Helper>> {
        let file = AuthFile::read(&self.file)?;
        if let Some(name) = file.as_ref().and_then(|file| file.helper(domain)) {
            return Helper::new(name)
                .map(Some)
                .map_err(|fault| fault.within(self.file.display().to_string()));
        }
        let configured = transport.registries()?.credential_helpers.first();
        configured.filter(|name| *name != AUTH_FILES).map(|name| Helper::new(name)).transpose()
    }
}

impl Client {
    /// The login there is: its user's name. An identity token has `<token>` in place of one.
    pub fn user_of(&self, place: &Place, account: &Account) -> Result<Option<String>> {
        Ok(self.login_of(place, account)?.map(|login| login.user().to_owned()))
    }

    fn login_of(&self, place: &Place, account: &Account) -> Result<Option<Credentials>> {
        if place.is_named {
            return find_in(&self.transport.helpers, &place.file, &account.domain, &account.path);
        }
        credentials::find(&self.transport, &account.domain, &account.path)
    }

    /// Asks the registry whether the login that is kept holds; `None` if none is kept.
    pub fn check_kept_login(&self, place: &Place, account: &Account) -> Result<Option<Answer>> {
        let login = self.login_of(place, account)?;
        login.map(|login| self.check(account, &login)).transpose()
    }

    /// Asks the registry whether a login holds (`GET /v2/`, with what it challenges to).
    ///
    /// # Errors
    /// [`fault::Kind::Denied`] if it does not.
    pub fn check_login(&self, account: &Account, user: &str, password: &str) -> Result<Answer> {
        self.check(account, &credentials_of(user, password))
    }

    fn check(&self, account: &Account, login: &Credentials) -> Result<Answer> {
        let endpoint = endpoint::itself(&self.transport, &account.domain, "")?;
        let repository = Repository::at(Arc::clone(&self.transport), endpoint);
        Patience::new(&self.transport.options).until_done(|| self.try_check(&repository, account, login))
    }

    fn try_check(
        &self,
        repository: &Repository,
        account: &Account,
        login: &Credentials,
    ) -> Result<Answer, Failed> {
        let get = |authorization: Option<&String>| {
            let content = &mut Content::None;
            repository.request_somewhere(&Method::GET, Target::Below(""), &[], authorization, content)
        };
        let (base, response) = get(None)?;
        if response.status().is_success() {
            return Ok(Answer::NotAsked);
        }
        let mut response = response;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenges: Vec<String> = response
                .headers()
                .get_all("www-authenticate")
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect();
            let challenges: Vec<&str> = challenges.iter().map(String::as_str).collect();
            let login = Some(login.clone());
            let (domain, wanted) = (&account.domain, Scopes::default());
            let authorization =
                auth::answer_as(&self.transport, &base, domain, &wanted, "", &challenges, login)?;
            response = get(Some(&authorization.value))?.1;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(Answer::Accepted);
        }
        let after = retry_after(&response);
        let said = format!("the registry answers {}", status_text(status, &error_text(response)));
        Err(match status.as_u16() {
            401 | 403 => Fault::denied(said).into(),
            404 => Fault::not_found(said).hint("it does not look like a registry").into(),
            _ if is_passing(status) => Failed::Again { fault: Fault::retryable(said), after },
            _ => Fault::failed(said).into(),
        })
    }

    /// Keeps a login: in the helper that is configured, else in the file. Returns where.
    pub fn keep_login(&self, place: &Place, account: &Account, user: &str, password: &str) -> Result<String> {
        let (key, keys) = (account.key(), account.keys());
        let Some(helper) = self.helper_for(place, account)? else {
            let entry = match user {
                TOKEN_USER => Entry::IdentityToken(password),
                user => Entry::Password { user, password },
            };
            auth_file::put(&place.file, &key, &keys, &entry)?;
            return Ok(place.file.display().to_string());
        };
        let server = servers(&account.domain).first().copied().unwrap_or_default().to_owned();
        helper.store(&Login { server, user: user.to_owned(), secret: password.to_owned() })?;
        auth_file::put(&place.file, &key, &keys, &Entry::InHelper)?;
        Ok(helper.program())
    }

    /// Forgets a login. False if there was none.
    pub fn forget_login(&self, place: &Place, account: &Account) -> Result<bool> {
        let mut found = false;
        if let Some(helper) = self.helper_for(place, account)? {
            for server in servers(&account.domain) {
                if helper.get(server)?.is_some() {
                    helper.erase(server)?;
                    found = true;
                }
            }
        }
        Ok(auth_file::remove(&place.file, &account.keys())? || found)
    }

    /// Helpers keep logins for whole registries.
    fn helper_for(&self, place: &Place, account: &Account) -> Result<Option<Helper>> {
        if account.path.is_empty() { place.helper(&self.transport, &account.domain) } else { Ok(None) }
    }

    /// Everything the file has a login for, or knows a helper of.
    pub fn accounts(&self, place: &Place) -> Result<Vec<Account>> {
        let names = AuthFile::read(&place.file)?.map(|file| file.names()).unwrap_or_default();
        let mut accounts: Vec<Account> = Vec::new();
        for name in names {
            // What is no registry's name is nobody's login to one.
            if let Ok(account) = Account::parse(&name)
                && !accounts.contains(&account)
            {
                accounts.push(account);
            }
        }
        Ok(accounts)
    }

    /// Another file than the place's that has a login too, one that is read when images are pulled.
    pub fn elsewhere(&self, place: &Place, account: &Account) -> Option<PathBuf> {
        let others = credentials::files().into_iter().filter(|file| !place.is_named && *file != place.file);
        others.into_iter().find(|file| {
            matches!(find_in(&self.transport.helpers, file, &account.domain, &account.path), Ok(Some(_)))
        })
    }
}

fn credentials_of(user: &str, password: &str) -> Credentials {
    Credentials::from(Login { server: String::new(), user: user.to_owned(), secret: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_what_people_type() {
        for (text, shown, key) in [
            ("docker.io", "docker.io", "https://index.docker.io/v1/"),
            ("https://index.docker.io/v1/", "docker.io", "https://index.docker.io/v1/"),
            ("quay.io", "quay.io", "quay.io"),
            ("quay.io/team/app", "quay.io/team/app", "quay.io/team/app"),
            ("docker.io/team", "docker.io/team", "docker.io/team"),
            ("https://r.example:5000/v2/", "r.example:5000", "r.example:5000"),
            ("localhost:5000/", "localhost:5000", "localhost:5000"),
            ("[::1]:5000", "[::1]:5000", "[::1]:5000"),
        ] {
            let account = Account::parse(text).unwrap();
            assert_eq!((account.to_string().as_str(), account.key().as_str()), (shown, key), "{text}");
        }
        for bad in [
            "",
            "/",
            "https://",
            "quay.io/x:tag",
            "r.example/../x",
            "a b",
            "quay.io/x@sha256:1",
            "user@host",
            "team",
        ] {
            assert!(Account::parse(bad).is_err(), "{bad}");
        }
    }
}
