use crate::build::{Item, Layer};
use crate::{flatten, is_root};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tempfile::tempdir;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn base() -> Vec<u8> {
    Layer::new()
        .file("gone", b"1")
        .file("kept", b"1")
        .dir("tree")
        .file("tree/a", b"1")
        .file("tree/sub/b", b"1")
        .dir("opaque")
        .file("opaque/a", b"1")
        .file("opaque/sub/b", b"1")
        .item(&Item { kind: b'5', path: b"timed", mode: 0o755, mtime: 1234, ..Item::default() })
        .file("timed/x", b"1")
        .symlink("link", "kept")
        .tar()
}

#[test]
fn whiteouts_remove_what_lower_layers_have_and_nothing_else() {
    for late in [false, true] {
        let dir = tempdir().unwrap();
        let whiteouts = |layer: Layer| {
            layer
                .file(".wh.gone", b"")
                .file(".wh.tree", b"")
                .file("opaque/.wh..wh..opq", b"")
                .file("timed/.wh.x", b"")
                .file(".wh.link", b"")
                .file(".wh.never", b"")
                .file("never/there/.wh.x", b"")
                .file("link/.wh.x", b"")
        };
        let content = |layer: Layer| {
            layer
                .dir("tree")
                .file("tree/new", b"2")
                .dir("opaque")
                .file("opaque/sub/c", b"2")
                .file("gone2", b"2")
        };
        let upper = if late { whiteouts(content(Layer::new())) } else { content(whiteouts(Layer::new())) };
        flatten(dir.path(), &[base(), upper.tar()]).unwrap();
        assert_eq!(names(dir.path()), ["gone2", "kept", "opaque", "timed", "tree"], "late: {late}");
        assert_eq!(names(&dir.path().join("tree")), ["new"]);
        assert_eq!(names(&dir.path().join("opaque")), ["sub"]);
        assert_eq!(names(&dir.path().join("opaque/sub")), ["c"]);
        assert_eq!(dir.path().join("timed").metadata().unwrap().mtime(), 1234);
    }
}

#[test]
fn upper_layers_win_and_their_directories_are_merged() {
    if !is_root("upper_layers_win_and_their_directories_are_merged") {
        return;
    }
    let dir = tempdir().unwrap();
    let lower = Layer::new()
        .pax(&[("SCHILY.xattr.user.old", b"1")])
        .dir("d")
        .file("d/a", b"lower")
        .file("d/b", b"lower")
        .hard_link("d/c", "d/b")
        .dir("was-dir")
        .file("was-dir/x", b"")
        .file("was-file", b"")
        .tar();
    let upper = Layer::new()
        .pax(&[("SCHILY.xattr.user.new", b"2")])
        .item(&Item { kind: b'5', path: b"d", mode: 0o700, ids: (1, 2), mtime: 9, ..Item::default() })
        .file("d/b", b"upper")
        .file("was-dir", b"file")
        .dir("was-file")
        .tar();
    flatten(dir.path(), &[lower, upper]).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("d/a"), read("d/b"), read("d/c")), ("lower".into(), "upper".into(), "lower".into()));
    let d = dir.path().join("d");
    let status = d.metadata().unwrap();
    assert_eq!((status.mode() & 0o777, status.uid(), status.gid(), status.mtime()), (0o700, 1, 2, 9));
    let mut buffer = [0u8; 256];
    let length = rustix::fs::listxattr(&d, &mut buffer[..]).unwrap();
    assert_eq!(&buffer[..length], b"user.new\0");
    assert!(dir.path().join("was-dir").is_file() && dir.path().join("was-file").is_dir());
}

#[test]
fn the_lowest_layer_has_nothing_to_hide() {
    let dir = tempdir().unwrap();
    let layer = Layer::new().file("a", b"").file(".wh.a", b"").file(".wh..wh..opq", b"").file("b", b"").tar();
    flatten(dir.path(), &[layer]).unwrap();
    assert_eq!(names(dir.path()), ["a", "b"]);
}

#[test]
fn a_directory_that_is_emptied_again_and_again_is_looked_at_once() {
    let many = |layer: Layer, name: &dyn Fn(u32) -> String| {
        (0..10_000).fold(layer, |layer, n| layer.file(&name(n), b""))
    };
    let time_of = |upper: Layer| {
        let dir = tempdir().unwrap();
        let begun = std::time::Instant::now();
        flatten(dir.path(), &[Layer::new().file("d/lower", b"").tar(), upper.tar()]).unwrap();
        let time = begun.elapsed();
        (time, names(&dir.path().join("d")).len())
    };
    let files = || many(Layer::new(), &|n| format!("d/{n}"));
    let (plain, with_lower) = time_of(files());
    let (emptied, own) = time_of(many(files(), &|_| "d/.wh..wh..opq".to_owned()));
    assert_eq!((with_lower, own), (10_001, 10_000));
    assert!(emptied < 4 * plain + std::time::Duration::from_secs(2), "{emptied:?} where {plain:?} is right");
}
