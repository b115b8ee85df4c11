//! The tree in memory against the tree on disk: whatever the layers are, the two are the same or fail together.

use crate::build::{Item as Entry, Layer};
use crate::{flatten, is_root};
use layer::scan::{Piece, contents, scan};
use layer::view::Miss;
use layer::{Budget, Item, ItemKind, Limits, Node, Time, View};
use oci::Digest;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Everything that is said of a file. Times are left out where nothing says one.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: Option<(i64, u32)>,
    link: Vec<u8>,
    device: u64,
    content: Option<String>,
    /// The first path of the same file.
    same_as: Vec<u8>,
}

fn on_disk(root: &Path) -> BTreeMap<Vec<u8>, Facts> {
    fn visit(
        dir: &Path,
        path: &[u8],
        first: &mut BTreeMap<u64, Vec<u8>>,
        facts: &mut BTreeMap<Vec<u8>, Facts>,
    ) {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for file in names {
            let status = file.symlink_metadata().unwrap();
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(file.file_name().unwrap().as_bytes());
            let kind = status.file_type();
            let (word, content) = match kind {
                kind if kind.is_file() => {
                    ("file", Some(Digest::of(&std::fs::read(&file).unwrap()).to_string()))
                }
                kind if kind.is_dir() => ("directory", None),
                kind if kind.is_symlink() => ("symlink", None),
                kind if kind.is_fifo() => ("fifo", None),
                kind if kind.is_char_device() => ("chardevice", None),
                _ => ("blockdevice", None),
            };
            let link = if kind.is_symlink() { std::fs::read_link(&file).unwrap() } else { "".into() };
            let same_as = first.entry(status.ino()).or_insert_with(|| path.clone()).clone();
            facts.insert(
                path.clone(),
                Facts {
                    kind: word,
                    mode: status.mode() & 0o7777,
                    owner: (status.uid(), status.gid()),
                    size: if kind.is_file() { status.size() } else { 0 },
                    mtime: Some((status.mtime(), status.mtime_nsec() as u32)),
                    link: link.as_os_str().as_bytes().to_vec(),
                    device: status.rdev(),
                    content,
                    same_as,
                },
            );
            if kind.is_dir() {
                visit(&file, &path, first, facts);
            }
        }
    }
    let mut facts = BTreeMap::new();
    visit(root, b"", &mut BTreeMap::new(), &mut facts);
    facts
}

fn facts_of(path: &[u8], node: Node<'_>, first: &mut BTreeMap<u32, Vec<u8>>) -> Facts {
    let item = node.item();
    let is_device = matches!(node.kind(), ItemKind::CharDevice | ItemKind::BlockDevice);
    Facts {
        kind: node.kind().name(),
        mode: node.mode(),
        owner: (node.uid(), node.gid()),
        size: node.size(),
        mtime: node.mtime().map(|time| (time.seconds, time.nanoseconds)),
        link: item.map(|item| item.link.to_vec()).unwrap_or_default(),
        device: item
            .filter(|_| is_device)
            .map_or(0, |item| rustix::fs::makedev(item.device.0, item.device.1)),
        content: item.and_then(|item| item.content.as_ref()).map(ToString::to_string),
        same_as: first.entry(node.inode()).or_insert_with(|| path.to_vec()).clone(),
    }
}

fn in_memory(view: &View) -> BTreeMap<Vec<u8>, Facts> {
    let mut facts = BTreeMap::new();
    let mut first = BTreeMap::new();
    let walked: Result<(), ()> = view.root().walk(b"", |path, node| {
        if !path.is_empty() {
            facts.insert(path.to_vec(), facts_of(path, node, &mut first));
        }
        Ok(())
    });
    walked.unwrap();
    facts
}

fn list(blob: &[u8]) -> fault::Result<Arc<Vec<Item>>> {
    scan(blob, &Limits::default(), &Budget::default(), true).map(Arc::new)
}

fn view(blobs: &[Vec<u8>]) -> fault::Result<View> {
    let lists = blobs.iter().map(|blob| list(blob)).collect::<fault::Result<Vec<_>>>()?;
    View::of(&lists, &Budget::default())
}

/// Both ways; returns the view when both worked.
fn compare(blobs: &[Vec<u8>]) -> Option<View> {
    let dir = TempDir::new().unwrap();
    let unpacked = flatten(dir.path(), blobs);
    match (unpacked, view(blobs)) {
        (Err(_), Err(_)) => None,
        (Ok(()), Ok(view)) => {
            let (mut disk, memory) = (on_disk(dir.path()), in_memory(&view));
            for (path, facts) in &mut disk {
                if memory.get(path).is_some_and(|facts| facts.mtime.is_none()) {
                    facts.mtime = None;
                }
            }
            assert_eq!(disk, memory);
            Some(view)
        }
        (Err(fault), Ok(_)) => panic!("only unpacking failed: {fault:?}"),
        (Ok(()), Err(fault)) => panic!("only the view failed: {fault:?}"),
    }
}

fn paths(view: &View) -> Vec<String> {
    in_memory(view).keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

#[test]
fn everything_an_entry_says_is_there() {
    if !is_root("everything_an_entry_says_is_there") {
        return;
    }
    let layer = Layer::new()
        .dir("d")
        .item(&Entry {
            path: b"d/f",
            data: b"hello",
            mode: 0o4751,
            ids: (7, 8),
            mtime: 99,
            ..Entry::default()
        })
        .pax(&[("mtime", b"-1.25"), ("uid", b"3000000")])
        .file("early", b"x")
        .symlink("d/s", "../../etc/passwd")
        .hard_link("h", "d/f")
        .device(b'3', "c", (5, 1))
        .device(b'4', "b", (8, 300))
        .device(b'6', "p", (0, 0))
        .device(b'3', "looks-deleted", (0, 0))
        .file("implied/by/this", b"");
    let view = compare(&[layer.gzip()]).unwrap();
    let node = view.find(b"/h", true).unwrap();
    assert_eq!((node.size(), node.mode(), node.links()), (5, 0o4751, 2));
    assert_eq!(node.item().unwrap().content.as_deref(), Some(&Digest::of(b"hello")));
    let early = view.find(b"early", true).unwrap();
    assert_eq!(early.mtime(), Some(Time { seconds: -2, nanoseconds: 750_000_000 }));
    assert_eq!(view.find(b"looks-deleted", true).unwrap_err(), Miss::Missing);
    assert_eq!(view.find(b"implied/by", true).unwrap().mtime(), None);
}

#[test]
fn whiteouts_hide_what_lower_layers_have_and_nothing_else() {
    if !is_root("whiteouts_hide_what_lower_layers_have_and_nothing_else") {
        return;
    }
    let base = || Layer::new().dir("d").file("d/a", b"1").dir("d/sub").file("d/sub/x", b"1").file("e", b"1");
    for (upper, wanted) in [
        (Layer::new().dir("d").file("d/.wh.a", b""), &["d", "d/sub", "d/sub/x", "e"][..]),
        (Layer::new().file("d/.wh.sub", b"").file(".wh.e", b""), &["d", "d/a"]),
        (Layer::new().file("d/new", b"").file("d/.wh..wh..opq", b""), &["d", "d/new", "e"]),
        (Layer::new().file("d/.wh..wh..opq", b"").file("d/sub/y", b""), &["d", "d/sub", "d/sub/y", "e"]),
        (Layer::new().file("d/sub/y", b"").file(".wh.d", b""), &["d", "d/sub", "d/sub/y", "e"]),
        (Layer::new().file("d/a", b"2").file("d/.wh.a", b""), &["d", "d/a", "d/sub", "d/sub/x", "e"]),
        (Layer::new().file("d", b"now a file"), &["d", "e"]),
        (
            Layer::new().file("d/.wh..wh.plnk/1", b"").file(".wh..wh.aufs", b""),
            &["d", "d/a", "d/sub", "d/sub/x", "e"],
        ),
    ] {
        assert_eq!(paths(&compare(&[base().tar(), upper.tar()]).unwrap()), wanted);
    }
    for upper in [
        Layer::new().file("d/.wh.", b""),
        Layer::new().file(".wh...", b""),
        Layer::new().file("d/.wh.a/b", b""),
        Layer::new().hard_link("z", "d/nothing"),
        Layer::new().hard_link("z", "d"),
        Layer::new().hard_link("z", ""),
        Layer::new().file("e/below-a-file", b""),
        Layer::new().symlink("d/l", "l").file("d/l/x", b""),
        Layer::new().symlink("d/out", "/nowhere").file("d/out/x", b""),
        Layer::new().hard_link("d", "d/a"),
    ] {
        assert!(compare(&[base().tar(), upper.tar()]).is_none());
    }
}

#[test]
fn other_names_of_a_directory_lead_to_the_same_files() {
    if !is_root("other_names_of_a_directory_lead_to_the_same_files") {
        return;
    }
    let base = Layer::new().dir("usr").dir("usr/lib").file("usr/lib/x", b"1").symlink("lib", "usr/lib").tar();
    let by_link = Layer::new().file("lib/x", b"22").hard_link("y", "lib/x").tar();
    let directly = Layer::new().file("usr/lib/x", b"333").tar();
    let view = compare(&[base.clone(), by_link.clone(), directly]).unwrap();
    assert_eq!((view.find(b"lib/x", true).unwrap().size(), view.find(b"y", true).unwrap().size()), (3, 2));
    // A link that is replaced on the way is not followed any more.
    let replaced = Layer::new().file("lib/a", b"").dir("lib").file("lib/b", b"").tar();
    let view = compare(&[base, by_link, replaced]).unwrap();
    assert_eq!(paths(&view), ["lib", "lib/b", "usr", "usr/lib", "usr/lib/a", "usr/lib/x", "y"]);
}

#[test]
fn links_are_followed_inside_the_root_and_not_for_ever() {
    let layer = Layer::new()
        .dir("etc")
        .file("etc/passwd", b"root")
        .symlink("abs", "/etc/passwd")
        .symlink("up", "../../../../etc/passwd")
        .symlink("dir", "etc/")
        .symlink("round", "round")
        .symlink("ping", "pong")
        .symlink("pong", "ping")
        .symlink("file", "etc/passwd/")
        .symlink("out", "/../proc/self/root");
    let view = view(&[layer.tar()]).unwrap();
    for path in
        ["abs", "/abs", "up", "dir/passwd", "./etc/../../etc//passwd", "dir/../dir/passwd", "../../abs"]
    {
        assert_eq!(view.find(path.as_bytes(), true).unwrap().size(), 4, "{path}");
    }
    for (path, miss) in [
        ("round", Miss::Loop),
        ("ping/x", Miss::Loop),
        ("file", Miss::NotDirectory),
        ("abs/", Miss::NotDirectory),
        ("etc/passwd/x", Miss::NotDirectory),
        ("out", Miss::Missing),
        ("etc/shadow", Miss::Missing),
    ] {
        assert_eq!(view.find(path.as_bytes(), true).unwrap_err(), miss, "{path}");
    }
    assert_eq!(view.find(b"round", false).unwrap().kind(), ItemKind::Symlink);
    assert_eq!(view.find(b"dir/", false).unwrap().kind(), ItemKind::Directory);
    for root in ["", "/", "..", "etc/.."] {
        assert_eq!(view.find(root.as_bytes(), true).unwrap().inode(), view.root().inode());
    }
}

#[test]
fn contents_come_out_up_to_the_last_that_is_wanted() {
    let (long, late) = (vec![7u8; 300_000], vec![1u8; 100_000]);
    let tar = Layer::new().file("a", b"first").file("b", &long).file("c", b"").file("d", &late).tar();
    // What comes after is not read: it may be damaged.
    let cut = &tar[..tar.len() - 60_000];
    let read = |blob: &[u8], wanted: &[u64]| {
        let mut out = vec![Vec::new(); wanted.len()];
        contents(blob, &Limits::default(), wanted, &mut |index, piece| {
            if let Piece::Data(bytes) = piece {
                out[index].extend_from_slice(bytes);
            }
            Ok(())
        })
        .map(|()| out)
    };
    assert_eq!(read(cut, &[0, 1, 2]).unwrap(), [b"first".to_vec(), long, Vec::new()]);
    assert_eq!(read(cut, &[3]).unwrap_err().kind(), fault::Kind::Input);
    assert_eq!(read(&tar, &[3]).unwrap(), [late]);
    assert_eq!(read(&tar, &[4]).unwrap_err().kind(), fault::Kind::Input);
    assert!(list(cut).is_err());
}

#[test]
fn memory_is_bounded() {
    let mut layer = Layer::new();
    for n in 0..2000 {
        layer = layer.file(&format!("{n}"), b"");
    }
    let tar = layer.tar();
    let small = Budget::new(200_000);
    assert_eq!(scan(&tar[..], &Limits::default(), &small, false).unwrap_err().kind(), fault::Kind::Input);
    let few = Limits { entries: 1999, ..Limits::default() };
    assert!(scan(&tar[..], &few, &Budget::default(), false).is_err());
    // Directories nobody lists cost, too.
    let mut deep = Layer::new();
    for n in 0..20 {
        let path = format!("{n}/{}f", "d/".repeat(1000)).into_bytes();
        deep = deep.pax(&[("path", &path)]).file("", b"");
    }
    let list = |layer: Layer| list(&layer.tar()).unwrap();
    let deep = list(deep);
    assert!(View::of(&[Arc::clone(&deep)], &Budget::new(1 << 20)).is_err());
    assert!(View::of(&[deep], &Budget::default()).is_ok());
    // And so do long paths that have short names.
    let long = "d/".repeat(2000);
    let mut by_link = Layer::new().pax(&[("path", long.as_bytes())]).dir("x");
    by_link = by_link.pax(&[("linkpath", long.as_bytes())]).symlink("l", "x");
    for n in 0..1000 {
        by_link = by_link.file(&format!("l/{n}"), b"");
    }
    let by_link = list(by_link);
    assert!(View::of(&[Arc::clone(&by_link)], &Budget::new(4 << 20)).is_err());
    assert!(View::of(&[by_link], &Budget::new(20 << 20)).is_ok());
}

/// Each entry goes by forty links of two thousand components.
#[test]
fn links_that_take_for_ever_are_refused() {
    let mut layer = Layer::new().dir("a");
    for n in 0..39 {
        let next = format!("{}l{}", "./".repeat(2000), n + 1);
        layer = layer.pax(&[("linkpath", next.as_bytes())]).symlink(&format!("l{n}"), "x");
    }
    layer = layer.symlink("l39", "a");
    for _ in 0..5000 {
        layer = layer.file("l0/x", b"");
    }
    let list = list(&layer.tar()).unwrap();
    let fault = View::of(&[list], &Budget::default()).unwrap_err();
    assert!(fault.to_string().contains("too long"), "{fault}");
}

#[test]
fn many_entries_and_the_same_again_and_again() {
    let mut layer = Layer::new();
    for n in 0..100_000 {
        layer = layer.file(&format!("{}/{}", n % 1000, n), b"");
    }
    for _ in 0..50_000 {
        layer = layer.file("0/0", b"again").file("0/.wh..wh..opq", b"");
    }
    let view = view(&[Layer::new().file("0/lower", b"").tar(), layer.tar()]).unwrap();
    assert_eq!(paths(&view).len(), 101_000);
    assert_eq!(view.find(b"0/0", true).unwrap().size(), 5);
}

#[test]
fn upper_layers_alone_tell_what_is_certain() {
    let base = Layer::new().dir("etc").file("etc/a", b"1").file("etc/b", b"1").symlink("lib", "etc").tar();
    let upper =
        Layer::new().dir("etc").file("etc/a", b"22").file("etc/.wh.b", b"").dir("new").symlink("s", "lib/a");
    let lists = [list(&base).unwrap(), list(&upper.tar()).unwrap()];
    let upper = View::of_upper(&lists[1..], &Budget::default()).unwrap().unwrap();
    assert_eq!(upper.find(b"etc/a", true).unwrap().size(), 2);
    for (path, miss) in [
        ("etc/b", Miss::Missing),
        ("etc/c", Miss::Open),
        ("lib", Miss::Open),
        ("s", Miss::Open),
        ("new/x", Miss::Open),
    ] {
        assert_eq!(upper.find(path.as_bytes(), true).unwrap_err(), miss, "{path}");
    }
    // Whether lib is a directory, only the layer below knows.
    let by_link = list(&Layer::new().file("lib/a", b"333").tar()).unwrap();
    assert!(View::of_upper(&[by_link], &Budget::default()).unwrap().is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Dir(String, u32),
    File(String, u8),
    Symlink(String, String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    "[abc](/[abc]){0,3}"
}

fn target() -> impl Strategy<Value = String> {
    "(/|\\.\\./|\\./){0,2}[abc](/([abc]|\\.\\.)){0,2}/?"
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (path(), 0u32..8).prop_map(|(path, mode)| Step::Dir(path, 0o700 | mode)),
        6 => (path(), 0u8..20).prop_map(|(path, size)| Step::File(path, size)),
        3 => (path(), target()).prop_map(|(path, to)| Step::Symlink(path, to)),
        2 => (path(), path()).prop_map(|(path, to)| Step::HardLink(path, to)),
        2 => path().prop_map(Step::Whiteout),
        1 => path().prop_map(Step::Opaque),
    ]
}

fn pack(steps: &[Step]) -> Vec<u8> {
    let mut layer = Layer::new();
    for step in steps {
        layer = match step {
            Step::Dir(path, mode) => {
                layer.item(&Entry { kind: b'5', path: path.as_bytes(), mode: *mode, ..Entry::default() })
            }
            Step::File(path, size) => layer.file(path, &vec![*size; usize::from(*size)]),
            Step::Symlink(path, to) => layer.symlink(path, to),
            Step::HardLink(path, to) => layer.hard_link(path, to),
            Step::Whiteout(path) => match path.rsplit_once('/') {
                Some((dir, name)) => layer.file(&format!("{dir}/.wh.{name}"), b""),
                None => layer.file(&format!(".wh.{path}"), b""),
            },
            Step::Opaque(path) => layer.file(&format!("{path}/.wh..wh..opq"), b""),
        };
    }
    layer.tar()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_in_memory_is_the_tree_on_disk(
        layers in prop::collection::vec(prop::collection::vec(step(), 0..8), 1..4)
    ) {
        if !is_root("the_tree_in_memory_is_the_tree_on_disk") {
            return Ok(());
        }
        let blobs: Vec<Vec<u8>> = layers.iter().map(|steps| pack(steps)).collect();
        let Some(whole) = compare(&blobs) else { return Ok(()) };
        // What the upper layers alone are sure of is so.
        let lists: Vec<_> = blobs.iter().map(|blob| list(blob).unwrap()).collect();
        for below in 1..lists.len() {
            let Some(upper) = View::of_upper(&lists[below..], &Budget::default()).unwrap() else { continue };
            for a in ["a", "b", "c"] {
                for b in ["", "/a", "/b", "/c", "/../a", "/a/b", "/b/c"] {
                    let path = format!("{a}{b}");
                    let told = |node: Node<'_>| (node.kind(), node.item().map(|item| (item.number, item.size)), node.layer());
                    match (upper.find(path.as_bytes(), true), whole.find(path.as_bytes(), true)) {
                        (Err(Miss::Open), _) => {}
                        (Ok(one), Ok(other)) => {
                            let (kind, item, layer) = told(one);
                            prop_assert_eq!((kind, item, layer.map(|layer| layer + below)), told(other), "{}", path);
                        }
                        (Err(one), Err(other)) => prop_assert_eq!(one, other, "{}", path),
                        (one, other) => prop_assert!(false, "{}: {:?} and {:?}", path, one.is_ok(), other.is_ok()),
                    }
                }
            }
        }
    }
}
