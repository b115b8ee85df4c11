//! A web server of one's own: files of a directory, or pages with what goes with them. One thread for each connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is answered.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// 0: 200, or 304 when a condition says so.
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Sends so many bytes of the body and closes.
    pub cut_after: Option<usize>,
    /// Sends no length: the end of the connection ends it.
    pub no_length: bool,
}

/// A request as it came: its line, and headers with names in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
}

#[derive(Default)]
struct Shared {
    pages: Mutex<HashMap<String, Vec<Page>>>,
    requests: Mutex<Vec<Request>>,
    directory: Option<PathBuf>,
    ends: AtomicBool,
}

pub struct Server {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn new() -> Server {
        Server::start(None)
    }

    pub fn of_directory(directory: &Path) -> Server {
        Server::start(Some(directory.to_owned()))
    }

    fn start(directory: Option<PathBuf>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { directory, ..Shared::default() });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.ends.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Server { port, shared, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers requests for a path, in this order; the last one for ever.
    pub fn put(&self, path: &str, pages: Vec<Page>) -> String {
        self.shared.pages.lock().unwrap().insert(path.to_owned(), pages);
        format!("{}{path}", self.url())
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let page = find(shared, &path, &headers);
    shared.requests.lock().unwrap().push(Request { path, headers });
    answer(stream, &page)
}

fn find(shared: &Shared, path: &str, headers: &HashMap<String, String>) -> Page {
    let plain = path.split('?').next().unwrap_or(path);
    if let Some(directory) = &shared.directory {
        return match std::fs::read(directory.join(plain.trim_start_matches('/'))) {
            Ok(body) => Page { body, ..Page::default() },
            Err(_) => Page { status: 404, ..Page::default() },
        };
    }
    let mut pages = shared.pages.lock().unwrap();
    let Some(answers) = pages.get_mut(plain) else { return Page { status: 404, ..Page::default() } };
    let mut page = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
    let has = |name: &str, condition: &str| {
        let ours = page.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
        ours.is_some() && ours == headers.get(condition)
    };
    if page.status == 0 && (has("etag", "if-none-match") || has("last-modified", "if-modified-since")) {
        page = Page { status: 304, headers: page.headers, ..Page::default() };
    }
    page
}

fn answer(mut stream: &TcpStream, page: &Page) -> std::io::Result<()> {
    let status = if page.status == 0 { 200 } else { page.status };
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    for (name, value) in &page.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if !page.no_length && status != 304 {
        head.extend(["content-length: ", &page.body.len().to_string(), "\r\n"]);
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    stream.write_all(&page.body[..page.cut_after.unwrap_or(page.body.len())])
}
