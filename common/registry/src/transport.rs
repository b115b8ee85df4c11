//! One request and its answer: redirects, timeouts, certificates.

use crate::Options;
use crate::auth::Tokens;
use crate::certificates::{self, Files};
use crate::credentials::Helpers;
use crate::forward;
use crate::hosts_toml::{Headers, Host};
use crate::proxy::Proxies;
use crate::registries_conf::RegistriesConf;
use crate::repository::lock;
use fault::{Explain, Fault, Result};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use ureq::http::{Method, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, SendBody};

const MAX_REDIRECTS: usize = 5;
/// Hosts connections are kept to. A registry may redirect to any number of them.
const MAX_HOSTS: usize = 64;
/// Longest text of an error that is read.
const MAX_ERROR_BYTES: u64 = 8 << 10;

/// Why there was no answer.
pub(crate) type Broken = ureq::Error;

#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) options: Options,
    /// Certificates for all hosts, in place of `certs.d`.
    pub(crate) cert_dir: Option<PathBuf>,
    pub(crate) tokens: Tokens,
    pub(crate) helpers: Helpers,
    registries: OnceLock<Result<RegistriesConf, Fault>>,
    proxies: OnceLock<Proxies>,
    system: OnceLock<Result<Vec<Certificate<'static>>, Fault>>,
    /// What configuration says of hosts, by `host:port`.
    known: Mutex<HashMap<String, Known>>,
    /// By scheme and `host:port`.
    agents: Mutex<HashMap<(bool, String), Agent>>,
    /// By what makes one different from another: connections to hosts without settings share theirs.
    kinds: Mutex<HashMap<AgentKind, Agent>>,
}

/// Settings of one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) insecure: bool,
    pub(crate) files: Files,
    pub(crate) headers: Headers,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AgentKind {
    https: bool,
    verify: bool,
    files: Files,
    proxy: Option<Proxy>,
}

/// A request, without what it carries along.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    /// An address of the host that `authorization`, and what is configured to be sent, is for. No other gets them: not one
    /// that it redirects to, nor one that it names for an upload.
    pub(crate) owner: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
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
        Request { method: Method::GET, url, owner: url, headers: Vec::new(), authorization: None, form: None }
    }
}

impl Transport {
    pub(crate) fn new(options: Options) -> Transport {
        Transport {
            options,
            cert_dir: None,
            tokens: Tokens::default(),
            helpers: Helpers::default(),
            registries: OnceLock::new(),
            proxies: OnceLock::new(),
            system: OnceLock::new(),
            known: Mutex::default(),
            agents: Mutex::default(),
            kinds: Mutex::default(),
        }
    }

    /// What `registries.conf` says, read when first needed.
    pub(crate) fn registries(&self) -> Result<&RegistriesConf> {
        self.registries.get_or_init(RegistriesConf::load).as_ref().map_err(again)
    }

    /// Notes how a host is to be talked to, wherever it is met from now on. Where it is insecure for one repository and
    /// not for another, it is not: nobody asked for that of the other.
    pub(crate) fn know(&self, authority: &str, host: Option<&Host>, insecure: bool) {
        let mut known = lock(&self.known);
        let insecure = insecure || host.is_some_and(|host| host.skip_verify);
        let is_new = !known.contains_key(authority);
        let entry = known.entry(authority.to_owned()).or_default();
        let was = entry.clone();
        entry.insecure = insecure && (is_new || entry.insecure);
        if let Some(host) = host {
            entry.files = Files { ca: host.ca.clone(), client: host.client.clone() };
            entry.headers.clone_from(&host.headers);
        }
        if !is_new && (entry.insecure, &entry.files) != (was.insecure, &was.files) {
            lock(&self.agents).retain(|(_, of), _| of != authority);
        }
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
            let response = match self.send_single(request, &url, content)? {
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
            if is_https(&url) && !is_https(&next) && !self.is_insecure(&url) {
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

    /// Sends a request to where it was redirected, and follows no redirect from there.
    pub(crate) fn send_single(
        &self,
        request: &Request<'_>,
        url: &str,
        content: &mut Content<'_>,
    ) -> Result<Result<Response<Body>, Broken>> {
        let is_owner = origin(url) == origin(request.owner);
        self.send_once(request, url, is_owner, content)
    }

    /// Whether an address may lead to one that is not encrypted.
    pub(crate) fn is_insecure(&self, url: &str) -> bool {
        !self.options.tls_verify || lock(&self.known).get(&authority(url)).is_some_and(|known| known.insecure)
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        url: &str,
        is_owner: bool,
        content: &mut Content<'_>,
    ) -> Result<Result<Response<Body>, Broken>> {
        let agent = self.agent(url)?;
        let mut builder = ureq::http::Request::builder().method(request.method.clone()).uri(url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let authorization = request.authorization.as_ref().filter(|_| is_owner);
        if let Some(authorization) = authorization {
            builder = builder.header("authorization", authorization);
        }
        if is_owner && let Some(known) = lock(&self.known).get(&authority(url)) {
            // What is configured may be an authorization; what the registry asked for is better.
            let is_other =
                |name: &str| authorization.is_none() || !name.eq_ignore_ascii_case("authorization");
            for (name, value) in known.headers.0.iter().filter(|(name, _)| is_other(name)) {
                builder = builder.header(name, value);
            }
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
                    Ok(agent.run(self.patient(&agent, request)))
                }
                Content::Stream { reader, length } => {
                    let body = SendBody::from_reader(&mut **reader);
                    let builder = builder.header("content-length", length.to_string());
                    let request = builder.body(body).explain_as(fault::Kind::Input, malformed)?;
                    Ok(agent.run(self.patient(&agent, request)))
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

    fn agent(&self, url: &str) -> Result<Agent> {
        let key = (is_https(url), authority(url));
        if let Some(agent) = lock(&self.agents).get(&key) {
            return Ok(agent.clone());
        }
        let (https, authority) = &key;
        let known = lock(&self.known).get(authority).cloned().unwrap_or_default();
        let verify = self.options.tls_verify && !known.insecure;
        let mut files = Files::default();
        if *https {
            files = Files::of(authority, self.cert_dir.as_deref())?;
            files.ca.extend(known.files.ca);
            files.client = known.files.client.or(files.client);
        }
        let proxy = self.proxies.get_or_init(Proxies::from_env).of(url)?;
        let kind = AgentKind { https: *https, verify, files, proxy };
        let shared = lock(&self.kinds).get(&kind).cloned();
        let agent = match shared {
            Some(agent) => agent,
            None => self.make_agent(&kind)?,
        };
        remember(&mut lock(&self.kinds), kind, &agent);
        remember(&mut lock(&self.agents), key, &agent);
        Ok(agent)
    }

    fn tls(&self, kind: &AgentKind) -> Result<TlsConfig> {
        let client = kind.files.client()?;
        let builder = TlsConfig::builder().client_cert(client);
        if !kind.verify {
            return Ok(builder.disable_verification(true).build());
        }
        let mut trusted = kind.files.authorities()?;
        trusted.extend_from_slice(self.system.get_or_init(certificates::system).as_ref().map_err(again)?);
        if trusted.is_empty() {
            return Err(Fault::failed("no trusted certificates found")
                .hint("install the package ca-certificates, or set SSL_CERT_FILE"));
        }
        Ok(builder.root_certs(RootCerts::Specific(Arc::new(trusted))).build())
    }

    fn make_agent(&self, kind: &AgentKind) -> Result<Agent> {
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
        if kind.https || kind.proxy.is_some() {
            // A proxy may itself be one to talk to in TLS.
            config = config.tls_config(self.tls(kind)?);
        }
        if let Some(proxy) = kind.proxy.as_ref().filter(|proxy| !kind.https && forward::takes(proxy)) {
            return forward::agent(config.proxy(None).build(), proxy);
        }
        Ok(config.proxy(kind.proxy.clone()).build().new_agent())
    }
}

/// Keeps one more, and few.
fn remember<K: std::hash::Hash + Eq>(agents: &mut HashMap<K, Agent>, key: K, agent: &Agent) {
    if agents.len() >= MAX_HOSTS {
        agents.clear();
    }
    agents.insert(key, agent.clone());
}

/// The same failure once more.
fn again(fault: &Fault) -> Fault {
    let same = Fault::new(fault.kind(), fault.to_string());
    match fault.hint_text() {
        Some(hint) => same.hint(hint),
        None => same,
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
