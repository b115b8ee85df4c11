//! Random trees, packed and applied, are the same trees.

use crate::apply;
use crate::build::{Item, Layer};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Clone, Debug)]
enum Node {
    File { data: Vec<u8>, mode: u32, mtime: u32 },
    Link(String),
    Dir { mode: u32, mtime: u32, entries: BTreeMap<Vec<u8>, Node> },
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..12).prop_map(|mut bytes| {
        for byte in &mut bytes {
            if matches!(*byte, 0 | b'/') {
                *byte = b'_';
            }
        }
        if bytes == b"." || bytes == b".." || bytes.starts_with(b".wh.") {
            bytes[0] = b'-';
        }
        bytes
    })
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        3 => (vec(any::<u8>(), 0..1500), 0u32..0o1000, any::<u32>())
            .prop_map(|(data, mode, mtime)| Node::File { data, mode, mtime }),
        1 => "[a-z./]{1,20}".prop_map(Node::Link),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        (0u32..0o1000, any::<u32>(), btree_map(name(), inner, 0..8))
            .prop_map(|(mode, mtime, entries)| Node::Dir { mode: mode | 0o700, mtime, entries })
    })
}

fn pack(mut layer: Layer, path: &[u8], node: &Node) -> Layer {
    let pax = [("path", path)];
    match node {
        Node::File { data, mode, mtime } => {
            let item = Item { path: b"x", data, mode: *mode, mtime: u64::from(*mtime), ..Item::default() };
            layer.pax(&pax).item(&item)
        }
        Node::Link(to) => layer.pax(&pax).symlink("x", to),
        Node::Dir { mode, mtime, entries } => {
            let item =
                Item { kind: b'5', path: b"x", mode: *mode, mtime: u64::from(*mtime), ..Item::default() };
            layer = layer.pax(&pax).item(&item);
            for (name, node) in entries {
                layer = pack(layer, &[path, b"/", name].concat(), node);
            }
            layer
        }
    }
}

fn check(path: &Path, node: &Node) {
    let status = path.symlink_metadata().unwrap();
    match node {
        Node::File { data, mode, mtime } => {
            assert_eq!((status.mode() & 0o7777, status.mtime()), (*mode, i64::from(*mtime)));
            if rustix::process::geteuid().is_root() || mode & 0o400 != 0 {
                assert_eq!(&std::fs::read(path).unwrap(), data);
            }
        }
        Node::Link(to) => assert_eq!(std::fs::read_link(path).unwrap(), Path::new(to)),
        Node::Dir { mode, mtime, entries } => {
            assert_eq!((status.mode() & 0o7777, status.mtime()), (*mode, i64::from(*mtime)));
            assert_eq!(std::fs::read_dir(path).unwrap().count(), entries.len());
            for (name, node) in entries {
                check(&path.join(std::ffi::OsStr::from_bytes(name)), node);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(entries in btree_map(name(), node(), 0..10)) {
        let root = Node::Dir { mode: 0o755, mtime: 7, entries };
        let dir = tempfile::tempdir().unwrap();
        apply(dir.path(), &pack(Layer::new(), b".", &root).gzip()).unwrap();
        check(dir.path(), &root);
    }
}
