//! One repository: its manifests, and what every request to it shares.

use crate::retry::{Failed, Patience, is_passing, retry_after};
use crate::scope::Scopes;
use crate::transport::{Broken, Content, Request, Transport, error_text, is_https, origin};
use crate::{auth, endpoint};
use fault::{Fault, Result};
use oci::manifest::{MAX_MANIFEST_BYTES, media_type};
use oci::{Digest, Reference};
use serde::Deserialize;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

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
    domain: String,
    path: String,
    /// `https://host`, once one has answered.
    base: Mutex<Option<String>>,
    /// The value of `Authorization`, once one was asked for.
    authorization: Mutex<Option<String>>,
    /// What a token has to allow beyond reading.
    wanted: Mutex<Scopes>,
}

/// What a request is about.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Below `/v2/<repository>/`.
    Below(&'a str),
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
        Repository {
            transport,
            domain: reference.domain().to_owned(),
            path: reference.path().to_owned(),
            base: Mutex::default(),
            authorization: Mutex::default(),
            wanted: Mutex::default(),
        }
    }

    /// What belongs to no repository of a registry: its catalog.
    pub(crate) fn of_registry(transport: Arc<Transport>, domain: &str) -> Repository {
        Repository {
            transport,
            domain: domain.to_owned(),
            path: String::new(),
            base: Mutex::default(),
            authorization: Mutex::default(),
            wanted: Mutex::default(),
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
    pub(crate) fn want(&self, actions: &str) {
        lock(&self.wanted).add(&format!("repository:{}:{actions}", self.path));
    }

    /// The same for another repository. The token at hand is let go, since it does not allow that.
    pub(crate) fn want_from(&self, path: &str) {
        let changed = {
            let mut wanted = lock(&self.wanted);
            let before = wanted.clone();
            wanted.add(&format!("repository:{path}:pull"));
            *wanted != before
        };
        if changed {
            *lock(&self.authorization) = None;
        }
    }

    pub(crate) fn want_no_more_from(&self, path: &str) {
        lock(&self.wanted).remove(&format!("repository:{path}"));
        *lock(&self.authorization) = None;
    }

    /// Where the registry answers, once it has.
    pub(crate) fn base(&self) -> Option<String> {
        lock(&self.base).clone()
    }

    /// The manifest or index a tag or digest names (distribution spec, "Pulling manifests").
    ///
    /// # Errors
    /// [`fault::Kind::NotFound`], [`fault::Kind::Denied`], [`fault::Kind::Retryable`]; [`fault::Kind::Input`] when what comes is not what
    /// was asked for, or not what the registry says it is.
    pub fn manifest(&self, identifier: &str) -> Result<Fetched> {
        Patience::new(&self.transport.options).until_done(|| self.try_manifest(identifier))
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
                    return Err(Fault::input(format!(
                        "the registry's manifest does not have the digest {expected} but {actual}"
                    ))
                    .into());
                }
                actual
            }
            None => Digest::of(&bytes),
        };
        Ok(Fetched { bytes, digest, media_type })
    }

    /// One request below `/v2/<repository>/`; the answer is a success (2xx).
    pub(crate) fn request(
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
        let text = error_text(response);
        let said = status_text(status, &text);
        Err(match status.as_u16() {
            404 => self.not_found(target, &text).into(),
            401 => auth::login_needed(&self.domain).into(),
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
        let Target::Below(what) = target else {
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
        let held = lock(&self.authorization).clone();
        let (base, response) = self.request_somewhere(method, target, headers, held.as_ref(), content)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let authorization = {
            // Several threads may be refused at once; the first one logs in for all.
            let mut current = lock(&self.authorization);
            if *current == held || current.is_none() {
                let challenges: Vec<String> = response
                    .headers()
                    .get_all("www-authenticate")
                    .iter()
                    .filter_map(|value| value.to_str().ok().map(str::to_owned))
                    .collect();
                let challenges: Vec<&str> = challenges.iter().map(String::as_str).collect();
                let wanted = lock(&self.wanted).clone();
                let (domain, path) = (&self.domain, &self.path);
                *current = Some(auth::answer(&self.transport, &base, domain, path, &wanted, &challenges)?);
            }
            current.clone()
        };
        if matches!(content, Content::Stream { .. }) {
            // What was read of it is gone: whoever has the source sends it again.
            return Err(Failed::Again {
                fault: auth::login_needed(&self.domain),
                after: Some(Duration::ZERO),
            });
        }
        Ok(self.request_somewhere(method, target, headers, authorization.as_ref(), content)?.1)
    }

    /// Sends to the address that is known to answer, or finds out which one does.
    fn request_somewhere(
        &self,
        method: &Method,
        target: Target<'_>,
        headers: &[(&'static str, String)],
        authorization: Option<&String>,
        content: &mut Content<'_>,
    ) -> Result<(String, Response<Body>), Failed> {
        let mut send = |base: &str| {
            let url = match target {
                Target::Below(what) if self.path.is_empty() => format!("{base}/v2/{what}"),
                Target::Below(what) => format!("{base}/v2/{}/{what}", self.path),
                Target::At(url) => url.to_owned(),
            };
            // An address the registry gave may be anybody's.
            let authorization = authorization.filter(|_| origin(&url) == origin(base)).cloned();
            let headers = headers.to_vec();
            let request = Request { method: method.clone(), url: &url, headers, authorization, form: None };
            self.transport.send_with(&request, content)
        };
        let known = lock(&self.base).clone();
        if let Some(base) = known {
            return match send(&base)? {
                Ok(response) => Ok((base, response)),
                Err(error) => Err(broken(&self.domain, error)),
            };
        }
        let mut first_failure = None;
        let candidates = endpoint::candidates(&self.domain, self.transport.options.tls_verify);
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
                    return Err(broken(&self.domain, error));
                }
                Err(error) => first_failure = Some(error),
            }
        }
        Err(Fault::failed("the registry has no address").into())
    }
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
        Broken::Tls(_) | Broken::Rustls(_) | Broken::Protocol(_) => true,
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

fn is_certificate(error: &Broken) -> bool {
    error.to_string().to_ascii_lowercase().contains("certificate")
}

/// A connection that failed, in words, and whether to try again.
pub(crate) fn broken(host: &str, error: Broken) -> Failed {
    use std::io::ErrorKind;
    if is_certificate(&error) {
        return Fault::denied(format!("the certificate of {host} is not trusted"))
            .because(error)
            .hint("add the certificate to SSL_CERT_FILE, or --tls-verify=false")
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
