//! What an ordinary user's unpacking sets and what it writes down are, together, what the archive says of every entry.

use crate::images::put;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{lgetxattr, llistxattr};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use testkit::{Place, Ran, find_program, is_root, skip};

const NOBODY: u32 = 65534;
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What is true of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Truth {
    kind: String,
    uid: u32,
    gid: u32,
    mode: u32,
    device: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

type Truths = BTreeMap<Vec<u8>, Truth>;
type Xattrs<'a> = &'a [(&'a [u8], &'a [u8])];

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    truths: Truths,
}

impl Archive {
    fn write(&mut self, kind: u8, path: &[u8], link: &str, ids: (u32, u32), mode: u32, device: (u32, u32)) {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_uid(ids.0.into());
        header.set_gid(ids.1.into());
        header.set_mode(mode);
        header.set_mtime(1);
        header.set_size(0);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
    }

    /// An entry as the archive has it, which is true of `path` until another one comes.
    fn add(
        &mut self,
        kind: &str,
        name: &[u8],
        path: &[u8],
        ids: (u32, u32),
        mode: u32,
        xattrs: Xattrs<'_>,
    ) -> &mut Truth {
        if !xattrs.is_empty() {
            let mut records = Vec::new();
            for (name, value) in xattrs {
                let body = [b" SCHILY.xattr.", *name, b"=", *value, b"\n"].concat();
                let length =
                    (1..1000).find(|length| format!("{length}").len() + body.len() == *length).unwrap();
                records.extend([format!("{length}").as_bytes(), &body].concat());
            }
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..1].copy_from_slice(b"x");
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.bytes.extend_from_slice(header.as_bytes());
            self.bytes.extend_from_slice(&records);
            self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        }
        let (word, device) = kind.split_once('-').unwrap_or((kind, "0-0"));
        let (major, minor) = device.split_once('-').unwrap();
        let device = (major.parse().unwrap(), minor.parse().unwrap());
        let flag = match word {
            "symlink" => b'2',
            "chardevice" => b'3',
            "blockdevice" => b'4',
            "directory" => b'5',
            "fifo" => b'6',
            _ => b'0',
        };
        self.write(flag, name, if word == "symlink" { "etc" } else { "" }, ids, mode, device);
        let xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let truth = Truth { kind: word.to_owned(), uid: ids.0, gid: ids.1, mode, device, xattrs };
        self.truths.insert(path.to_vec(), truth);
        self.truths.get_mut(path).unwrap()
    }

    fn plain(&mut self, kind: &str, path: &str, ids: (u32, u32), mode: u32) {
        self.add(kind, path.as_bytes(), path.as_bytes(), ids, mode, &[]);
    }

    fn hard_link(&mut self, path: &str, to: &str) {
        self.write(b'1', path.as_bytes(), to, (0, 0), 0o644, (0, 0));
        let truth = self.truths[to.as_bytes()].clone();
        self.truths.insert(path.into(), truth);
    }

    fn implied(&mut self, path: &str) {
        let truth = Truth { kind: "directory".into(), mode: 0o755, ..Truth::default() };
        self.truths.insert(path.into(), truth);
    }

    fn end(&mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        std::mem::take(&mut self.bytes)
    }
}

/// One of everything that an ordinary user cannot have as it is.
fn rich() -> Archive {
    let mut archive = Archive::default();
    archive.add("directory", b"./", b"", (5, 6), 0o711, &[]);
    archive.plain("directory", "etc", (0, 42), 0o750);
    archive.plain("file", "etc/shadow", (0, 42), 0o640);
    let three: Xattrs<'_> =
        &[(b"user.note", b"hello"), (b"security.capability", CAPABILITY), (b"trusted.\xff", b"\0\xfe")];
    archive.add("file", b"etc/none", b"etc/none", (7, 7), 0, three);
    archive.plain("file", "su", (0, 0), 0o4755);
    archive.plain("file", "sg", (33, 33), 0o2755);
    archive.add("file", b"ro", b"ro", (9, 9), 0o444, &[(b"user.x", b"y")]);
    archive.plain("directory", "sticky", (0, 0), 0o1777);
    archive.plain("directory", "closed", (0, 0), 0o2000);
    archive.plain("file", "closed/in", (1_000_000, 2), 0o600);
    archive.plain("symlink", "link", (1, 2), 0o777);
    archive.hard_link("hard", "link");
    archive.hard_link("also", "su");
    archive.plain("chardevice-1-3", "null", (0, 0), 0o666);
    archive.add("blockdevice-8-0", b"disk", b"disk", (0, 6), 0o440, &[(b"user.a", b"b")]);
    archive.plain("chardevice-0-0", "odd", (0, 0), 0o600);
    archive.plain("fifo", "pipe", (3, 4), 0o622);
    // Through a symbolic link it is elsewhere than it says.
    archive.add("file", b"link/via", b"etc/via", (11, 12), 0o600, &[(b"security.capability", CAPABILITY)]);
    archive.add("file", b"\xff\xfe", b"\xff\xfe", (13, 14), 0o640, &[(b"trusted.z", b"z")]);
    archive.plain("symlink", "was", (1, 1), 0o777);
    archive.plain("file", "was", (2, 2), 0o604);
    archive.plain("symlink", "etc/other", (1, 1), 0o777);
    archive.add("file", b"link/other", b"etc/other", (5, 5), 0o600, &[]);
    archive.implied("a");
    archive.implied("a/b");
    archive.plain("file", "a/b/c", (1, 1), 0o644);
    // Attributes that an image has no say in.
    archive.add("file", b"lie", b"lie", (20, 20), 0o644, &[(layer::OVERRIDE.as_bytes(), b"0:0:04755:file")]);
    archive.add("directory", b"op", b"op", (0, 0), 0o755, &[(b"user.overlay.opaque", b"y")]);
    archive.plain("directory", "sub", (0, 0), 0o755);
    archive.plain("symlink", "sub/link", (8, 8), 0o777);
    archive
}

fn bytes_of(line: &Value, member: &str) -> Vec<u8> {
    match line[format!("{member}_base64")].as_str() {
        Some(exact) => STANDARD.decode(exact).unwrap(),
        None => line[member].as_str().unwrap().as_bytes().to_vec(),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut names, mut value) = ([0u8; 4096], [0u8; 4096]);
    let Ok(length) = llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let length = lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// What is in the tree, the attribute believed.
fn walk(dir: &Path, path: &[u8], truths: &mut Truths) {
    let status = fs::symlink_metadata(dir).unwrap();
    let kind = status.file_type();
    let kind = [
        (kind.is_dir(), "directory"),
        (kind.is_symlink(), "symlink"),
        (kind.is_fifo(), "fifo"),
        (kind.is_char_device(), "chardevice"),
        (kind.is_file(), "file"),
    ];
    let kind = kind.iter().find(|(is, _)| *is).unwrap().1.to_owned();
    let (uid, gid, mode) = (status.uid(), status.gid(), status.mode() & 0o7777);
    let mut truth = Truth { kind, uid, gid, mode, device: (0, 0), xattrs: xattrs(dir) };
    if let Some(value) = truth.xattrs.remove(layer::OVERRIDE.as_bytes()) {
        let value = String::from_utf8(value).unwrap();
        let parts: Vec<&str> = value.split(':').collect();
        truth.uid = parts[0].parse().unwrap();
        truth.gid = parts[1].parse().unwrap();
        truth.mode = u32::from_str_radix(parts[2], 8).unwrap();
        let kind: Vec<&str> = parts[3].split('-').collect();
        let word = match kind[0] {
            "dir" => "directory",
            "char" => "chardevice",
            "block" => "blockdevice",
            other => other,
        };
        word.clone_into(&mut truth.kind);
        if let [_, major, minor] = kind[..] {
            truth.device = (major.parse().unwrap(), minor.parse().unwrap());
        }
    }
    if status.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name();
            let below = if path.is_empty() {
                name.as_bytes().to_vec()
            } else {
                [path, b"/", name.as_bytes()].concat()
            };
            walk(&dir.join(&name), &below, truths);
        }
    }
    truths.insert(path.to_vec(), truth);
}

fn apply(line: &Value, truth: &mut Truth) {
    line["type"].as_str().unwrap().clone_into(&mut truth.kind);
    truth.uid = line["uid"].as_u64().unwrap() as u32;
    truth.gid = line["gid"].as_u64().unwrap() as u32;
    truth.mode = u32::from_str_radix(line["mode"].as_str().unwrap(), 8).unwrap();
    if let Some(device) = line["device"].as_object() {
        truth.device = (device["major"].as_u64().unwrap() as u32, device["minor"].as_u64().unwrap() as u32);
    }
    for (member, exact) in [("xattrs", false), ("xattrs_base64", true)] {
        for (name, value) in line[member].as_object().into_iter().flatten() {
            let name = if exact { STANDARD.decode(name).unwrap() } else { name.as_bytes().to_vec() };
            truth.xattrs.insert(name, STANDARD.decode(value.as_str().unwrap()).unwrap());
        }
    }
}

/// What is in the tree together with what is written down.
fn together(tree: &Path, lines: &Path) -> Truths {
    let mut truths = Truths::new();
    walk(tree, b"", &mut truths);
    let mut said: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
    for line in fs::read_to_string(lines).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let path = bytes_of(&line, "path")[1..].to_vec();
        if line["type"] == "removed" {
            let below = [path.as_slice(), b"/"].concat();
            said.retain(|other, _| *other != path && !other.starts_with(&below));
        } else {
            said.insert(path, line);
        }
    }
    for (path, line) in &said {
        let truth = truths.entry(path.clone()).or_default();
        if line["type"] == "hardlink" {
            if let Some(line) = said.get(&bytes_of(line, "link")[1..]) {
                apply(line, truth);
            }
        } else {
            apply(line, truth);
        }
    }
    truths
}

fn same(found: &Truths, wanted: &Truths) {
    for (path, truth) in wanted {
        assert_eq!(found.get(path), Some(truth), "{}", path.escape_ascii());
    }
    let more: Vec<_> = found
        .keys()
        .filter(|path| !wanted.contains_key(*path))
        .map(|path| path.escape_ascii().to_string())
        .collect();
    assert!(more.is_empty(), "{more:?}");
}

/// A place that is an ordinary user's, with the tool in it.
fn place_of_nobody() -> Option<Place> {
    if !is_root() || find_program("setpriv").is_none() {
        skip("to become an ordinary user takes root and setpriv");
        return None;
    }
    let place = Place::new();
    fs::copy(env!("CARGO_BIN_EXE_img-unpack"), place.path().join("img-unpack")).unwrap();
    Some(place)
}

const GIVE: &str = "set -e; mkdir -p $STAVES_RUN; chown -R 65534:65534 $DIR
    tool() { setpriv --reuid 65534 --regid 65534 --clear-groups -- $DIR/img-unpack \"$@\"; }\n";

fn script(place: &Place, wrapper: &[&str], text: &str) -> Ran {
    let mut command = Command::new(wrapper[0]);
    place.furnish(&mut command);
    Ran::of(command.args(&wrapper[1..]).args(["-c", &format!("{GIVE}{text}")])).expect(0)
}

#[test]
fn what_is_set_and_what_is_written_down_are_all_there_is() {
    let Some(place) = place_of_nobody() else { return };
    let mut archive = rich();
    put(&place, "app", &[archive.end()]);
    let ran = script(&place, &["bash"], "tool app");
    assert!(ran.stderr.contains("made 2 devices as empty files"), "{}", ran.stderr);
    assert!(ran.stderr.contains("unset.ndjson has them"), "{}", ran.stderr);
    let record = ran.json();
    let tree = Path::new(record["rootfs"]["layers"][0].as_str().unwrap());
    assert_eq!(fs::metadata(tree.join("su")).unwrap().uid(), NOBODY);
    let lines = tree.parent().unwrap().join("unset.ndjson");
    same(&together(tree, &lines), &archive.truths);
    let info: Value =
        serde_json::from_slice(&fs::read(tree.parent().unwrap().join("layer.json")).unwrap()).unwrap();
    let count = fs::read_to_string(&lines).unwrap().lines().count();
    assert_eq!(info["unset"].as_u64(), Some(count as u64));
    // Only what has no other place: owners of files and directories have one.
    assert!(!fs::read_to_string(&lines).unwrap().contains("\"/etc/shadow\""));
}

#[test]
fn without_attributes_everything_is_written_down_and_layers_put_over_it_count() {
    let Some(place) = place_of_nobody() else { return };
    let mut archive = rich();
    let mut layers = vec![archive.end()];
    archive.plain("directory", "etc", (3, 3), 0o700);
    archive.write(b'0', b".wh.pipe", "", (0, 0), 0, (0, 0));
    archive.write(b'0', b"sub/.wh..wh..opq", "", (0, 0), 0, (0, 0));
    archive.write(b'0', b"link/.wh.via", "", (0, 0), 0, (0, 0));
    archive.plain("symlink", "etc/new", (4, 4), 0o777);
    for gone in ["pipe", "sub/link", "etc/via"] {
        archive.truths.remove(gone.as_bytes()).unwrap();
    }
    layers.push(archive.end());
    put(&place, "app", &layers);
    // Ramfs has no attributes of users.
    let text = "mkdir $DIR/ram; mount -t ramfs none $DIR/ram; chown 65534:65534 $DIR/ram
        tool --to $DIR/ram/tree --unset $DIR/ram/lines app; cp -a $DIR/ram/. $DIR/copy
        tool --to $DIR/ram/second --unset $DIR/ram/lines app 2>&1 | grep -q 'there already'
        tool --to $DIR/ram/third --unset $DIR/ram/third/lines app 2>&1 | grep -q 'part of the tree'
        test ! -e $DIR/ram/second; test ! -e $DIR/ram/third";
    script(&place, &["unshare", "--mount", "--propagation", "private", "bash"], text);
    same(&together(&place.path().join("copy/tree"), &place.path().join("copy/lines")), &archive.truths);
}

#[test]
fn a_bundle_has_its_own_and_root_has_none() {
    let Some(place) = place_of_nobody() else { return };
    let mut archive = rich();
    put(&place, "app", &[archive.end()]);
    script(&place, &["bash"], "tool --bundle $DIR/bundle app");
    let bundle = place.path().join("bundle");
    same(&together(&bundle.join("rootfs"), &bundle.join("unset.ndjson")), &archive.truths);
    let plain = crate::tar(&[("etc/", b""), ("etc/file", b"1")]);
    put(&place, "plain", &[plain]);
    let record = crate::unpack(&place, &["plain"]).expect(0).json();
    let layer = Path::new(record["rootfs"]["layers"][0].as_str().unwrap()).parent().unwrap().to_owned();
    assert!(!layer.join("unset.ndjson").exists());
    assert!(xattrs(&layer.join("fs/etc/file")).is_empty());
}
