use super::files::escape;
use super::*;
use oci::wishes::{LogFiles, LogWish};
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("shim-log-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn setup(driver: &str, options: &[(&str, &str)]) -> Setup {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let wish = LogWish::parse(Some(driver), &options).unwrap();
    let (id, name, image_name) = ("0123456789abcdef".repeat(4), "web".to_owned(), "img:1".to_owned());
    Setup { wish, tag: "the tag".to_owned(), id, name, image_name, ..Setup::default() }
}

fn open(dir: &Path, options: &[(&str, &str)]) -> Log {
    Log::open(dir, &setup("json-file", options)).unwrap()
}

fn texts(path: &Path) -> Vec<(String, String)> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            (value["stream"].as_str().unwrap().to_owned(), value["log"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn lines_are_whole_whatever_the_pieces() {
    let dir = directory("lines");
    let mut log = open(&dir, &[]);
    log.write(0, b"he");
    log.write(1, b"err\n");
    log.write(0, "llo \"\u{e9}\\\u{1}\n\nlast".as_bytes());
    log.finish();
    let expected =
        [("stderr", "err\n"), ("stdout", "hello \"\u{e9}\\\u{1}\n"), ("stdout", "\n"), ("stdout", "last")];
    let got = texts(&dir.join("log.json"));
    assert_eq!(got.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>(), expected);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn long_lines_are_cut_between_characters() {
    let dir = directory("long");
    let mut log = open(&dir, &[]);
    let text = "\u{20ac}".repeat(20_000);
    for piece in text.as_bytes().chunks(1000) {
        log.write(0, piece);
    }
    log.finish();
    let joined: String = texts(&dir.join("log.json")).into_iter().map(|(_, text)| text).collect();
    assert_eq!(joined, text);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn rotation_loses_and_tears_nothing() {
    let dir = directory("rotate");
    let mut log = open(&dir, &[("max-size", "500"), ("max-file", "100")]);
    for number in 0..50 {
        log.write(0, format!("line {number}\n").as_bytes());
    }
    log.finish();
    let mut all = Vec::new();
    for number in (1..100).rev() {
        let path = dir.join(format!("log.json.{number}"));
        if path.exists() {
            assert!(std::fs::metadata(&path).unwrap().len() <= 500);
            all.extend(texts(&path));
        }
    }
    all.extend(texts(&dir.join("log.json")));
    let expected: Vec<_> = (0..50).map(|n| ("stdout".to_owned(), format!("line {n}\n"))).collect();
    assert_eq!(all, expected);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let mut out = Vec::new();
    escape(&mut out, b"a\xffb\x00");
    assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}b\\u0000");
}

/// Everything in a log's files, oldest first.
fn all(dir: &Path) -> String {
    let mut text = String::new();
    for number in (0..2000).rev() {
        let path = shim::log_files::numbered(&dir.join("log.json"), number);
        let compressed = shim::log_files::with_suffix(&path, ".gz");
        if let Ok(file) = std::fs::File::open(&compressed) {
            assert!(!path.exists());
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else if path.exists() {
            text += &std::fs::read_to_string(path).unwrap();
        }
    }
    text
}

#[test]
fn rotated_files_are_compressed() {
    let dir = directory("compress");
    let options = [("max-size", "2k"), ("max-file", "1000"), ("compress", "true")];
    let mut log = open(&dir, &options);
    let mut wanted = String::new();
    for number in 0..50 {
        let lines: Vec<String> = (0..number).map(|line| format!("line {line} of {number}\n")).collect();
        let lines = lines.concat();
        log.write(0, lines.as_bytes());
        wanted += &lines;
    }
    log.finish();
    let got: String = all(&dir)
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(got, wanted);
    assert!(dir.join("log.json.20.gz").exists() && !dir.join("log.json.20").exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn no_more_files_than_wished_for() {
    for compress in ["true", "false"] {
        let dir = directory("few");
        let mut log = open(&dir, &[("max-size", "200"), ("max-file", "3"), ("compress", compress)]);
        for number in 0..100 {
            log.write(0, format!("line {number}\n").as_bytes());
        }
        log.finish();
        let names = std::fs::read_dir(&dir).unwrap().count();
        assert_eq!(names, 3);
        assert!(all(&dir).ends_with('\n') && all(&dir).contains("line 99"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn what_a_killed_shim_tore_stays_apart() {
    let dir = directory("torn");
    std::fs::write(dir.join("log.json"), "{\"log\":\"tor").unwrap();
    let mut log = open(&dir, &[]);
    log.write(0, b"whole\n");
    let text = all(&dir);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "{\"log\":\"tor");
    assert!(lines[1].starts_with("{\"log\":\"whole\\n\"") && lines.len() == 2, "{text}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn attributes_stand_in_each_entry() {
    let dir = directory("attributes");
    let mut setup = setup("json-file", &[]);
    setup.attributes.insert("a".to_owned(), "b\"c".to_owned());
    let mut log = Log::open(&dir, &setup).unwrap();
    log.write(1, b"x\n");
    let entry: serde_json::Value = serde_json::from_str(&all(&dir)).unwrap();
    assert_eq!(entry["attrs"], serde_json::json!({"a": "b\"c"}));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn another_place() {
    let dir = directory("place");
    let path = dir.join("elsewhere");
    let mut log = open(&dir, &[("path", path.to_str().unwrap())]);
    log.write(0, b"x\n");
    assert!(path.exists() && !dir.join("log.json").exists());
    std::fs::remove_dir_all(dir).unwrap();
}

/// A journal's message, or a file of one, as fields.
fn fields(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line = &bytes[..end];
        if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            fields.push((String::from_utf8(line[..at].to_vec()).unwrap(), line[at + 1..].to_vec()));
            bytes = &bytes[end + 1..];
        } else {
            let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize;
            let value = bytes[end + 9..end + 9 + length].to_vec();
            fields.push((String::from_utf8(line.to_vec()).unwrap(), value));
            assert_eq!(bytes[end + 9 + length], b'\n');
            bytes = &bytes[end + 10 + length..];
        }
    }
    fields
}

fn journal(dir: &Path, setup: &Setup) -> (UnixDatagram, Log) {
    let path = dir.join("journal");
    let socket = UnixDatagram::bind(&path).unwrap();
    let journald = journald::Journald::open_at(path, setup, setup.wish.most_buffered).unwrap();
    let target = Some(Target::Journald(journald));
    (socket, Log { target, begun: [Vec::new(), Vec::new()], parts: [None; 2], cut: 0 })
}

#[test]
fn the_journal_gets_dockers_fields() {
    let dir = directory("journal");
    let mut setup = setup("journald", &[]);
    setup.attributes.insert("com.example.x".to_owned(), "two\nlines".to_owned());
    let (socket, mut log) = journal(&dir, &setup);
    log.write(1, b"oops\n\n");
    log.write(0, &vec![b'a'; 40_000]);
    log.write(0, b"end\n");
    let mut bytes = vec![0; 64 << 10];
    let mut next = || {
        let count = socket.recv(&mut bytes).unwrap();
        fields(&bytes[..count])
    };
    let value = |message: &[(String, Vec<u8>)], name: &str| {
        message
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let message = next();
    let id = "0123456789abcdef".repeat(4);
    for (name, wanted) in [
        ("MESSAGE", "oops"),
        ("PRIORITY", "3"),
        ("CONTAINER_ID", "0123456789ab"),
        ("CONTAINER_ID_FULL", id.as_str()),
        ("CONTAINER_NAME", "web"),
        ("CONTAINER_TAG", "the tag"),
        ("SYSLOG_IDENTIFIER", "the tag"),
        ("IMAGE_NAME", "img:1"),
        ("COM_EXAMPLE_X", "two\nlines"),
    ] {
        assert_eq!(value(&message, name).as_deref(), Some(wanted), "{name}");
    }
    assert_eq!(value(&message, "CONTAINER_PARTIAL_ID"), None);
    let parts = [next(), next(), next()];
    let lengths: usize = parts.iter().map(|part| value(part, "MESSAGE").unwrap().len()).sum();
    assert_eq!(lengths, 40_003);
    for (index, part) in parts.iter().enumerate() {
        assert_eq!(value(part, "PRIORITY").unwrap(), "6");
        assert_eq!(value(part, "CONTAINER_PARTIAL_ID"), value(&parts[0], "CONTAINER_PARTIAL_ID"));
        assert_eq!(value(part, "CONTAINER_PARTIAL_ORDINAL").unwrap(), (index + 1).to_string());
        assert_eq!(value(part, "CONTAINER_PARTIAL_LAST").unwrap(), (index == 2).to_string());
        assert_eq!(value(part, "CONTAINER_PARTIAL_MESSAGE").is_some(), index < 2);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_too_large_for_the_journal_goes_as_a_file() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let dir = directory("journal-file");
    let mut setup = setup("journald", &[]);
    let large = "x".repeat(1 << 20);
    setup.attributes.insert("large".to_owned(), large.clone());
    let (socket, mut log) = journal(&dir, &setup);
    log.write(0, b"hello\n");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut nothing = [0; 16];
    let mut parts = [std::io::IoSliceMut::new(&mut nothing)];
    let got = recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::empty()).unwrap();
    assert_eq!(got.bytes, 0);
    let Some(RecvAncillaryMessage::ScmRights(mut fds)) = ancillary.drain().next() else { panic!("no file") };
    let mut file = std::fs::File::from(fds.next().unwrap());
    std::io::Seek::rewind(&mut file).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(fields(&bytes).contains(&("LARGE".to_owned(), large.into_bytes())));
    assert!(rustix::io::write(&file, b"x").is_err(), "it is sealed");
    std::fs::remove_dir_all(dir).unwrap();
}

fn syslog(format: &str, address: &str) -> Log {
    let options = [("syslog-format", format), ("syslog-address", address), ("syslog-facility", "local0")];
    let options = if format.is_empty() { &options[1..] } else { &options[..] };
    Log::open(Path::new("/"), &setup("syslog", options)).unwrap()
}

#[test]
fn syslog_in_its_formats() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = std::process::id();
    for (format, beginning, ending) in [
        ("", "<134>".to_owned(), format!(" thetag[{pid}]: out")),
        ("rfc3164", "<134>".to_owned(), format!(" {host} thetag[{pid}]: out")),
        ("rfc5424", "<134>1 ".to_owned(), format!(" {host} thetag {pid} thetag - out")),
        ("rfc5424micro", "<134>1 ".to_owned(), format!(" {host} thetag {pid} thetag - out")),
    ] {
        let mut log = syslog(format, &address);
        log.write(0, b"out\n");
        let mut bytes = [0; 1000];
        let count = socket.recv(&mut bytes).unwrap();
        let message = std::str::from_utf8(&bytes[..count]).unwrap();
        let time = message.strip_prefix(&beginning).and_then(|rest| rest.trim_end().strip_suffix(&ending));
        let time = time.unwrap_or_else(|| panic!("{message:?}"));
        match format {
            "rfc5424" => assert_eq!(time.parse::<Timestamp>().unwrap().subsec_nanosecond(), 0),
            "rfc5424micro" => assert!(time.parse::<Timestamp>().is_ok() && time.contains('.'), "{time}"),
            _ => assert_eq!(time.len(), "Jan  2 03:04:05".len(), "{time}"),
        }
        log.write(1, b"err\n");
        let count = socket.recv(&mut bytes).unwrap();
        assert!(bytes[..count].starts_with(b"<131>"));
    }
}

#[test]
fn a_slow_syslog_stops_the_reading_and_loses_nothing() {
    let dir = directory("slow");
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut log = syslog("rfc3164", &format!("unix://{}", path.display()));
    let (mut connection, _) = listener.accept().unwrap();
    let mut lines = 0;
    while !log.is_behind() {
        log.write(0, format!("{lines} {}\n", "x".repeat(1000)).as_bytes());
        lines += 1;
        assert!(lines < 10_000);
    }
    assert!(log.waits_for().is_some());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    });
    log.finish();
    drop(log);
    let text = reader.join().unwrap();
    assert_eq!(text.lines().count(), lines);
    for (number, line) in text.lines().enumerate() {
        assert!(line.contains(&format!("]: {number} x")), "{line}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn without_blocking_what_is_new_is_dropped() {
    let dir = directory("nonblocking");
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let address = format!("unix://{}", path.display());
    let options =
        [("syslog-address", address.as_str()), ("mode", "non-blocking"), ("max-buffer-size", "64k")];
    let mut log = Log::open(Path::new("/"), &setup("syslog", &options)).unwrap();
    let (mut connection, _) = listener.accept().unwrap();
    for number in 0..5000 {
        log.write(0, format!("{number} {}\n", "x".repeat(1000)).as_bytes());
        assert!(!log.is_behind());
    }
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    });
    log.finish();
    drop(log);
    let text = reader.join().unwrap();
    let count = text.lines().count();
    assert!((64..5000).contains(&count), "{count}");
    assert!(text.lines().all(|line| line.ends_with('x')), "lines are whole");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn nobody_there() {
    let missing = setup("syslog", &[("syslog-address", "unixgram:///nonexistent/log")]);
    assert!(Log::open(Path::new("/"), &missing).is_err());
    let journald = journald::Journald::open_at(PathBuf::from("/nonexistent/socket"), &missing, None);
    assert!(journald.is_err());
    let files = LogFiles { max_size: None, max_files: 1, compress: false, path: None };
    assert_eq!(LogWish::default().driver, LogDriver::Files(files));
}
