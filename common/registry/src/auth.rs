//! Getting leave to read: bearer tokens (distribution spec, "Token Authentication") and basic authentication.

use crate::credentials::{self, Credentials};
use crate::endpoint::is_this_machine;
use crate::retry::{Failed, is_passing, retry_after};
use crate::scope::Scopes;
use crate::transport::{Request, Transport, authority, encode, error_text, is_https, shorten};
use fault::{Explain, Fault, Kind, Result};
use serde::Deserialize;
use std::io::Read;

/// Tokens are a few kilobytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// What a registry wants, from `WWW-Authenticate` (RFC 9110, section 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
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
) -> Result<String, Failed> {
    let credentials = credentials::find(domain, path)?;
    let challenge = challenges
        .iter()
        .find_map(|text| parse(text))
        .ok_or_else(|| Fault::denied("the registry asks for a login of a kind that is not supported"))?;
    match (challenge, credentials) {
        (Challenge::Basic, Some(Credentials::Password { user, password })) => Ok(basic(&user, &password)),
        (Challenge::Basic, _) => Err(login_needed(domain).into()),
        (Challenge::Bearer { realm, service, scope }, credentials) => {
            check_realm(&realm, base, credentials.is_some())?;
            let mut scopes = wanted.clone();
            match scope {
                Some(scope) => scopes.add(&scope),
                None if path.is_empty() => scopes.add("registry:catalog:*"),
                None => scopes.add(&format!("repository:{path}:pull")),
            }
            token(transport, &realm, service.as_deref(), &scopes.texts(), credentials.as_ref())
        }
    }
}

pub(crate) fn login_needed(domain: &str) -> Fault {
    Fault::denied("access denied: no such repository, or a login is needed").hint(format!(
        "give {domain} an entry under \"auths\" in ~/.docker/config.json or REGISTRY_AUTH_FILE"
    ))
}

/// A registry chooses who hands out its tokens; a password may still not leave this machine in plain.
fn check_realm(realm: &str, base: &str, has_credentials: bool) -> Result<()> {
    let plain_is_safe = is_this_machine(&authority(realm)) || (!is_https(base) && !has_credentials);
    if is_https(realm) || (realm.starts_with("http://") && (plain_is_safe || !is_https(base))) {
        return Ok(());
    }
    Err(Fault::denied(format!("the registry asks for a login at {}, which is not encrypted", shorten(realm))))
}

fn token(
    transport: &Transport,
    realm: &str,
    service: Option<&str>,
    scopes: &[String],
    credentials: Option<&Credentials>,
) -> Result<String, Failed> {
    // One parameter each in a query, one for all in a form (distribution, "Token Scope" and "oauth2").
    let mut query: Vec<_> = match credentials {
        Some(Credentials::IdentityToken(_)) => vec![("scope", scopes.join(" "))],
        _ => scopes.iter().map(|scope| ("scope", scope.clone())).collect(),
    };
    query.extend(service.map(|service| ("service", service.to_owned())));
    let url;
    let request = match credentials {
        Some(Credentials::IdentityToken(identity)) => {
            // OAuth 2, as docker's token server takes it.
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
            let text: Vec<String> =
                query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
            let separator = if realm.contains('?') { '&' } else { '?' };
            url = format!("{realm}{separator}{}", text.join("&"));
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
    let answer: Token = serde_json::from_slice(&bytes).explain_as(Kind::Input, malformed)?;
    let token = answer.token.or(answer.access_token).filter(|text| !text.is_empty() && is_header_safe(text));
    Ok(format!("Bearer {}", token.ok_or_else(|| Fault::input(malformed()))?))
}

fn is_header_safe(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

fn basic(user: &str, password: &str) -> String {
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
    fn a_password_does_not_leave_in_plain() {
        assert!(check_realm("https://auth.example/t", "https://r.example", true).is_ok());
        assert!(check_realm("http://auth.example/t", "https://r.example", true).is_err());
        assert!(check_realm("http://auth.example/t", "https://r.example", false).is_err());
        assert!(check_realm("http://127.0.0.1:1/t", "http://127.0.0.1:2", true).is_ok());
        assert!(check_realm("file:///etc/passwd", "http://127.0.0.1:2", false).is_err());
    }
}
