//! One repository: its manifests, and what every request to it shares.

use crate::auth;
use crate::retry::{Failed, Patience, is_passing, retry_after};
use crate::route::Route;
use crate::scope::Scopes;
use crate::transport::{Broken, Content, Request, Transport, error_text, is_https, origin, shorten};
use fault::{Fault, Kind, Result};
use oci::manifest::{MAX_MANIFEST_BYTES, media_type};
use oci::{Digest, Reference};
use serde::Deserialize;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use ureq::http::{Method, Response, StatusCode};
use ureq::{Body, ResponseExt};

/// A manifest or an index as the registry has it, its digest computed.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    /// The `Content-Type` it came with.
    pub media_type: Option<String>,
}

/// A repository of a registry. Shared between threads.
#[derive(Debug)]
pub struct Repository {
    pub(crate) transport: Arc<Transport>,
    pub(crate) domain: String,
    pub(crate) path: String,
    /// `https://host`, once one has answered.
    base: Mutex<Option<String>>,
    /// The value of `Authorization`, once one was asked for.
    authorization: Mutex<Option<String>>,
    /// What a token has to allow beyond reading.
    wanted: Mutex<Scopes>,
    /// Held while a token for a further repository is fetched, so that those who want the same wait for it.
    pub(crate) widening: Mutex<()>,
    pub(crate) route: Route,
}

/// What a request is about.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Below `/v2/<repository>/`.
    Below(&'a str),
    /// The same, with a token that allows all that is wanted by now, which the one at hand does not. The other requests under
    /// way keep that one.
    Anew(&'a str),
    /// An address the registry gave.
    At(&'a str),
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorMember>,
}

#[derive(Deserialize)]
struct ErrorMember {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Repository {
    pub(crate) fn new(transport: Arc<Transport>, reference: &Reference) -> Repository {
        Repository::by(transport, reference.domain(), reference.path(), Route::of(reference))
    }

    pub(crate) fn by(transport: Arc<Transport>, domain: &str, path: &str, route: Route) -> Repository {
        Repository {
            transport,
            domain: domain.to_owned(),
            path: path.to_owned(),
            base: Mutex::default(),
            authorization: Mutex::default(),
            wanted: Mutex::default(),
            widening: Mutex::default(),
            route,
        }
    }

    /// The name of the registry, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The name of the repository on it, `team/app`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Notes what is going to be done to this repository, so that one token will do for all of it.
    ///
    /// # Errors
    /// Where it is read from another place than it is written to.
    pub(crate) fn want(&self, actions: &str) -> Result<()> {
        self.route.check_is_itself(&self.transport, &self.domain, &self.path)?;
        self.will(actions);
        Ok(())
    }

    pub(crate) fn will(&self, actions: &str) {
        lock(&self.wanted).add(&format!("repository:{}:{actions}", self.path));
    }

    /// The same for another repository that is read from. Says whether that is new, and so beyond what the token at hand
    /// allows.
    pub(crate) fn want_from(&self, path: &str) -> bool {
        let mut wanted = lock(&self.wanted);
        let before = wanted.clone();
        wanted.add(&format!("repository:{path}:pull"));
        *wanted != before
    }

    pub(crate) fn want_no_more_from(&self, path: &str) {
        lock(&self.wanted).remove(&format!("repository:{path}"));
    }

    /// Where the registry answers, once it has.
    pub(crate) fn base(&self) -> Option<String> {
        lock(&self.base).clone()
    }

    /// Where a request that was answered went.
    pub(crate) fn asked(&self, target: Target<'_>) -> Result<String> {
        let place = self.route.endpoint(&self.transport)?;
        Ok(place.address(&self.base().unwrap_or_default(), target))
    }

    /// The manifest or index a tag or digest names (distribution spec, "Pulling manifests").
    ///
    /// # Errors
    /// [`fault::Kind::NotFound`], [`fault::Kind::Denied`], [`fault::Kind::Retryable`]; [`fault::Kind::Input`] when what comes is not what
    /// was asked for, or not what the registry says it is.
    pub fn manifest(&self, identifier: &str) -> Result<Fetched> {
        let fetch = || Patience::new(&self.transport.options).until_done(|| self.try_manifest(identifier));
        let was_doubted = self.route.is_doubted();
        match fetch() {
            // What a mirror made up, or a cache spoilt, is not the registry's last word.
            Err(fault) if fault.kind() == Kind::Input && !was_doubted => {
                self.ask_anew();
                fetch().map_err(still_wrong)
            }
            other => other,
        }
    }

    /// The digest a tag has now, without the manifest. `None` if the registry does not say, which it need not.
    pub fn manifest_digest(&self, identifier: &str) -> Result<Option<Digest>> {
        Patience::new(&self.transport.options).until_done(|| {
            let response = self.request(&Method::HEAD, &format!("manifests/{identifier}"), &accept())?;
            Ok(header(&response, "docker-content-digest").and_then(|text| Digest::parse(text).ok()))
        })
    }

    fn try_manifest(&self, identifier: &str) -> Result<Fetched, Failed> {
        let response = self.request(&Method::GET, &format!("manifests/{identifier}"), &accept())?;
        let media_type = header(&response, "content-type").map(str::to_owned);
        let said = header(&response, "docker-content-digest").and_then(|text| Digest::parse(text).ok());
        let too_large = || Fault::input(format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes"));
        if content_length(&response).is_some_and(|length| length > MAX_MANIFEST_BYTES) {
            return Err(too_large().into());
        }
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| broken_read("the manifest", error))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(too_large().into());
        }
        let asked = Digest::parse(identifier).ok();
        let digest = match asked.as_ref().or(said.as_ref()) {
            Some(expected) => {
                let mut hasher = oci::digest::Hasher::new(expected.algorithm());
                hasher.update(&bytes);
                let actual = hasher.finish();
                if actual != *expected {
                    return Err(Fault::input(wrong_manifest(expected, &actual, media_type.as_deref())).into());
                }
                actual
            }
            None => Digest::of(&bytes),
        };
        Ok(Fetched { bytes, digest, media_type })
    }

    /// One request below `/v2/<repository>/` of the registry itself; the answer is a success (2xx).
    pub(crate) fn request_here(
        &self,
        method: &Method,
        what: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Response<Body>, Failed> {
        self.request_with(method, Target::Below(what), headers, &mut Content::None)
    }

    /// The same with a body, or to an address that the registry gave.
    pub(crate) fn request_with(
        &self,
        method: &Method,
        target: Target<'_>,
        headers: &[(&'static str, String)],
        content: &mut Content<'_>,
    ) -> Result<Response<Body>, Failed> {
        let response = self.request_authorized(method, target, headers, content)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = retry_after(&response);
        let from = address(&response);
        let text = error_text(response);
        let said = status_text(status, &text);
        Err(match status.as_u16() {
            404 => self.not_found(target, &text).into(),
            401 if self.is_elsewhere(&from) => {
                Fault::denied(format!("{}, where the registry leads, refuses access: {said}", shorten(&from)))
                    .into()
            }
            401 => auth::login_needed(&self.route.endpoint(&self.transport)?.domain).into(),
            403 => Fault::denied(format!("the registry refuses access: {said}")).into(),
            413 => Fault::input(format!("the registry answers {said}"))
                .hint("it, or a proxy before it, limits the size of what is sent")
                .into(),
            // Only a blob asked for, or sent, in part is answered so: start from where the registry is.
            416 => Failed::Again { fault: Fault::input(format!("the registry answers {said}")), after: None },
            _ if is_passing(status) => {
                Failed::Again { fault: Fault::retryable(format!("the registry answers {said}")), after }
            }
            400..=499 => Fault::input(format!("the registry answers {said}")).into(),
            _ => Fault::failed(format!("the registry answers {said}")).into(),
        })
    }

    fn not_found(&self, target: Target<'_>, body: &str) -> Fault {
        let (Target::Below(what) | Target::Anew(what)) = target else {
            return Fault::not_found("the registry does not know the address it gave any more");
        };
        if body.contains("NAME_UNKNOWN") {
            return Fault::not_found(format!("the registry has no repository {}", self.path));
        }
        match what.split_once('/') {
            Some(("manifests", identifier)) if !identifier.contains(':') => {
                Fault::not_found(format!("the registry has no tag {identifier} of {}", self.path))
            }
            Some((_, identifier)) => Fault::not_found(format!("the registry does not have {identifier}")),
            None => Fault::not_found("the registry does not have it"),
        }
    }

    fn request_authorized(
        &self,
        method: &Method,
        target: Target<'_>,
        headers: &[(&'static str, String)],
        content: &mut Content<'_>,
    ) -> Result<Response<Body>, Failed> {
        let mut anew = matches!(target, Target::Anew(_));
        let mut held = lock(&self.authorization).clone().filter(|_| !anew);
        loop {
            let (base, response) = self.request_somewhere(method, target, headers, held.as_ref(), content)?;
            // Who is not the registry gets no login, and need not ask for one.
            if response.status() != StatusCode::UNAUTHORIZED || self.is_elsewhere(&address(&response)) {
                return Ok(response);
            }
            let (authorization, is_kept) = self.log_in(&base, held.as_ref(), anew, &response)?;
            if matches!(content, Content::Stream { .. }) {
                // What was read of it is gone: whoever has the source sends it again.
                let domain = &self.route.endpoint(&self.transport)?.domain;
                return Err(Failed::Again { fault: auth::login_needed(domain), after: Some(Duration::ZERO) });
            }
            drop(response);
            if !is_kept {
                let authorization = Some(&authorization);
                return Ok(self.request_somewhere(method, target, headers, authorization, content)?.1);
            }
            // One that was kept may be refused; `log_in` forgets it then, so that this comes to an end.
            (held, anew) = (Some(authorization), false);
        }
    }

    /// What a challenge is answered with, and whether that was asked for before and may have ended. What is at hand will not
    /// do if `anew`.
    fn log_in(
        &self,
        base: &str,
        refused: Option<&String>,
        anew: bool,
        response: &Response<Body>,
    ) -> Result<(String, bool), Failed> {
        // Several threads may be refused at once; the first one logs in for all.
        let mut current = lock(&self.authorization);
        if let Some(other) = current.as_ref().filter(|current| !anew && Some(*current) != refused) {
            return Ok((other.clone(), false));
        }
        if let Some(refused) = refused {
            self.transport.tokens.forget(refused);
        }
        let challenges: Vec<String> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let challenges: Vec<&str> = challenges.iter().map(String::as_str).collect();
        let wanted = lock(&self.wanted).clone();
        let place = self.route.endpoint(&self.transport)?;
        let answer = auth::answer(&self.transport, base, &place.domain, &place.path, &wanted, &challenges)?;
        *current = Some(answer.value.clone());
        Ok((answer.value, answer.is_kept))
    }

    /// Whether an answer came from another host than the registry.
    fn is_elsewhere(&self, address: &str) -> bool {
        self.base().is_some_and(|base| origin(&base) != origin(address))
    }

    /// Sends to the address that is known to answer, or finds out which one does.
    pub(crate) fn request_somewhere(
        &self,
        method: &Method,
        target: Target<'_>,
        headers: &[(&'static str, String)],
        authorization: Option<&String>,
        content: &mut Content<'_>,
    ) -> Result<(String, Response<Body>), Failed> {
        let place = self.route.endpoint(&self.transport)?;
        let mut send = |base: &str| {
            let url = place.address(base, target);
            let (method, headers) = (method.clone(), headers.to_vec());
            let authorization = authorization.cloned();
            let request = Request { method, url: &url, owner: base, headers, authorization, form: None };
            self.transport.send_with(&request, content)
        };
        let known = lock(&self.base).clone();
        if let Some(base) = known {
            return match send(&base)? {
                Ok(response) => Ok((base, response)),
                Err(error) => Err(broken(&place.domain, error)),
            };
        }
        let mut first_failure = None;
        let candidates = &place.bases;
        for (index, base) in candidates.iter().enumerate() {
            let is_last = index + 1 == candidates.len();
            match send(base)? {
                Ok(response) if !is_last && speaks_another_protocol(&response, base) => {}
                Ok(response) => {
                    lock(&self.base).get_or_insert_with(|| base.clone());
                    return Ok((base.clone(), response));
                }
                Err(error) if is_last || !is_protocol_mismatch(&error) => {
                    // What the likelier address said, unless this one got as far as certificates.
                    let error = if is_certificate(&error) { error } else { first_failure.unwrap_or(error) };
                    return Err(broken(&place.domain, error));
                }
                Err(error) => first_failure = Some(error),
            }
        }
        Err(Fault::failed("the registry has no address").into())
    }
}

/// Registries convert for who takes nothing newer, into what has no digest of its bytes; a cache may have such an answer.
fn wrong_manifest(expected: &Digest, actual: &Digest, media_type: Option<&str>) -> String {
    if media_type.is_some_and(|text| text.starts_with("application/vnd.docker.distribution.manifest.v1+")) {
        return format!(
            "the registry's manifest for {expected} comes in docker's schema 1, which was not asked for"
        );
    }
    format!("the registry's manifest does not have the digest {expected} but {actual}")
}

/// What to say of something that was wrong and, asked for anew ([`Repository::ask_anew`]), still is.
#[must_use]
pub fn still_wrong(fault: Fault) -> Fault {
    if fault.kind() == Kind::Input && fault.hint_text().is_none() {
        return fault.hint("the registry has it so, or a cache or proxy before it is damaged");
    }
    fault
}

fn accept() -> Vec<(&'static str, String)> {
    vec![("accept", media_type::ACCEPTED.join(", "))]
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The last one, after redirects.
fn address(response: &Response<Body>) -> String {
    response.get_uri().to_string()
}

pub(crate) fn content_length(response: &Response<Body>) -> Option<u64> {
    header(response, "content-length")?.trim().parse().ok()
}

/// A server that wants TLS answers a plain request with 400 and says so (Go's and nginx's do).
fn speaks_another_protocol(response: &Response<Body>, base: &str) -> bool {
    !is_https(base)
        && response.status() == StatusCode::BAD_REQUEST
        && header(response, "docker-distribution-api-version").is_none()
}

/// Errors that the other of plain and TLS may not have.
fn is_protocol_mismatch(error: &Broken) -> bool {
    use std::io::ErrorKind;
    match error {
        // Proxies let few ports be connected to.
        Broken::Tls(_) | Broken::Rustls(_) | Broken::Protocol(_) | Broken::ConnectProxyFailed(_) => true,
        Broken::Io(error) => matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::InvalidData
                | ErrorKind::ConnectionRefused
                | ErrorKind::BrokenPipe
                | ErrorKind::Other
        ),
        _ => false,
    }
}

/// A server's alert (RFC 8446, section 6.2) that it got no certificate, or not one it knows.
fn wants_client_certificate(error: &Broken) -> bool {
    let text = error.to_string();
    text.contains("received fatal alert")
        && ["CertificateRequired", "BadCertificate", "UnknownCA", "CertificateUnknown"]
            .iter()
            .any(|alert| text.contains(alert))
}

fn is_certificate(error: &Broken) -> bool {
    error.to_string().to_ascii_lowercase().contains("certificate")
}

/// A connection that failed, in words, and whether to try again.
pub(crate) fn broken(host: &str, error: Broken) -> Failed {
    use std::io::ErrorKind;
    if wants_client_certificate(&error) {
        return Fault::denied(format!("{host} wants to know who this is: a client certificate"))
            .because(error)
            .hint(format!("put it into /etc/containers/certs.d/{host}: NAME.cert and its key, NAME.key"))
            .into();
    }
    if is_certificate(&error) {
        return Fault::denied(format!("the certificate of {host} is not trusted"))
            .because(error)
            .hint(format!(
                "put its authority's certificate into /etc/containers/certs.d/{host} as NAME.crt, or --tls-verify=false"
            ))
            .into();
    }
    let (what, again) = match &error {
        Broken::HostNotFound => (format!("no address found for {host}"), false),
        Broken::Timeout(_) => (format!("{host} does not answer"), true),
        Broken::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            (format!("{host} refuses connections"), false)
        }
        Broken::Io(error) if error.kind() == ErrorKind::TimedOut => (format!("{host} does not answer"), true),
        Broken::Io(_) | Broken::Protocol(_) => (format!("the connection to {host} failed"), true),
        Broken::Tls(_) | Broken::Rustls(_) => (format!("no secure connection to {host}"), false),
        Broken::BadUri(_) | Broken::Http(_) => {
            return Fault::input(format!("{host} is not a usable address")).because(error).into();
        }
        _ => (format!("the connection to {host} failed"), false),
    };
    let fault = Fault::retryable(what);
    let fault = match error {
        Broken::Io(error) => fault.because(error),
        error => fault.because(error),
    };
    if again { Failed::Again { fault, after: None } } else { Failed::Finally(fault) }
}

/// An answer's body that ended early or stalled.
pub(crate) fn broken_read(what: &str, error: std::io::Error) -> Failed {
    Failed::Again { fault: Fault::retryable(format!("{what} was cut")).because(error), after: None }
}

/// `429 Too Many Requests: TOOMANYREQUESTS: slow down`.
pub(crate) fn status_text(status: StatusCode, body: &str) -> String {
    let mut text = status.to_string();
    if let Ok(body) = serde_json::from_str::<ErrorBody>(body)
        && let Some(error) = body.errors.first()
    {
        let said = if error.message.is_empty() { &error.code } else { &error.message };
        text.push_str(": ");
        text.extend(said.chars().take(200));
    }
    text
}
