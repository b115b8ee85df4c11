//! What of an entry's metadata could not be set: written down, a line of JSON for each entry.
//!
//! An ordinary user cannot give files away, make devices, or set attributes like `security.capability`. Owner, mode and type of
//! files and directories go into the attribute [`OVERRIDE`], which fuse-overlayfs and containers/storage read; all else goes
//! here. The lines stand in the order of the archive, in the words of `img-files`:
//!
//! ```text
//! {"path":"/bin/sh","type":"symlink","mode":"0777","uid":0,"gid":0}
//! {"path":"/dev/null","type":"chardevice","mode":"0666","uid":0,"gid":0,"device":{"major":1,"minor":3}}
//! {"path":"/bin/ping","type":"file","mode":"0755","uid":0,"gid":0,"xattrs":{"security.capability":"AQAAAgAgAAAAAAAAAAAAAAAAAAA="}}
//! {"path":"/bin/dash","type":"hardlink","link":"/bin/sh"}
//! {"path":"/bin/sh","type":"removed"}
//! ```
//!
//! A line replaces what earlier ones say of its path: it has all of the entry's mode and owner, and those extended attributes
//! (values in base64) that the file lacks. What is said of the `link` of a hard link is true of its path, too. `removed`: what earlier
//! lines say of the path and of everything below it is true no more. Bytes that are not UTF-8 are there again in base64, in
//! `path_base64`, `link_base64`, and as names in `xattrs_base64`.

use crate::scan::ItemKind;
use crate::tree::Metadata;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fault::{Explain, Result};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// What a file's owner, mode and type are in truth: `UID:GID:MODE:TYPE`, the mode in octal, the type `file`, `dir`,
/// `block-MAJOR-MINOR`, `char-MAJOR-MINOR` … (containers/storage, `pkg/idtools`; fuse-overlayfs(1), `xattr_permissions`).
pub const OVERRIDE: &str = "user.containers.override_stat";

/// The file the lines go to, made with the first of them.
#[derive(Debug)]
pub struct Unset {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    lines: u64,
}

#[derive(Default, Serialize)]
pub struct Line<'a> {
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_base64: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs_base64: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Device {
    major: u32,
    minor: u32,
}

impl Unset {
    pub fn at(path: PathBuf) -> Unset {
        Unset { path, file: None, lines: 0 }
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn write(&mut self, line: &Line<'_>) -> Result<()> {
        let what = || format!("write {}", self.path.display());
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&self.path);
            self.file.insert(BufWriter::new(made.explain(what)?))
        };
        serde_json::to_writer(&mut *file, line).map_err(std::io::Error::from).explain(what)?;
        file.write_all(b"\n").explain(what)?;
        self.lines += 1;
        Ok(())
    }

    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.file.as_mut().map_or(Ok(()), BufWriter::flush);
        flushed.explain(|| format!("write {}", self.path.display()))
    }
}

impl<'a> Line<'a> {
    fn new(path: &[u8], kind: &'static str) -> Line<'a> {
        let (path, path_base64) = absolute(path);
        Line { path: path.into(), path_base64, kind, ..Line::default() }
    }

    /// Of an entry whose mode and owner are not those of its file, or that lacks some of its attributes.
    pub fn of(path: &[u8], metadata: &Metadata<'_>, lost: &[&'a (Vec<u8>, Vec<u8>)]) -> Line<'a> {
        let is_device = matches!(metadata.kind, ItemKind::CharDevice | ItemKind::BlockDevice);
        let (major, minor) = metadata.device;
        let mut line = Line {
            mode: Some(format!("{:04o}", metadata.mode)),
            uid: Some(metadata.uid),
            gid: Some(metadata.gid),
            device: is_device.then_some(Device { major, minor }),
            ..Line::new(path, metadata.kind.name())
        };
        for (name, value) in lost {
            let value = STANDARD.encode(value);
            match std::str::from_utf8(name) {
                Ok(name) => drop(line.xattrs.insert(name, value)),
                Err(_) => drop(line.xattrs_base64.insert(STANDARD.encode(name), value)),
            }
        }
        line
    }

    pub fn hard_link(path: &[u8], target: &[u8]) -> Line<'a> {
        let (link, link_base64) = absolute(target);
        Line { link: Some(link), link_base64, ..Line::new(path, ItemKind::HardLink.name()) }
    }

    pub fn removed(path: &[u8]) -> Line<'a> {
        Line::new(path, "removed")
    }
}

/// As text, and in base64 if that does not show it.
fn absolute(path: &[u8]) -> (String, Option<String>) {
    // The root's own name is a dot.
    let path = [&b"/"[..], if path == b"." { b"" } else { path }].concat();
    let exact = std::str::from_utf8(&path).is_err().then(|| STANDARD.encode(&path));
    (String::from_utf8_lossy(&path).into_owned(), exact)
}

/// The value of [`OVERRIDE`].
pub fn override_stat(metadata: &Metadata<'_>) -> String {
    let (major, minor) = metadata.device;
    let kind = match metadata.kind {
        ItemKind::Directory => "dir".to_owned(),
        ItemKind::Symlink => "symlink".to_owned(),
        ItemKind::Fifo => "pipe".to_owned(),
        ItemKind::CharDevice => format!("char-{major}-{minor}"),
        ItemKind::BlockDevice => format!("block-{major}-{minor}"),
        _ => "file".to_owned(),
    };
    format!("{}:{}:0{:o}:{kind}", metadata.uid, metadata.gid, metadata.mode)
}
