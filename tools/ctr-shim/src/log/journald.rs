//! systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), with docker's fields.

use super::remote::{Framing, Remote, nonblocking};
use super::{Piece, Setup};
use fault::{Fault, Result};
use std::fmt::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

const SOCKET: &str = "/run/systemd/journal/socket";

pub struct Journald {
    pub remote: Remote,
    /// Fields that are the same in all messages.
    fields: Vec<u8>,
    id: String,
}

impl Journald {
    pub fn open(setup: &Setup, most_buffered: Option<u64>) -> Result<Journald> {
        Journald::open_at(PathBuf::from(SOCKET), setup, most_buffered)
    }

    pub fn open_at(path: PathBuf, setup: &Setup, most_buffered: Option<u64>) -> Result<Journald> {
        let remote = Remote::open(Box::new(move || Ok((connect(&path)?, Framing::Journal))), most_buffered)?;
        let mut fields = Vec::new();
        for (name, value) in [
            ("CONTAINER_ID", setup.id.get(..12).unwrap_or(&setup.id)),
            ("CONTAINER_ID_FULL", &setup.id),
            ("CONTAINER_NAME", &setup.name),
            ("CONTAINER_TAG", &setup.tag),
            ("IMAGE_NAME", &setup.image_name),
            ("SYSLOG_IDENTIFIER", &setup.tag),
        ] {
            field(&mut fields, name, value.as_bytes());
        }
        for (name, value) in &setup.attributes {
            // The tag has a field of its own already.
            if let Some(name) = field_name(name).filter(|name| name != "TAG") {
                field(&mut fields, &name, value.as_bytes());
            }
        }
        Ok(Journald { remote, fields, id: setup.id.clone() })
    }

    pub fn add(&mut self, piece: &Piece<'_>) {
        let text = piece.message();
        // An empty line is no message to the journal.
        if text.is_empty() && piece.part.is_none() {
            return;
        }
        let mut message = Vec::with_capacity(self.fields.len() + text.len() + 256);
        message.extend_from_slice(&self.fields);
        let mut own = format!("PRIORITY={}\nSYSLOG_TIMESTAMP={}\n", piece.severity(), piece.at.text);
        if let Some(part) = piece.part {
            let begin = self.id.get(..48).unwrap_or_default();
            let _ = writeln!(own, "CONTAINER_PARTIAL_ID={begin}{:016x}", part.id);
            let _ = writeln!(own, "CONTAINER_PARTIAL_ORDINAL={}", part.ordinal);
            let _ = writeln!(own, "CONTAINER_PARTIAL_LAST={}", part.last);
            if !part.last {
                own.push_str("CONTAINER_PARTIAL_MESSAGE=true\n");
            }
        }
        message.extend_from_slice(own.as_bytes());
        field(&mut message, "MESSAGE", text);
        self.remote.add(message);
    }
}

fn connect(path: &Path) -> Result<std::os::fd::OwnedFd> {
    let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
    let socket = socket.map_err(|error| {
        Fault::failed(format!("log driver journald: connect to {}", path.display()))
            .because(error)
            .hint("systemd-journald has to run; without it --log-driver local keeps the log in files")
    })?;
    nonblocking(socket)
}

/// `NAME=value`, or with the length before it where the value has line feeds.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The journal's names are of upper-case letters, digits and underscores, and begin with a letter.
fn field_name(text: &str) -> Option<String> {
    let upper = text.bytes().map(|byte| match byte.to_ascii_uppercase() {
        byte @ (b'A'..=b'Z' | b'0'..=b'9') => char::from(byte),
        _ => '_',
    });
    let name: String = upper.collect();
    let name = name.trim_start_matches('_');
    (name.starts_with(|c: char| c.is_ascii_uppercase()) && name.len() <= 64).then(|| name.to_owned())
}
