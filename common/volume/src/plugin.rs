//! docker's volume plugins: JSON over HTTP over a unix socket (docs.docker.com/engine/extend/plugins_volume and plugin_api). The few
//! words of HTTP are written here: no tool of containers links more of it.

use fault::{Explain, Fault, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where docker looks for them: sockets, then files that name one.
const PLACES: &str = "/run/docker/plugins:/etc/docker/plugins:/usr/lib/docker/plugins";
/// Largest answer read.
const MAX_ANSWER: u64 = 1 << 20;
const MAX_SPEC: u64 = 64 << 10;
/// A plugin may have to wait for what it mounts.
const PATIENCE: Duration = Duration::from_mins(1);

/// A plugin that answers.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    socket: PathBuf,
}

impl Plugin {
    /// # Errors
    /// [`Kind::NotFound`] when there is none of this name.
    pub fn find(name: &str) -> Result<Plugin> {
        let valid = !name.is_empty()
            && name.len() <= 200
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !valid {
            return Err(Fault::input(format!("{name:?} is not a volume driver's name")));
        }
        let places = std::env::var("STAVES_PLUGINS").ok().filter(|places| !places.is_empty());
        let places = places.unwrap_or_else(|| PLACES.to_owned());
        for place in places.split(':').map(Path::new) {
            for folder in [place.to_path_buf(), place.join(name)] {
                let socket = folder.join(format!("{name}.sock"));
                if socket.exists() {
                    return Plugin { name: name.to_owned(), socket }.activated();
                }
                for ending in ["spec", "json"] {
                    let file = folder.join(format!("{name}.{ending}"));
                    if file.is_file() {
                        let socket = named_in(&file)?;
                        return Plugin { name: name.to_owned(), socket }.activated();
                    }
                }
            }
        }
        Err(Fault::not_found(format!("there is no volume driver {name}"))
            .hint(format!("local, or a plugin with a socket or a file in {}", places.replace(':', ", "))))
    }

    fn activated(self) -> Result<Plugin> {
        let answer = self.call("Plugin.Activate", &json!({}))?;
        let implements =
            answer["Implements"].as_array().is_some_and(|list| list.iter().any(|one| one == "VolumeDriver"));
        if implements {
            Ok(self)
        } else {
            Err(Fault::input(format!("the plugin {} is no volume driver", self.name)))
        }
    }

    pub fn create(&self, volume: &str, options: &BTreeMap<String, String>) -> Result<()> {
        self.call("VolumeDriver.Create", &json!({"Name": volume, "Opts": options})).map(drop)
    }

    pub fn remove(&self, volume: &str) -> Result<()> {
        self.call("VolumeDriver.Remove", &json!({"Name": volume})).map(drop)
    }

    /// Where on the host it is, until [`Plugin::unmount`] with the same id.
    pub fn mount(&self, volume: &str, id: &str) -> Result<PathBuf> {
        let answer = self.call("VolumeDriver.Mount", &json!({"Name": volume, "ID": id}))?;
        let path = answer["Mountpoint"].as_str().filter(|path| path.starts_with('/') && !path.contains('\0'));
        path.map(PathBuf::from)
            .ok_or_else(|| Fault::failed(format!("the plugin {} named no absolute path", self.name)))
    }

    pub fn unmount(&self, volume: &str, id: &str) -> Result<()> {
        self.call("VolumeDriver.Unmount", &json!({"Name": volume, "ID": id})).map(drop)
    }

    /// What the plugin tells of a volume: `Mountpoint` if it is mounted, `Status`.
    pub fn get(&self, volume: &str) -> Result<Value> {
        self.call("VolumeDriver.Get", &json!({"Name": volume})).map(|answer| answer["Volume"].clone())
    }

    /// `local` or `global`.
    pub fn scope(&self) -> String {
        // Plugins from before there were any do not know the question.
        let answer = self.call("VolumeDriver.Capabilities", &json!({})).unwrap_or_default();
        answer["Capabilities"]["Scope"]
            .as_str()
            .filter(|scope| *scope == "global")
            .unwrap_or("local")
            .to_owned()
    }

    fn call(&self, method: &str, body: &Value) -> Result<Value> {
        let what = || format!("ask the volume driver {} ({method})", self.name);
        let body = body.to_string();
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| {
            Fault::retryable(format!("reach the volume driver {} at {}", self.name, self.socket.display()))
                .because(error)
        })?;
        stream.set_write_timeout(Some(PATIENCE)).explain(what)?;
        let accepted = "application/vnd.docker.plugins.v1.2+json";
        let request = format!(
            "POST /{method} HTTP/1.1\r\nHost: plugin\r\nAccept: {accepted}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).explain(what)?;
        let answer =
            read_whole(&mut stream, Instant::now() + PATIENCE).map_err(|fault| fault.within(what()))?;
        let (status, body) = read_answer(&answer)
            .ok_or_else(|| Fault::failed(format!("{}: its answer is not HTTP", what())))?;
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        // What succeeds may say nothing, but no list or number: nobody knows what that plugin has done.
        if status == 200 && !body.is_empty() && !said.is_object() {
            return Err(Fault::failed(format!("{}: its answer is no JSON object", what())));
        }
        let error = said["Err"].as_str().unwrap_or_default();
        if status == 200 && error.is_empty() {
            return Ok(said);
        }
        let why =
            if error.is_empty() { format!("status {status}") } else { error.chars().take(500).collect() };
        Err(Fault::failed(format!("{}: {why}", what())))
    }
}

/// Until the other side has said all. However slowly it comes, not longer than to the deadline.
fn read_whole(stream: &mut UnixStream, deadline: Instant) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let late = || Fault::retryable(format!("no whole answer within {} seconds", PATIENCE.as_secs()));
        if left.is_zero() {
            return Err(late());
        }
        stream.set_read_timeout(Some(left)).explain(|| "wait for the answer".into())?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error).explain(|| "read the answer".into()),
        }
        if answer.len() as u64 > MAX_ANSWER {
            return Err(Fault::failed(format!("its answer is longer than {MAX_ANSWER} bytes")));
        }
    }
}

/// A file with the socket's address, `unix:///path`, alone or as `Addr` of JSON.
fn named_in(file: &Path) -> Result<PathBuf> {
    let what = || format!("read {}", file.display());
    let mut text = String::new();
    std::fs::File::open(file).explain(what)?.take(MAX_SPEC).read_to_string(&mut text).explain(what)?;
    let address = match serde_json::from_str::<Value>(&text) {
        Ok(value) => value["Addr"].as_str().unwrap_or_default().to_owned(),
        Err(error) if file.extension().is_some_and(|ending| ending == "json") => {
            return Err(Fault::input(what()).because(error));
        }
        Err(_) => text.trim().to_owned(),
    };
    match address.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(Fault::new(Kind::Input, format!("{}: {address:?} is not unix:///…", file.display()))
            .hint("plugins at other addresses are not spoken to")),
    }
}

/// Status and body of an HTTP/1 answer that has ended (RFC 9112).
fn read_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    let (mut length, mut chunked) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().ok()?);
        }
        chunked |=
            name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked");
    }
    match length {
        _ if chunked => unchunked(body).map(|body| (status, body)),
        Some(length) => body.get(..length).map(|body| (status, body.to_vec())),
        None => Some((status, body.to_vec())),
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let read = |text: &str| {
            read_answer(text.as_bytes()).map(|(status, body)| (status, String::from_utf8(body).unwrap()))
        };
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x"), Some((200, "{}".into())));
        assert_eq!(read("HTTP/1.0 500 No\r\n\r\nwhy"), Some((500, "why".into())));
        assert_eq!(
            read(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
            ),
            Some((200, "abc0123456789".into()))
        );
        for wrong in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
    /// A plugin that answers every question but the first with this.
    fn plugin(answer: &'static str) -> (tempfile::TempDir, Plugin) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("p.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = [0; 4096];
                // A request is short and comes at once.
                if stream.read(&mut request).is_ok_and(|length| length > 0) {
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{answer}");
                }
            }
        });
        (dir, Plugin { name: "p".into(), socket })
    }

    #[test]
    fn what_is_no_object_is_no_answer() {
        for answer in ["[]", "7", "\"x\"", "true", "null", "[[[", "{\"Err\":"] {
            let (_dir, plugin) = plugin(answer);
            for asked in [
                plugin.get("v"),
                plugin.mount("v", "1").map(|_| Value::Null),
                plugin.remove("v").map(Value::from),
            ] {
                let fault = asked.unwrap_err().to_string();
                assert!(fault.contains("no JSON object"), "{answer}: {fault}");
            }
        }
        let (_dir, silent) = plugin("");
        assert!(silent.remove("v").is_ok() && silent.get("v").unwrap().is_null());
        let (_dir, odd) = plugin(r#"{"Volume":[1],"Mountpoint":7,"Err":null,"Capabilities":[]}"#);
        assert_eq!(odd.get("v").unwrap(), json!([1]));
        assert!(odd.mount("v", "1").is_err() && odd.scope() == "local");
    }

    #[test]
    fn an_answer_that_drips_is_not_waited_for() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            // Until nobody reads any more.
            while there.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let begun = Instant::now();
        let fault = read_whole(&mut here, begun + Duration::from_millis(200)).unwrap_err();
        assert_eq!(fault.kind(), Kind::Retryable);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        drop(here);
        writer.join().unwrap();
    }

    #[test]
    fn an_answer_without_end_is_cut() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || while there.write_all(&[b'x'; 4096]).is_ok() {});
        let fault = read_whole(&mut here, Instant::now() + PATIENCE).unwrap_err().to_string();
        assert!(fault.contains("longer than"), "{fault}");
        drop(here);
        writer.join().unwrap();
    }
}
