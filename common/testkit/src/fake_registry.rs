//! A registry that misbehaves on demand: it says no, says later, lies, cuts connections or says nothing at all.
//!
//! One thread per connection on a free port of loopback, one request per connection.

mod lists;
mod scopes;
mod uploads;

use oci::Digest;
use oci::manifest::media_type;
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What to do with a request in place of answering it.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers with a status and an error in the registry's manner.
    Status(u16),
    /// The same, with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Says how long the body is, sends that many bytes of it and closes the connection.
    CutAfter(usize),
    /// Takes the request and never answers.
    Silent,
    /// Sends these bytes in place of the right ones, with their own length.
    Body(Vec<u8>),
    /// Sends these bytes without saying how many: the end of the connection ends them.
    BodyWithoutLength(Vec<u8>),
    /// Sends the right bytes under this `Content-Length`.
    Length(u64),
    /// Sends the whole although a range was asked for.
    IgnoreRange,
    Redirect(String),
    /// Says that the manifest has this digest.
    DigestHeader(String),
    /// Sends one byte at a time, with a pause after each.
    Trickle(Duration),
    /// Is no HTTP at all.
    Garbage,
    /// Takes that many bytes of what is sent, keeps them and closes the connection.
    CutUpload(usize),
    /// Takes what is sent, keeps it and closes the connection without an answer.
    NoAnswer,
    /// Answers rightly, but with this header in place of its own.
    Header(&'static str, String),
    /// Does not know the upload any more.
    ForgetUpload,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

impl Request {
    /// `PATCH /v2/…`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn is_sending(&self) -> bool {
        matches!(self.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE")
    }
}

/// The parts of an image that was put in.
#[derive(Clone, Debug)]
pub struct Pushed {
    pub manifest: Digest,
    pub config: Digest,
    pub layers: Vec<Digest>,
}

#[derive(Debug)]
struct Rule {
    contains: String,
    /// Requests left to misbehave at.
    times: usize,
    behaviour: Behaviour,
}

#[derive(Debug, Default)]
struct State {
    /// By `repository/identifier`: media type and bytes.
    manifests: HashMap<String, (String, Vec<u8>)>,
    /// By digest those every repository has, by `repository@digest` those that were sent to one.
    blobs: HashMap<String, Vec<u8>>,
    uploads: HashMap<String, Vec<u8>>,
    opened: usize,
    /// Entries of a page at most.
    page: Option<usize>,
    knows_no_referrers: bool,
    /// Tokens say what they allow, except what is denied to everyone.
    scoped: bool,
    denied: Vec<String>,
    rules: Vec<Rule>,
    requests: Vec<Request>,
    /// The value of `Authorization` a request has to have.
    required: Option<String>,
    challenge: String,
    /// What the token endpoint wants in turn.
    token_needs: Option<String>,
    /// What it gives; `good-token` if empty.
    token: String,
}

impl State {
    fn token(&self) -> &str {
        if self.token.is_empty() { "good-token" } else { &self.token }
    }
}

/// Ends when dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl FakeRegistry {
    pub fn start() -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let port = listener.local_addr().expect("a listener has an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (state, stop) = (Arc::clone(&shared), Arc::clone(&stopped));
                // A connection that breaks is what this registry is for.
                std::thread::spawn(move || drop(serve(&stream, &state, &stop)));
            }
        });
        FakeRegistry { port, state, stop }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.lock().blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    /// Under a tag and under its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut state = self.lock();
        for identifier in [tag, digest.as_str()] {
            let value = (media_type.to_owned(), bytes.to_vec());
            state.manifests.insert(format!("{repository}/{identifier}"), value);
        }
        digest
    }

    /// An image for linux/amd64 with these layers, which need not be archives.
    pub fn put_image(&self, repository: &str, tag: &str, layers: &[&[u8]]) -> Pushed {
        let digests: Vec<Digest> = layers.iter().map(|layer| self.put_blob(layer)).collect();
        let config =
            json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"], "OnBuild": ["RUN x"]},
            "rootfs": {"type": "layers", "diff_ids": digests}})
            .to_string();
        let config_digest = self.put_blob(config.as_bytes());
        let layers: Vec<_> = layers
            .iter()
            .zip(&digests)
            .map(|(bytes, digest)| json!({"mediaType": media_type::OCI_LAYER, "digest": digest, "size": bytes.len()}))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": layers,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": config_digest, "size": config.len()}})
        .to_string();
        let manifest = self.put_manifest(repository, tag, media_type::OCI_MANIFEST, manifest.as_bytes());
        Pushed { manifest, config: config_digest, layers: digests }
    }

    /// Misbehaves at the next `times` requests whose path contains this.
    pub fn misbehave(&self, contains: &str, times: usize, behaviour: Behaviour) {
        self.lock().rules.push(Rule { contains: contains.to_owned(), times, behaviour });
    }

    /// Behaves from now on.
    pub fn stop_misbehaving(&self) {
        self.lock().rules.clear();
    }

    /// What is served as a manifest.
    pub fn manifest_bytes(&self, repository: &str, identifier: &str) -> Vec<u8> {
        let state = self.lock();
        state
            .manifests
            .get(&format!("{repository}/{identifier}"))
            .map(|(_, bytes)| bytes.clone())
            .unwrap_or_default()
    }

    /// From now on a bearer token is needed, given to whoever has this name and password (to anyone if `None`).
    pub fn require_token(&self, user: Option<(&str, &str)>) {
        let mut state = self.lock();
        state.required = Some("Bearer good-token".to_owned());
        state.challenge = format!(
            "Bearer realm=\"http://127.0.0.1:{}/token\",service=\"fake, really\",scope=\"repository:x:pull\"",
            self.port
        );
        state.token_needs = user.map(|(name, password)| basic(name, password));
    }

    /// From now on another token is given and asked for; those given before are refused.
    pub fn change_token(&self, token: &str) {
        let mut state = self.lock();
        token.clone_into(&mut state.token);
        state.required = Some(format!("Bearer {token}"));
    }

    /// Challenges in these words from now on.
    pub fn challenge(&self, words: &str) {
        let mut state = self.lock();
        words.clone_into(&mut state.challenge);
        state.required.get_or_insert_with(|| "Bearer good-token".to_owned());
    }

    /// From now on a name and password are needed.
    pub fn require_password(&self, name: &str, password: &str) {
        let mut state = self.lock();
        state.required = Some(basic(name, password));
        "Basic realm=\"fake\"".clone_into(&mut state.challenge);
    }

    /// What was asked, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// Forgets them.
    pub fn forget_requests(&self) {
        self.lock().requests.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listening thread, so that it sees it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// The entry of docker's `config.json` for a registry.
pub fn auth_file(address: &str, name: &str, password: &str) -> String {
    let encoded = basic(name, password);
    let encoded = encoded.trim_start_matches("Basic ");
    json!({"auths": {address: {"auth": encoded}}}).to_string()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn basic(name: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{name}:{password}");
    let mut out = "Basic ".to_owned();
    for chunk in text.as_bytes().chunks(3) {
        let group =
            chunk.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * position) & 63) as usize] as char;
            out.push(if position <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

/// An answer before it is sent.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn error(status: u16, code: &str) -> Answer {
        let body = json!({"errors": [{"code": code, "message": format!("{code} it is")}]}).to_string();
        Answer { status, headers: Vec::new(), body: body.into_bytes() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn replace(&mut self, name: &str, value: String) {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value));
    }
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream);
    let Some(mut request) = read_request(&mut reader)? else { return Ok(()) };
    let behaviour = {
        let mut state = lock(state);
        state.requests.push(request.clone());
        let rule =
            state.rules.iter_mut().find(|rule| rule.times > 0 && request.path.contains(&rule.contains));
        rule.map(|rule| {
            rule.times -= 1;
            rule.behaviour.clone()
        })
    };
    // Of whoever takes it for a proxy (RFC 9112, section 3.2.2).
    if let Some(path) = request.path.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
        request.path = format!("/{}", path.1);
    }
    if request.is_sending() && request.path != "/token" {
        return uploads::serve(stream, reader, state, &request, behaviour, stop);
    }
    let ranged = !matches!(behaviour, Some(Behaviour::IgnoreRange));
    let mut answer = right_answer(&lock(state), &request, ranged);
    let mut sent = None;
    let mut length = Some(answer.body.len() as u64);
    match behaviour {
        None | Some(Behaviour::IgnoreRange | Behaviour::CutUpload(_) | Behaviour::NoAnswer) => {}
        Some(Behaviour::ForgetUpload) => answer = Answer::error(404, "BLOB_UPLOAD_UNKNOWN"),
        Some(Behaviour::Header(name, value)) => answer.replace(name, value),
        Some(Behaviour::Status(status)) => answer = Answer::error(status, "NO"),
        Some(Behaviour::RetryAfter(status, seconds)) => {
            answer = Answer::error(status, "TOOMANYREQUESTS").with("Retry-After", seconds.to_string());
        }
        Some(Behaviour::CutAfter(bytes)) => sent = Some(bytes),
        Some(Behaviour::Silent) => {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        Some(Behaviour::Body(body)) => answer.body = body,
        Some(Behaviour::BodyWithoutLength(body)) => (answer.body, length) = (body, None),
        Some(Behaviour::Length(length)) => return send(stream, &request, &answer, Some(length), None),
        Some(Behaviour::Redirect(location)) => {
            answer = Answer::error(307, "THERE").with("Location", location);
        }
        Some(Behaviour::DigestHeader(digest)) => answer.replace("Docker-Content-Digest", digest),
        Some(Behaviour::Trickle(pause)) => return trickle(stream, &answer, pause, stop),
        Some(Behaviour::Garbage) => {
            return stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00nonsense\r\n\r\n");
        }
    }
    length = length.map(|_| answer.body.len() as u64);
    send(stream, &request, &answer, length, sent)
}

fn right_answer(state: &State, request: &Request, ranged: bool) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let authorization = request.headers.get("authorization");
    if path == "/token" {
        if state.token_needs.is_some() && authorization != state.token_needs.as_ref() {
            return Answer::error(401, "UNAUTHORIZED");
        }
        let token = if state.scoped { state.scoped_token(&request.path) } else { state.token().to_owned() };
        let body = json!({"token": token, "expires_in": 60}).to_string().into_bytes();
        return Answer { status: 200, headers: Vec::new(), body };
    }
    if let Some(refusal) = state.lacks_scope(request) {
        return refusal;
    }
    if state.required.is_some() && authorization != state.required.as_ref() {
        return Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", &state.challenge);
    }
    let Some(path) = path.strip_prefix("/v2/") else { return Answer::error(404, "NOT_FOUND") };
    if path.is_empty() {
        return Answer { status: 200, headers: Vec::new(), body: b"{}".to_vec() };
    }
    if let Some(answer) = state.list(path, request) {
        return answer;
    }
    if let Some(answer) = state.upload_status(path) {
        return answer;
    }
    if let Some((repository, identifier)) = path.split_once("/manifests/") {
        return match state.manifests.get(&format!("{repository}/{identifier}")) {
            Some((media_type, bytes)) => Answer { status: 200, headers: Vec::new(), body: bytes.clone() }
                .with("Content-Type", media_type)
                .with("Docker-Content-Digest", Digest::of(bytes).as_str()),
            None => Answer::error(404, "MANIFEST_UNKNOWN"),
        };
    }
    let blob = path.split_once("/blobs/").and_then(|(repository, digest)| {
        state.blobs.get(digest).or_else(|| state.blobs.get(&format!("{repository}@{digest}")))
    });
    let Some(bytes) = blob else { return Answer::error(404, "BLOB_UNKNOWN") };
    let range = request.headers.get("range").filter(|_| ranged).and_then(|text| range(text, bytes.len()));
    match range {
        Some((first, last)) => {
            let body = bytes.get(first..=last).unwrap_or_default().to_vec();
            let span = format!("bytes {first}-{last}/{}", bytes.len());
            Answer { status: 206, headers: Vec::new(), body }.with("Content-Range", span)
        }
        None => Answer { status: 200, headers: Vec::new(), body: bytes.clone() },
    }
}

fn range(text: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = last.parse().unwrap_or(usize::MAX).min(length.checked_sub(1)?);
    (first <= last).then_some((first, last))
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some(Request { method, path, headers }));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

fn head(answer: &Answer, length: Option<u64>) -> String {
    let mut text = format!("HTTP/1.1 {} Fake\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    if let Some(length) = length {
        text.extend(["Content-Length: ", &length.to_string(), "\r\n"]);
    }
    text.push_str("\r\n");
    text
}

/// Sends the first `sent` bytes of the body, all of them by default.
fn send(
    mut stream: &TcpStream,
    request: &Request,
    answer: &Answer,
    length: Option<u64>,
    sent: Option<usize>,
) -> std::io::Result<()> {
    stream.write_all(head(answer, length).as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let end = sent.unwrap_or(usize::MAX).min(answer.body.len());
    stream.write_all(answer.body.get(..end).unwrap_or_default())
}

fn trickle(
    mut stream: &TcpStream,
    answer: &Answer,
    pause: Duration,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    stream.write_all(head(answer, Some(answer.body.len() as u64)).as_bytes())?;
    for byte in &answer.body {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[*byte])?;
        std::thread::sleep(pause);
    }
    Ok(())
}
