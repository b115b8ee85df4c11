//! Getting leave to read and write: bearer tokens (distribution spec, "Token Authentication") and basic authentication.

use crate::credentials::{self, Credentials};
use crate::endpoint::is_this_machine;
use crate::repository::lock;
use crate::retry::{Failed, is_passing, retry_after};
use crate::scope::Scopes;
use crate::transport::{Request, Transport, authority, encode, error_text, is_https, shorten};
use fault::{Fault, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Tokens are a few kilobytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// How long a token holds whose server does not say, or says less (distribution spec, "Token Response Fields").
const SHORTEST_LIFE: Duration = Duration::from_mins(1);
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// A token this close to its end may not live to see the request arrive.
const MARGIN: Duration = Duration::from_secs(10);
const MAX_TOKENS: usize = 256;

/// What a registry wants, from `WWW-Authenticate` (RFC 9110, section 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct TokenResponse {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    /// Seconds. Some servers send no whole number, which is no reason to refuse the token.
    #[serde(default)]
    expires_in: serde_json::Value,
}

/// Tokens that were given and hold still, for all repositories of a process.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Asked, Given>>);

/// What a token was asked for, where and by whom.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    /// What one registry is given is not shown to another, even if both name the same server and scope.
    registry: String,
    realm: String,
    service: Option<String>,
    /// All that it is to allow, in one order.
    scopes: Vec<String>,
    credentials: Option<Credentials>,
}

/// What a challenge is answered with.
pub(crate) struct Authorization {
    /// Of the header.
    pub(crate) value: String,
    /// Whether it is a token from before, which may not hold any more.
    pub(crate) is_kept: bool,
}

struct Given {
    authorization: String,
    until: Instant,
}

// Never derived: a token may not reach a log.
impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// A registry refused it, whatever its server said of how long it holds.
    pub(crate) fn forget(&self, authorization: &str) {
        lock(&self.0).retain(|_, given| given.authorization != authorization);
    }

    fn find(&self, asked: &Asked) -> Option<String> {
        let given = lock(&self.0);
        given.get(asked).filter(|given| Instant::now() < given.until).map(|given| given.authorization.clone())
    }

    fn keep(&self, asked: Asked, authorization: &str, since: Instant, expires_in: Option<u64>) {
        let life = Duration::from_secs(expires_in.unwrap_or(0)).clamp(SHORTEST_LIFE, LONGEST_LIFE);
        let until = since + life.saturating_sub(MARGIN);
        let given = Given { authorization: authorization.to_owned(), until };
        let mut all = lock(&self.0);
        if all.len() >= MAX_TOKENS {
            let now = Instant::now();
            all.retain(|_, given| now < given.until);
            if all.len() >= MAX_TOKENS {
                all.clear();
            }
        }
        all.insert(asked, given);
    }
}

/// The value for `Authorization` that a challenge asks for. `base` is the registry's address; `wanted` is what is going to be
/// done beyond what the challenge is about.
pub(crate) fn answer(
    transport: &Transport,
    base: &str,
    domain: &str,
    path: &str,
    wanted: &Scopes,
    challenges: &[&str],
) -> Result<Authorization, Failed> {
    let credentials = credentials::find(transport, domain, path)?;
    let default_scope =
        if path.is_empty() { "registry:catalog:*".to_owned() } else { format!("repository:{path}:pull") };
    answer_as(transport, base, domain, wanted, &default_scope, challenges, credentials)
}

/// The same with given credentials; `default_scope` is what a challenge without a scope is taken to mean, nothing if empty.
pub(crate) fn answer_as(
    transport: &Transport,
    base: &str,
    domain: &str,
    wanted: &Scopes,
    default_scope: &str,
    challenges: &[&str],
    credentials: Option<Credentials>,
) -> Result<Authorization, Failed> {
    let challenge = challenges
        .iter()
        .find_map(|text| parse(text))
        .ok_or_else(|| Fault::denied("the registry asks for a login of a kind that is not supported"))?;
    match (challenge, credentials) {
        (Challenge::Basic, Some(Credentials::Password { user, password })) => {
            Ok(Authorization { value: basic(&user, &password), is_kept: false })
        }
        (Challenge::Basic, _) => Err(login_needed(domain).into()),
        (Challenge::Bearer { realm, service, scope }, credentials) => {
            check_realm(&realm, base, credentials.is_some())?;
            let mut scopes = wanted.clone();
            scopes.add(scope.as_deref().unwrap_or(default_scope));
            let registry = domain.to_owned();
            let asked = Asked { registry, realm, service, scopes: scopes.texts(), credentials };
            if let Some(value) = transport.tokens.find(&asked) {
                return Ok(Authorization { value, is_kept: true });
            }
            let since = Instant::now();
            let (value, expires_in) = token(transport, &asked)?;
            transport.tokens.keep(asked, &value, since, expires_in);
            Ok(Authorization { value, is_kept: false })
        }
    }
}

pub(crate) fn login_needed(domain: &str) -> Fault {
    Fault::denied("access denied: no such repository, or a login is needed")
        .hint(format!("reg-login {domain}"))
}

/// A registry chooses who hands out its tokens; a password may still not leave this machine in plain.
fn check_realm(realm: &str, base: &str, has_credentials: bool) -> Result<()> {
    // One that was asked for in plain, on another machine, has the user's leave to be insecure.
    let is_insecure = !is_https(base) && !is_this_machine(&authority(base));
    let is_plain_allowed =
        is_this_machine(&authority(realm)) || is_insecure || (!is_https(base) && !has_credentials);
    if is_https(realm) || (realm.starts_with("http://") && is_plain_allowed) {
        return Ok(());
    }
    Err(Fault::denied(format!("the registry asks for a login at {}, which is not encrypted", shorten(realm))))
}

/// A token, as a value of `Authorization`, and how many seconds it holds if its server says so.
fn token(transport: &Transport, asked: &Asked) -> Result<(String, Option<u64>), Failed> {
    let realm = asked.realm.as_str();
    let service = asked.service.iter().map(|service| ("service", service.clone()));
    let url;
    let request = match &asked.credentials {
        Some(Credentials::IdentityToken(identity)) => {
            // OAuth 2, as docker's token server takes it: one parameter for all scopes, where a query has one for each
            // (distribution, "Token Scope" and "oauth2").
            let mut query = vec![("scope", asked.scopes.join(" "))];
            query.extend(service);
            query.extend([
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", "staves".to_owned()),
                ("refresh_token", identity.clone()),
            ]);
            let mut request = Request::get(realm);
            request.method = ureq::http::Method::POST;
            request.form = Some(query);
            request
        }
        other => {
            let query = asked.scopes.iter().map(|scope| ("scope", scope.clone())).chain(service);
            let text: Vec<String> = query.map(|(name, value)| format!("{name}={}", encode(&value))).collect();
            let separator = if realm.contains('?') { '&' } else { '?' };
            url = if text.is_empty() {
                realm.to_owned()
            } else {
                format!("{realm}{separator}{}", text.join("&"))
            };
            let mut request = Request::get(&url);
            if let Some(Credentials::Password { user, password }) = other {
                request.authorization = Some(basic(user, password));
            }
            request
        }
    };
    let response = match transport.send(&request)? {
        Ok(response) => response,
        Err(broken) => return Err(crate::repository::broken(&shorten(realm), broken)),
    };
    let status = response.status();
    if !status.is_success() {
        let after = retry_after(&response);
        let text = error_text(response);
        let what = format!("the login server answers {}", crate::repository::status_text(status, &text));
        return Err(match status.as_u16() {
            _ if is_passing(status) => Failed::Again { fault: Fault::retryable(what), after },
            401 | 403 => Fault::denied(what).into(),
            _ => Fault::failed(what).into(),
        });
    }
    let mut bytes = Vec::new();
    let read = response.into_body().into_reader().take(MAX_TOKEN_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| Failed::Again {
        fault: Fault::retryable("the login server's answer was cut").because(error),
        after: None,
    })?;
    let malformed = || "the login server's answer is not a token".to_owned();
    // Never the parser's message: it may quote what is no token but as secret.
    let answer: TokenResponse = serde_json::from_slice(&bytes).map_err(|_| Fault::input(malformed()))?;
    let token = answer.token.or(answer.access_token).filter(|text| !text.is_empty() && is_header_safe(text));
    Ok((format!("Bearer {}", token.ok_or_else(|| Fault::input(malformed()))?), answer.expires_in.as_u64()))
}

fn is_header_safe(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn parse(header: &str) -> Option<Challenge> {
    let header = header.trim();
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameters = parameters(rest);
    let value = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
}

/// `name="value", name=value`: commas inside quotes belong to the value, a backslash quotes the next character.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=')).collect();
        if chars.next().is_none() || found.len() >= 16 {
            return found;
        }
        while chars.next_if_eq(&' ').is_some() {}
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
        }
        value.extend(std::iter::from_fn(|| chars.next_if(|c| *c != ',')));
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        found.push((name, value.trim_end().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        assert_eq!(parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            parse(
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\""
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(
            parse("bearer  realm=http://x/t , service = \"a\\\"b\""),
            Some(Challenge::Bearer { realm: "http://x/t".into(), service: Some("a\"b".into()), scope: None })
        );
        for bad in ["", "Negotiate", "Bearer", "Bearer =", "Bearer service=\"x\"", "Bearer realm", "\u{0}"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn tokens_are_kept_by_what_they_are_for() {
        let tokens = Tokens::default();
        let asked = |scope: &str, user: Option<&str>| Asked {
            registry: "r.example".into(),
            realm: "https://a.example/t".into(),
            service: None,
            scopes: vec![scope.to_owned()],
            credentials: user.map(|user| Credentials::Password { user: user.into(), password: "p".into() }),
        };
        let now = Instant::now();
        tokens.keep(asked("a", None), "Bearer 1", now, Some(300));
        tokens.keep(asked("a", Some("u")), "Bearer 2", now, None);
        assert_eq!(tokens.find(&asked("a", None)).as_deref(), Some("Bearer 1"));
        assert_eq!(tokens.find(&asked("a", Some("u"))).as_deref(), Some("Bearer 2"));
        assert_eq!(tokens.find(&asked("b", None)), None);
        tokens.forget("Bearer 2");
        assert_eq!(tokens.find(&asked("a", Some("u"))), None);
        let long_ago = now.checked_sub(Duration::from_secs(295)).unwrap();
        tokens.keep(asked("old", None), "Bearer 3", long_ago, Some(300));
        assert_eq!(tokens.find(&asked("old", None)), None);
        for number in 0..2 * MAX_TOKENS {
            tokens.keep(asked(&number.to_string(), None), "Bearer 4", now, Some(u64::MAX));
        }
        assert!(lock(&tokens.0).len() <= MAX_TOKENS);
        assert!(!format!("{tokens:?}").contains("Bearer"));
    }

    #[test]
    fn a_password_does_not_leave_in_plain() {
        assert!(check_realm("https://auth.example/t", "https://r.example", true).is_ok());
        assert!(check_realm("http://auth.example/t", "https://r.example", true).is_err());
        assert!(check_realm("http://auth.example/t", "https://r.example", false).is_err());
        assert!(check_realm("http://127.0.0.1:1/t", "http://127.0.0.1:2", true).is_ok());
        assert!(check_realm("http://auth.example/t", "http://127.0.0.1:2", false).is_ok());
        assert!(check_realm("http://auth.example/t", "http://127.0.0.1:2", true).is_err());
        assert!(check_realm("http://auth.example/t", "http://r.example", true).is_ok());
        assert!(check_realm("file:///etc/passwd", "http://127.0.0.1:2", false).is_err());
    }
}
