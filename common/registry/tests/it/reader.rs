//! Blobs as readers.

use crate::{descriptor, noise, repository};
use fault::{Fault, Kind};
use std::io::Read;
use testkit::{Behaviour, FakeRegistry};

fn read(reader: &mut impl Read) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.downcast::<Fault>().expect("its own failure is a fault")),
    }
}

#[test]
fn it_goes_on_where_it_was_cut() {
    let registry = FakeRegistry::start();
    let bytes = noise(300_000);
    registry.put_blob(&bytes);
    let blob = descriptor(&bytes);
    let repository = repository(&registry, 2);
    registry.misbehave("/blobs/", 1, Behaviour::CutAfter(100_000));
    registry.misbehave("/blobs/", 1, Behaviour::CutAfter(50_000));
    assert_eq!(read(&mut repository.open_blob(&blob).unwrap()).unwrap(), bytes);
    let ranges: Vec<_> = registry.requests().iter().map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-299999".into()), Some("bytes=150000-299999".into())]);
    // One that knows no ranges sends the whole; what was read before is passed over.
    registry.misbehave("/blobs/", 1, Behaviour::CutAfter(100_000));
    registry.misbehave("/blobs/", 1, Behaviour::IgnoreRange);
    assert_eq!(read(&mut repository.open_blob(&blob).unwrap()).unwrap(), bytes);
    // Another part than was asked for: from the beginning, too.
    registry.misbehave("/blobs/", 1, Behaviour::CutAfter(100_000));
    registry.misbehave("/blobs/", 1, Behaviour::Header("Content-Range", "bytes 5-9/10".into()));
    assert_eq!(read(&mut repository.open_blob(&blob).unwrap()).unwrap(), bytes);
}

#[test]
fn the_rest_of_a_file() {
    let registry = FakeRegistry::start();
    let bytes = noise(10_000);
    registry.put_blob(&bytes);
    let blob = descriptor(&bytes);
    let repository = repository(&registry, 1);
    for from in [0, 1, 9_999, 10_000] {
        let mut reader = repository.open_blob_range(&blob, from).unwrap();
        assert_eq!(reader.position(), from);
        assert_eq!(read(&mut reader).unwrap(), &bytes[from as usize..]);
        assert_eq!((reader.position(), reader.read(&mut [0; 9]).unwrap()), (10_000, 0));
    }
    assert_eq!(repository.open_blob_range(&blob, 10_001).unwrap_err().kind(), Kind::Input);
    let nothing = descriptor(b"");
    registry.put_blob(b"");
    assert_eq!(read(&mut repository.open_blob(&nothing).unwrap()).unwrap(), b"");
    assert_eq!(repository.open_blob(&descriptor(b"other")).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn sizes_that_are_not_right() {
    let registry = FakeRegistry::start();
    let bytes = noise(5000);
    registry.put_blob(&bytes);
    let blob = descriptor(&bytes);
    let repository = repository(&registry, 1);
    for behaviour in [
        Behaviour::Body(vec![7; 5001]),
        Behaviour::Body(vec![7; 4999]),
        Behaviour::BodyWithoutLength(vec![7; 5001]),
        Behaviour::BodyWithoutLength(vec![7; 499]),
        Behaviour::Length(u64::MAX),
    ] {
        registry.misbehave("/blobs/", usize::MAX, behaviour.clone());
        let failed = repository.open_blob(&blob).and_then(|mut reader| read(&mut reader)).unwrap_err();
        assert_eq!(failed.kind(), Kind::Input, "{behaviour:?}");
        assert!(failed.to_string().contains(blob.digest.as_str()), "{failed}");
        registry.stop_misbehaving();
    }
}

#[test]
fn a_cache_that_keeps_a_cut_blob_is_passed_over() {
    let registry = FakeRegistry::start();
    let bytes = noise(10_000);
    registry.put_blob(&bytes);
    // Something comes: the connection may be the reason. Nothing more comes: what answers may have nothing more.
    registry.misbehave("/blobs/", 1, Behaviour::CutAfter(5_000));
    registry.misbehave("/blobs/", 1, Behaviour::CutAfter(0));
    let repository = repository(&registry, 3);
    assert_eq!(read(&mut repository.open_blob(&descriptor(&bytes)).unwrap()).unwrap(), bytes);
    let requests = registry.requests();
    let controls: Vec<_> = requests.iter().map(|request| request.headers.get("cache-control")).collect();
    assert_eq!(controls, [None, None, Some(&"no-cache".to_owned())]);
}
