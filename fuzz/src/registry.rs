//! What a registry answers: status lines, headers, challenges, tokens, manifests, blobs, redirects, lists, uploads.
//!
//! Input: `manifest`, `digest`, `blob`, `rest` (of a blob), `tags`, `referrers`, `mount`, `put` or `stream` (of a blob) on the first line; then answers, one for each connection, with
//! a line `%%` between them. `@HOST@` in an answer stands for the registry's address.
//!
//! An answer may lead anywhere: a target is only run where nothing but loopback can be reached (scripts/fuzz).

use oci::manifest::{Descriptor, Document};
use oci::{Digest, Reference};
use registry::{Client, Options, Sink};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const BLOB: &[u8] = b"0123456789abcdef";
const MOST_ANSWERS: usize = 16;

/// One run after the other: the server's answers are of one.
static ONE: Mutex<()> = Mutex::new(());

pub fn check(data: &[u8]) {
    let Some(feed) = data.iter().position(|b| *b == b'\n') else { return };
    let (what, script) = (&data[..feed], &data[feed + 1..]);
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = SERVER.get_or_init(Server::start);
    *server.answers() = answers(script, &server.address);

    let options = Options { tls_verify: false, timeout: Duration::from_secs(2), retries: 0 };
    let reference = Reference::parse(&format!("{}/a/b:t", server.address)).expect("a reference");
    let repository = Client::new(options).repository(&reference);
    let failed = match what {
        b"manifest" => repository.manifest("t").map(|fetched| {
            let mut hasher = oci::digest::Hasher::new(fetched.digest.algorithm());
            hasher.update(&fetched.bytes);
            assert_eq!(hasher.finish(), fetched.digest);
            let _ = Document::parse(&fetched.bytes, fetched.media_type.as_deref());
        }),
        b"digest" => repository.manifest_digest("t").map(drop),
        b"blob" => blob(&repository, 0),
        b"rest" => blob(&repository, 4),
        b"tags" => repository.tags().map(drop),
        b"referrers" => repository.referrers(&Digest::of(BLOB), Some("a/b")).map(drop),
        b"mount" => repository.mount_blob(&Digest::of(BLOB), "c/d").map(drop),
        b"put" => {
            // Large enough for a stream.
            let bytes = BLOB.repeat(70_000);
            let source = |from: u64| -> fault::Result<Box<dyn std::io::Read + Send>> {
                Ok(Box::new(std::io::Cursor::new(bytes[from as usize..].to_vec())))
            };
            repository.put_blob(&descriptor(&bytes), None, &mut { source }, &mut |_| {})
        }
        b"stream" => repository.put_stream(&mut &BLOB[..], &mut |_| {}).map(|(digest, size)| {
            assert_eq!((digest, size), (Digest::of(BLOB), BLOB.len() as u64));
        }),
        _ => return,
    };
    if let Err(fault) = failed {
        assert!(!fault.to_string().is_empty());
    }
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: None,
        urls: None,
    }
}

fn blob(repository: &registry::Repository, from: usize) -> fault::Result<()> {
    let mut sink = Memory(BLOB[..from].to_vec());
    repository.blob(&descriptor(BLOB), &mut sink, &mut |_| {})?;
    assert_eq!(sink.0.len(), BLOB.len());
    Ok(())
}

/// Takes no more than it was promised, as the store does.
struct Memory(Vec<u8>);

impl Sink for Memory {
    fn written(&self) -> u64 {
        self.0.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) -> fault::Result<()> {
        if self.0.len() + bytes.len() > BLOB.len() {
            return Err(fault::Fault::input("more than was promised"));
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// Says what it is told to, one answer for each connection, then nothing.
struct Server {
    address: String,
    answers: Mutex<VecDeque<Vec<u8>>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = SERVER.wait().answers().pop_front();
                // A client that goes away early is none of its business.
                let _ = serve(&stream, answer.as_deref().unwrap_or_default());
            }
        });
        Server { address, answers: Mutex::default() }
    }

    fn answers(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a request's head and answers. What is no HTTP, the beginning of TLS, has no empty line to wait for.
fn serve(stream: &TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.fill_buf()?.first() == Some(&0x16) || reader.read_until(b'\n', &mut line)? <= 2 {
            break;
        }
    }
    (&*stream).write_all(answer)?;
    stream.shutdown(Shutdown::Both)
}

fn answers(script: &[u8], address: &str) -> VecDeque<Vec<u8>> {
    let script = replace(script, b"@HOST@", address.as_bytes());
    let mut answers = VecDeque::new();
    let mut rest = &script[..];
    while let Some(at) = rest.windows(4).position(|bytes| bytes == b"\n%%\n") {
        answers.push_back(rest[..at].to_vec());
        rest = &rest[at + 4..];
    }
    answers.push_back(rest.to_vec());
    answers.truncate(MOST_ANSWERS);
    answers
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|bytes| bytes == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}
