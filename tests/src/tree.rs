//! File trees, compared entry by entry.

use oci::Digest;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a file system says of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    pub owner: (u32, u32),
    /// Of a device.
    pub device: u64,
    /// Of a regular file.
    pub size: u64,
    /// Of a regular file.
    pub content: Option<Digest>,
    /// Of a symbolic link.
    pub target: Vec<u8>,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub attributes: BTreeMap<String, Vec<u8>>,
    /// The first name, in order, of the same file.
    pub first: String,
}

/// A tree by paths, which begin with `.`; what is not UTF-8 in them is quoted.
pub type Tree = BTreeMap<String, Entry>;

/// Reads the tree below a directory, itself among its entries.
pub fn read(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(dir, ".".to_owned(), &mut tree, &mut HashMap::new());
    tree
}

fn walk(path: &Path, name: String, tree: &mut Tree, seen: &mut HashMap<(u64, u64), String>) {
    let meta = path.symlink_metadata().expect("look at an entry");
    let first = if meta.is_dir() {
        name.clone()
    } else {
        seen.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone()).clone()
    };
    let is_device = meta.file_type().is_char_device() || meta.file_type().is_block_device();
    let entry = Entry {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        device: if is_device { meta.rdev() } else { 0 },
        size: if meta.is_file() { meta.size() } else { 0 },
        content: meta.is_file().then(|| Digest::of(&std::fs::read(path).expect("read a file"))),
        target: std::fs::read_link(path).map(|to| to.into_os_string().into_vec()).unwrap_or_default(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        attributes: attributes(path),
        first,
    };
    if meta.is_dir() {
        let entries = std::fs::read_dir(path).expect("list a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("list a directory").file_name()).collect();
        names.sort();
        for inner in names {
            walk(&path.join(&inner), format!("{name}/{}", inner.as_bytes().escape_ascii()), tree, seen);
        }
    }
    tree.insert(name, entry);
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("list the extended attributes");
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found = BTreeMap::new();
    for name in names.map(|name| String::from_utf8_lossy(name).into_owned()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, &*name, &mut value[..]).expect("read an extended attribute");
        value.truncate(length);
        found.insert(name, value);
    }
    found
}

/// How two trees differ, a line for each thing: `./path: owner (0, 0), (1, 1)`.
pub fn differences(one: &Tree, other: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, entry) in one {
        let Some(second) = other.get(path) else {
            found.push(format!("{path}: only in the first"));
            continue;
        };
        let mut compare = |what: &str, equal: bool, values: String| {
            if !equal {
                found.push(format!("{path}: {what} {values}"));
            }
        };
        let (a, b) = (entry, second);
        compare("mode", a.mode == b.mode, format!("{:o}, {:o}", a.mode, b.mode));
        compare("owner", a.owner == b.owner, format!("{:?}, {:?}", a.owner, b.owner));
        compare("device", a.device == b.device, format!("{:x}, {:x}", a.device, b.device));
        compare("size", a.size == b.size, format!("{}, {}", a.size, b.size));
        compare("content", a.content == b.content, String::new());
        let targets = [&a.target, &b.target].map(|target| target.escape_ascii().to_string());
        compare("target", a.target == b.target, targets.join(", "));
        compare("time", a.modified == b.modified, format!("{:?}, {:?}", a.modified, b.modified));
        compare("link", a.first == b.first, format!("{}, {}", a.first, b.first));
        compare(
            "attributes",
            a.attributes == b.attributes,
            format!("{:?}, {:?}", a.attributes, b.attributes),
        );
    }
    let more = other.keys().filter(|path| !one.contains_key(*path));
    found.extend(more.map(|path| format!("{path}: only in the second")));
    found
}

/// Shell that makes a tree of everything a layer can say in a directory `odd`. It takes root.
///
/// Sparse files, device nodes, a pipe, hard links to files and to a symbolic link, names that are long, no UTF-8 or of two lines, modes that are all or
/// none, owners up to the highest, times with nanoseconds, before 1970 and after 2038, extended attributes of three name
/// spaces, empty and binary ones, capabilities of versions 2 and 3.
pub const ODD: &str = r"
mkdir odd; cd odd
n=$(printf 'n%.0s' $(seq 200)); m=$(printf 'm%.0s' $(seq 200))
mkdir -p usr/bin sticky shared empty $n/$m
echo deep >$n/$m/file; ln -s $n/$m/file long
echo x >'späce and ütf'; echo x >$'new\nline'; echo x >$'\xff\xfe'
chmod 1777 sticky; chmod 2775 shared
echo all >all; chown 7:8 all; chmod 7777 all; echo none >none; chmod 0 none
echo odd >odd; chown 2000000000:65534 odd; echo last >last; chown 4294967294:4294967294 last
ln -s odd soft; chown -h 12:13 soft; ln soft soft-too; mkfifo fifo
mknod null c 1 3; chmod 666 null; mknod loop b 7 200
truncate -s 3M hole; truncate -s 8M sparse
for at in 1234567 5000000; do printf data | dd of=sparse bs=1 seek=$at conv=notrunc status=none; done
for it in alone linked nested both; do cp /bin/true usr/bin/$it; done
setcap cap_net_raw,cap_net_admin+ep usr/bin/alone
setcap cap_net_raw+ep usr/bin/linked; ln usr/bin/linked usr/bin/linked-too
setcap -n 1000 cap_sys_admin+ei usr/bin/nested
chown 5:6 usr/bin/both; setcap cap_chown+p usr/bin/both; chmod 4755 usr/bin/both
echo a >attributes; setfattr -n user.colour -v blue attributes; setfattr -n user.empty attributes
setfattr -n user.binary -v 0x00ff00 attributes; setfattr -n trusted.own -v mine attributes
setfattr -n user.colour -v red empty; setfattr -h -n trusted.soft -v s soft
touch -d '2001-02-03 04:05:06.123456789Z' attributes; touch -d '1965-06-07 08:09:10.5Z' odd
touch -d '2106-07-08 09:10:11.999999999Z' last; touch -h -d '1970-01-01 00:00:00Z' soft
touch -d '2010-01-01 00:00:00.75Z' sticky shared usr/bin usr .
cd ..
";
