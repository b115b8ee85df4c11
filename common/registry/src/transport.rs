//! One request and its answer: redirects, timeouts, certificates.

use crate::Options;
use fault::{Explain, Fault, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use ureq::http::{Method, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

const MAX_REDIRECTS: usize = 5;
/// Longest text of an error that is read.
const MAX_ERROR_BYTES: u64 = 8 << 10;

/// Where Linux distributions keep the bundle of trusted certificates.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where people put the certificates of their own registries, by `host:port`.
const CERTIFICATE_FOLDERS: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// Why there was no answer.
pub(crate) type Broken = ureq::Error;

#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) options: Options,
    plain: OnceLock<Agent>,
    tls: OnceLock<Result<Agent, Arc<Fault>>>,
}

/// A request, without what it carries along.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Sent to the host of `url` only, never along a redirect to another.
    pub(crate) authorization: Option<String>,
    /// A form to post.
    pub(crate) form: Option<Vec<(&'static str, String)>>,
}

/// What a request carries along.
pub(crate) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    /// Exactly `length` bytes, which can be sent once only: neither along a redirect nor again after a login.
    Stream {
        reader: &'a mut dyn std::io::Read,
        length: u64,
    },
}

impl<'a> Request<'a> {
    pub(crate) fn get(url: &'a str) -> Request<'a> {
        Request { method: Method::GET, url, headers: Vec::new(), authorization: None, form: None }
    }
}

impl Transport {
    pub(crate) fn new(options: Options) -> Transport {
        Transport { options, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    /// Sends a request and follows redirects.
    ///
    /// The outer error is final (certificates that cannot be read, a redirect that leads nowhere), the inner one is a
    /// connection that failed.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Result<Response<Body>, Broken>> {
        self.send_with(request, &mut Content::None)
    }

    /// [`Transport::send`] with a body.
    pub(crate) fn send_with(
        &self,
        request: &Request<'_>,
        content: &mut Content<'_>,
    ) -> Result<Result<Response<Body>, Broken>> {
        let mut url = request.url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let same_host = origin(&url) == origin(request.url);
            let response = match self.send_once(request, &url, same_host, content)? {
                Ok(response) => response,
                Err(broken) => return Ok(Err(broken)),
            };
            if !response.status().is_redirection() {
                return Ok(Ok(response));
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let Some(location) = location else { return Ok(Ok(response)) };
            if matches!(content, Content::Stream { .. }) {
                return Err(Fault::input("the registry redirects an upload"));
            }
            // Only these two keep the method (RFC 9110, section 15.4).
            let keeps_method = matches!(response.status().as_u16(), 307 | 308);
            if !keeps_method && request.form.is_none() && !is_reading(&request.method) {
                return Ok(Ok(response));
            }
            let next = resolve(&url, location)?;
            if is_https(&url) && !is_https(&next) && self.options.tls_verify {
                return Err(Fault::denied("the registry redirects to a connection that is not encrypted")
                    .hint("--tls-verify=false allows it"));
            }
            if request.form.is_some() && origin(&next) != origin(request.url) {
                // The form holds a token.
                return Err(Fault::denied("the login server redirects to another host"));
            }
            url = next;
        }
        Err(Fault::input("the registry redirects in circles"))
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        url: &str,
        same_host: bool,
        content: &mut Content<'_>,
    ) -> Result<Result<Response<Body>, Broken>> {
        let agent = self.agent(url)?;
        let mut builder = ureq::http::Request::builder().method(request.method.clone()).uri(url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(authorization) = request.authorization.as_ref().filter(|_| same_host) {
            builder = builder.header("authorization", authorization);
        }
        let malformed = || format!("the registry's address {} cannot be used", shorten(url));
        match &request.form {
            Some(form) => {
                let body = form
                    .iter()
                    .map(|(name, value)| format!("{name}={}", encode(value)))
                    .collect::<Vec<_>>()
                    .join("&");
                let builder = builder.header("content-type", "application/x-www-form-urlencoded");
                Ok(agent.run(builder.body(body).explain_as(fault::Kind::Input, malformed)?))
            }
            None => match content {
                Content::None => Ok(agent.run(builder.body(()).explain_as(fault::Kind::Input, malformed)?)),
                Content::Bytes(bytes) => {
                    let request = builder.body(*bytes).explain_as(fault::Kind::Input, malformed)?;
                    Ok(agent.run(self.patient(agent, request)))
                }
                Content::Stream { reader, length } => {
                    let body = SendBody::from_reader(&mut **reader);
                    let builder = builder.header("content-length", length.to_string());
                    let request = builder.body(body).explain_as(fault::Kind::Input, malformed)?;
                    Ok(agent.run(self.patient(agent, request)))
                }
            },
        }
    }

    /// What was sent is hashed and moved to its place before the answer comes.
    fn patient<S: ureq::AsSendBody>(
        &self,
        agent: &Agent,
        request: ureq::http::Request<S>,
    ) -> ureq::http::Request<S> {
        let timeout = self.options.timeout * 4;
        agent.configure_request(request).timeout_recv_response(Some(timeout)).build()
    }

    fn agent(&self, url: &str) -> Result<&Agent> {
        if !is_https(url) {
            return Ok(self.plain.get_or_init(|| self.make_agent(None)));
        }
        let agent = self.tls.get_or_init(|| {
            let tls = if self.options.tls_verify {
                let certificates = certificates(&authority(url)).map_err(Arc::new)?;
                TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certificates))).build()
            } else {
                TlsConfig::builder().disable_verification(true).build()
            };
            Ok(self.make_agent(Some(tls)))
        });
        agent.as_ref().map_err(|fault| Fault::new(fault.kind(), fault.to_string()))
    }

    fn make_agent(&self, tls: Option<TlsConfig>) -> Agent {
        let timeout = Some(self.options.timeout);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_send_request(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .max_idle_connections_per_host(8)
            .max_idle_age(Duration::from_secs(30))
            .accept_encoding("identity")
            .user_agent(concat!("staves/", env!("CARGO_PKG_VERSION")));
        if let Some(tls) = tls {
            config = config.tls_config(tls);
        } else {
            // Plain connections are to this machine, or to one the user named an insecure registry.
            config = config.proxy(None);
        }
        config.build().new_agent()
    }
}

/// The trusted certificates: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the system's; beside them those of the registry's
/// own folder in `certs.d`.
fn certificates(authority: &str) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let folder = std::env::var_os("SSL_CERT_DIR").map(PathBuf::from);
    if let Some(file) = &file {
        read_pem(file, &mut found)?;
    }
    if let Some(folder) = &folder {
        read_folder(folder, &mut found);
    }
    if file.is_none()
        && folder.is_none()
        && let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists())
    {
        read_pem(bundle, &mut found)?;
    }
    for folder in CERTIFICATE_FOLDERS {
        read_folder(&Path::new(folder).join(authority), &mut found);
    }
    if found.is_empty() {
        return Err(Fault::failed("no trusted certificates found")
            .hint("install the package ca-certificates, or set SSL_CERT_FILE"));
    }
    Ok(found)
}

fn read_pem(path: &Path, found: &mut Vec<Certificate<'static>>) -> Result<()> {
    let bytes = std::fs::read(path).explain(|| format!("read certificates from {}", path.display()))?;
    found.extend(parse_pem(&bytes).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    }));
    Ok(())
}

fn read_folder(folder: &Path, found: &mut Vec<Certificate<'static>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "crt" || extension == "pem") {
            // One that cannot be read is missed when the connection is checked.
            let _ = read_pem(&path, found);
        }
    }
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

pub(crate) fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// `host:port` of an address.
pub(crate) fn authority(url: &str) -> String {
    url.parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(|a| a.as_str().to_ascii_lowercase()))
        .unwrap_or_default()
}

/// Scheme, host and port: who gets credentials.
pub(crate) fn origin(url: &str) -> Option<(bool, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let https = uri.scheme_str()? == "https";
    Some((https, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(if https { 443 } else { 80 })))
}

/// Where a `Location` leads (RFC 3986, section 5.2, for what registries send).
pub(crate) fn resolve(base: &str, location: &str) -> Result<String> {
    let bad =
        || Fault::input(format!("the registry redirects to {}, which is no address", shorten(location)));
    let uri: Uri = base.parse().map_err(|_| bad())?;
    let scheme = uri.scheme_str().ok_or_else(bad)?;
    let host = uri.authority().ok_or_else(bad)?;
    let next = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = uri.path();
        let folder = path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/");
        format!("{scheme}://{host}{folder}{location}")
    };
    let parsed: Uri = next.parse().map_err(|_| bad())?;
    match (parsed.scheme_str(), parsed.authority()) {
        // A user name in an address would be sent as credentials.
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(next),
        _ => Err(bad()),
    }
}

/// The start of an answer's body, for an error message.
pub(crate) fn error_text(response: Response<Body>) -> String {
    let mut bytes = Vec::new();
    let mut reader = std::io::Read::take(response.into_body().into_reader(), MAX_ERROR_BYTES);
    // What came before a cut is still worth telling.
    let _ = std::io::Read::read_to_end(&mut reader, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Percent-encoding for queries and forms (RFC 3986, unreserved characters stay).
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':') {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// An address without its query, which may hold a signature that works like a password.
pub(crate) fn shorten(url: &str) -> String {
    url.split('?').next().unwrap_or_default().chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let base = "http://127.0.0.1:5000/v2/x/blobs/a";
        for (location, expected) in [
            ("https://cdn.example/y?sig=1", "https://cdn.example/y?sig=1"),
            ("//cdn.example/y", "http://cdn.example/y"),
            ("/y?z", "http://127.0.0.1:5000/y?z"),
            ("b", "http://127.0.0.1:5000/v2/x/blobs/b"),
        ] {
            assert_eq!(resolve(base, location).unwrap(), expected);
        }
        for bad in ["file:///etc/passwd", "ftp://x/y", "http://user:secret@x/y", "http:// x", "http://"] {
            assert!(resolve(base, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_port_or_scheme_is_another_host() {
        assert_eq!(origin("https://a/x"), origin("https://A:443/y"));
        assert_ne!(origin("https://a/x"), origin("http://a/x"));
        assert_ne!(origin("http://a:1/x"), origin("http://a:2/x"));
        assert_ne!(origin("https://a/x"), origin("https://a.b/x"));
        assert_eq!(encode("repository:a/b:pull,push x"), "repository:a/b:pull%2Cpush%20x");
    }
}
