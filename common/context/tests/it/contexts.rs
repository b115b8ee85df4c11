//! Contexts that are no directories of files, and directories that are no contexts.

use crate::place::{How, Place, copy, fill, list, mode};
use context::{Context, Options};
use fault::Kind;
use std::os::unix::fs::symlink;

#[test]
fn inline_files_are_written() {
    let place = Place::new();
    let context = Context::inline(vec![(b"EOF".to_vec(), b"one\n".to_vec()), (b"two".to_vec(), Vec::new())]);
    let chosen = context.select(&["EOF"], &Options::default()).unwrap();
    place.write(&chosen, "/etc/conf", &How { chmod: Some("600"), ..How::default() }).unwrap();
    let chosen = context.select(&["two", "EOF"], &Options::default()).unwrap();
    place.write(&chosen, "/d/", &How::default()).unwrap();
    assert_eq!(list(&place.root()), ["d/", "d/EOF=one\n", "d/two=", "etc/", "etc/conf=one\n"]);
    assert_eq!((mode(&place.root().join("etc/conf")), mode(&place.root().join("d/two"))), (0o600, 0o644));
    assert!(context.select(&["none"], &Options::default()).is_err());
    assert_eq!(context.read("/EOF", 10).unwrap().as_deref(), Some(b"one\n".as_slice()));
    let empty = Context::empty();
    assert!(empty.select(&["."], &Options::default()).is_err());
}

#[test]
fn a_context_that_is_none_is_not_found() {
    let place = Place::new();
    fill(&place.context(), &["file"]);
    for name in ["none", "file"] {
        let opened =
            Context::directory(&place.context().join(name), context::Ignore::none(), context::Memory::none());
        assert_eq!(opened.unwrap_err().kind(), Kind::NotFound);
    }
    symlink(place.context(), place.dir.path().join("link")).unwrap();
    let linked =
        Context::directory(&place.dir.path().join("link"), context::Ignore::none(), context::Memory::none());
    assert_eq!(linked.unwrap().select(&["file"], &copy()).unwrap().count(), 1);
}
