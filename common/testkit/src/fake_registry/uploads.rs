//! What is sent to the registry: blobs in one piece or several, mounts, manifests.

use super::{Answer, Behaviour, FakeRegistry, Request, State, lock, send};
use oci::Digest;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

impl FakeRegistry {
    /// A blob as a repository has it, however it got there.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        let state = self.lock();
        let sent = state.blobs.get(&format!("{repository}@{digest}"));
        sent.or_else(|| state.blobs.get(digest.as_str())).cloned()
    }

    /// A blob that only one repository has.
    pub fn put_blob_in(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.lock().blobs.insert(format!("{repository}@{digest}"), bytes.to_vec());
        digest
    }

    /// Forgets all blobs and manifests.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.blobs.clear();
        state.manifests.clear();
    }
}

impl State {
    /// The answer to who asks how far an upload has come.
    pub(super) fn upload_status(&self, path: &str) -> Option<Answer> {
        let (_, id) = path.split_once("/blobs/uploads/")?;
        Some(match self.uploads.get(id) {
            Some(bytes) => progress(204, &format!("/v2/{path}"), bytes.len()),
            None => Answer::error(404, "BLOB_UPLOAD_UNKNOWN"),
        })
    }
}

pub(super) fn serve(
    mut stream: &TcpStream,
    mut reader: BufReader<&TcpStream>,
    state: &Mutex<State>,
    request: &Request,
    behaviour: Option<Behaviour>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let refusal = match &behaviour {
        Some(Behaviour::Status(status)) => Some(Answer::error(*status, "NO")),
        Some(Behaviour::RetryAfter(status, seconds)) => {
            Some(Answer::error(*status, "TOOMANYREQUESTS").with("Retry-After", seconds.to_string()))
        }
        Some(Behaviour::Redirect(location)) => {
            Some(Answer::error(307, "THERE").with("Location", location.clone()))
        }
        Some(Behaviour::ForgetUpload) => {
            lock(state).uploads.clear();
            Some(Answer::error(404, "BLOB_UPLOAD_UNKNOWN"))
        }
        _ => lock(state).refuses(request),
    };
    // What is refused is not read, as servers do it.
    if let Some(answer) = refusal {
        let length = answer.body.len() as u64;
        return send(stream, request, &answer, Some(length), None);
    }
    if let Some(Behaviour::Silent) = behaviour {
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        return Ok(());
    }
    if request.headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let limit = match behaviour {
        Some(Behaviour::CutUpload(bytes)) => bytes as u64,
        _ => u64::MAX,
    };
    let body = read_body(&mut reader, request, limit)?;
    if limit < u64::MAX {
        // Also of what was to be its end.
        let path = request.path.split('?').next().unwrap_or_default();
        let mut state = lock(state);
        if let Some(upload) = path.rsplit('/').next().and_then(|id| state.uploads.get_mut(id)) {
            upload.extend(&body);
        }
        return Ok(());
    }
    let mut answer = lock(state).take(request, &body);
    match behaviour {
        Some(Behaviour::NoAnswer) => return Ok(()),
        Some(Behaviour::Header(name, value)) => answer.replace(name, value),
        Some(Behaviour::DigestHeader(digest)) => answer.replace("Docker-Content-Digest", digest),
        _ => {}
    }
    let length = answer.body.len() as u64;
    send(stream, request, &answer, Some(length), None)
}

fn read_body(reader: &mut impl BufRead, request: &Request, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = request.headers.get("content-length").and_then(|text| text.parse::<u64>().ok()) {
        reader.take(length.min(limit)).read_to_end(&mut body)?;
        return Ok(body);
    }
    if request.headers.get("transfer-encoding").is_none_or(|text| text != "chunked") {
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if size == 0 || body.len() as u64 >= limit {
            return Ok(body);
        }
    }
}

impl State {
    /// What can be told from the head of a request.
    fn refuses(&self, request: &Request) -> Option<Answer> {
        if let Some(refusal) = self.lacks_scope(request) {
            return Some(refusal);
        }
        let authorization = request.headers.get("authorization");
        (self.required.is_some() && authorization != self.required.as_ref())
            .then(|| Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", &self.challenge))
    }

    fn take(&mut self, request: &Request, body: &[u8]) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(path) = path.strip_prefix("/v2/") else { return Answer::error(404, "NOT_FOUND") };
        if let Some((repository, identifier)) = path.split_once("/manifests/") {
            if request.method == "DELETE" {
                return match self.manifests.remove(&format!("{repository}/{identifier}")) {
                    Some(_) => Answer { status: 202, headers: Vec::new(), body: Vec::new() },
                    None => Answer::error(404, "MANIFEST_UNKNOWN"),
                };
            }
            return self.take_manifest(request, repository, identifier, body);
        }
        let Some((repository, id)) = path.split_once("/blobs/uploads/") else {
            return Answer::error(404, "NOT_FOUND");
        };
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        match request.method.as_str() {
            "POST" => self.open(repository, value("mount").as_deref(), value("from").as_deref()),
            "PATCH" => self.append(request, path, id, body),
            _ => self.finish(repository, id, value("digest").as_deref(), body),
        }
    }

    fn open(&mut self, repository: &str, mount: Option<&str>, from: Option<&str>) -> Answer {
        if let (Some(digest), Some(from)) = (mount, from)
            && let Some(bytes) = self.blobs.get(&format!("{from}@{digest}")).cloned()
        {
            self.blobs.insert(format!("{repository}@{digest}"), bytes);
            return Answer { status: 201, headers: Vec::new(), body: Vec::new() }
                .with("Location", format!("/v2/{repository}/blobs/{digest}"));
        }
        self.opened += 1;
        let id = format!("u{}", self.opened);
        self.uploads.insert(id.clone(), Vec::new());
        progress(202, &format!("/v2/{repository}/blobs/uploads/{id}"), 0)
    }

    fn append(&mut self, request: &Request, path: &str, id: &str, body: &[u8]) -> Answer {
        let Some(upload) = self.uploads.get_mut(id) else {
            return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        let start =
            request.headers.get("content-range").and_then(|range| range.split('-').next()?.parse().ok());
        if start.unwrap_or(0) != upload.len() {
            return progress(416, &format!("/v2/{path}"), upload.len());
        }
        upload.extend_from_slice(body);
        progress(202, &format!("/v2/{path}"), upload.len())
    }

    fn finish(&mut self, repository: &str, id: &str, digest: Option<&str>, body: &[u8]) -> Answer {
        let Some(mut bytes) = self.uploads.remove(id) else {
            return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        bytes.extend_from_slice(body);
        let actual = Digest::of(&bytes);
        if digest != Some(actual.as_str()) {
            return Answer::error(400, "DIGEST_INVALID");
        }
        self.blobs.insert(format!("{repository}@{actual}"), bytes);
        Answer { status: 201, headers: Vec::new(), body: Vec::new() }
            .with("Location", format!("/v2/{repository}/blobs/{actual}"))
            .with("Docker-Content-Digest", actual.as_str())
    }

    fn take_manifest(
        &mut self,
        request: &Request,
        repository: &str,
        identifier: &str,
        body: &[u8],
    ) -> Answer {
        let digest = Digest::of(body);
        let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
        for identifier in [identifier, digest.as_str()] {
            let value = (media_type.clone(), body.to_vec());
            self.manifests.insert(format!("{repository}/{identifier}"), value);
        }
        let answer = Answer { status: 201, headers: Vec::new(), body: Vec::new() }
            .with("Location", format!("/v2/{repository}/manifests/{digest}"))
            .with("Docker-Content-Digest", digest.as_str());
        let manifest: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        match manifest["subject"]["digest"].as_str() {
            Some(subject) if !self.knows_no_referrers => answer.with("OCI-Subject", subject),
            _ => answer,
        }
    }
}

fn progress(status: u16, location: &str, bytes: usize) -> Answer {
    Answer { status, headers: Vec::new(), body: Vec::new() }
        .with("Location", location)
        .with("Range", format!("0-{}", bytes.saturating_sub(1)))
}
