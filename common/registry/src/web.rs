//! Files of HTTP servers that are no registries, fetched in the same way: proxies, certificates, timeouts, another try where it may help.

use crate::Client;
use crate::repository::{broken, header};
use crate::retry::{Failed, Patience, is_passing, retry_after};
use crate::transport::{Content, Request, authority, error_text, is_https, resolve, shorten};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fault::{Fault, Kind, Result};
use std::io::Read;
use ureq::http::{Response, StatusCode};
use ureq::{Body, http::Uri};

/// As many as Go's client follows.
const MAX_REDIRECTS: usize = 10;

/// A server's answer to a request for a file.
pub struct Page {
    response: Response<Body>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page({})", self.response.status())
    }
}

impl Page {
    /// It was asked for only if it has changed, and it has not (RFC 9110, section 15.4.5).
    pub fn is_unchanged(&self) -> bool {
        self.response.status() == StatusCode::NOT_MODIFIED
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.response, name)
    }

    /// The content, as it comes. A connection that is cut before its end is an error of the reader.
    pub fn into_reader(self) -> impl Read + Send {
        self.response.into_body().into_reader()
    }
}

impl Client {
    /// Asks for a file. A user and password in the address are sent to that server alone, whoever it redirects to.
    ///
    /// # Errors
    /// By the server's status: [`Kind::NotFound`], [`Kind::Denied`], [`Kind::Retryable`], else [`Kind::Failed`]; [`Kind::Input`] for what is no
    /// address.
    pub fn get(&self, url: &str, headers: &[(&'static str, String)]) -> Result<Page> {
        self.get_as(url, headers, None)
    }

    /// The same with what goes into the header Authorization, in place of a user in the address and kept as he is.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_as(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        authorization: Option<&str>,
    ) -> Result<Page> {
        let (url, user) = without_user(url)?;
        let authorization = authorization.map(str::to_owned).or(user);
        let ask = || self.ask(&url, headers, authorization.as_deref());
        Patience::new(&self.transport.options).until_done(ask).map_err(|fault| fault.on(shorten(&url)))
    }

    fn ask(
        &self,
        first: &str,
        headers: &[(&'static str, String)],
        authorization: Option<&str>,
    ) -> Result<Page, Failed> {
        let mut url = first.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let request = Request {
                headers: headers.to_vec(),
                authorization: authorization.map(str::to_owned),
                ..Request::get(first)
            };
            let response = self
                .transport
                .send_single(&request, &url, &mut Content::None)?
                .map_err(|error| broken(&authority(&url), error))?;
            let status = response.status();
            let location = header(&response, "location");
            if let Some(location) =
                location.filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308))
            {
                let next = resolve(&url, location).map_err(|_| {
                    Fault::input(format!(
                        "the server redirects to {}, which is no address",
                        shorten(location)
                    ))
                })?;
                if is_https(&url) && !is_https(&next) && !self.transport.is_insecure(&url) {
                    let fault = Fault::denied("the server redirects to a connection that is not encrypted");
                    return Err(fault
                        .hint(format!("name {} itself if it is to be trusted", shorten(&next)))
                        .into());
                }
                url = next;
                continue;
            }
            if status.is_success() || status == StatusCode::NOT_MODIFIED {
                return Ok(Page { response });
            }
            return Err(refused(response));
        }
        Err(Fault::input("the server redirects in circles").into())
    }
}

fn refused(response: Response<Body>) -> Failed {
    let status = response.status();
    let after = retry_after(&response);
    let kind = match status.as_u16() {
        401 | 403 | 407 => Kind::Denied,
        404 | 410 => Kind::NotFound,
        _ if is_passing(status) => Kind::Retryable,
        _ => Kind::Failed,
    };
    let fault = Fault::new(kind, format!("the server answers {status}"));
    // Read, so that the connection can be used again.
    drop(error_text(response));
    if is_passing(status) { Failed::Again { fault, after } } else { fault.into() }
}

/// An address without what may not be told to others, and the header that says it.
fn without_user(url: &str) -> Result<(String, Option<String>)> {
    let bad = || Fault::input(format!("{} is no address of a file", shorten(url)));
    // What follows `#` is the reader's business.
    let url = url.split('#').next().unwrap_or(url);
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let (authorization, host) = match host.rsplit_once('@') {
        Some((user, host)) => {
            let user = percent_decoded(
                if user.contains(':') { user.to_owned() } else { format!("{user}:") }.as_bytes(),
            );
            (Some(format!("Basic {}", STANDARD.encode(user))), host)
        }
        None => (None, host),
    };
    let plain = format!("{scheme}://{host}{}{path}", if path.starts_with('/') { "" } else { "/" });
    let parsed: Uri =
        plain.parse().map_err(|_| Fault::input("the address cannot be read").on(shorten(&plain)))?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok((plain, authorization)),
        _ => Err(bad()),
    }
}

/// Percent-encoding undone (RFC 3986, section 2.1); what is none stays.
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_taken_out_of_addresses() {
        for (url, plain, user) in [
            ("http://h/a?b#c", "http://h/a?b", None),
            ("https://h:1", "https://h:1/", None),
            ("http://h?x=1", "http://h/?x=1", None),
            ("https://u:p%40q@h/a@b", "https://h/a@b", Some("u:p@q")),
            ("https://token@h/", "https://h/", Some("token:")),
        ] {
            let (found, authorization) = without_user(url).unwrap();
            assert_eq!(found, plain);
            assert_eq!(authorization, user.map(|user| format!("Basic {}", STANDARD.encode(user))));
        }
        for bad in ["", "h/a", "ftp://h/a", "http://", "http:///a", "http://a b/"] {
            assert!(without_user(bad).is_err(), "{bad}");
        }
        let fault = without_user("https://u:secret@h h/").unwrap_err();
        assert!(!format!("{fault}{:?}", fault.subject()).contains("secret"), "{fault}");
    }
}
