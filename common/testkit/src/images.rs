//! The images tests use, made once a build tree by `tests/fixtures/make-images`, which tells what is in them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the images are.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
}

impl Images {
    /// Storage folder of a docker-registry that holds all of them. Not to be written to.
    pub fn registry_storage(&self) -> PathBuf {
        self.dir.join("registry")
    }

    /// An OCI layout: `busybox`, `config`, `layers` or `debian`. `None`, said aloud, if it could not be made here.
    pub fn layout(&self, name: &str) -> Option<PathBuf> {
        let layout = self.dir.join("layouts").join(name);
        if layout.is_dir() {
            return Some(layout);
        }
        let why = std::fs::read_to_string(self.dir.join("missing")).unwrap_or_default();
        crate::skip(&format!("no image {name}: {}", why.trim()));
        None
    }
}

/// The images; made now if nobody did yet, which takes a minute. `None`, said aloud, where that cannot be.
pub fn images() -> Option<&'static Images> {
    static IMAGES: OnceLock<Option<Images>> = OnceLock::new();
    IMAGES.get_or_init(make).as_ref()
}

/// A place with the image `busybox:1` in its store, where containers run: on a machine of one's own as far as the network goes.
/// `None`, said aloud, where that cannot be, or where one of the tools it takes is not built.
pub fn busybox() -> Option<crate::Place> {
    if !crate::own_network() {
        return None;
    }
    for tool in ["img-copy", "ctr-run", "ctr-shim", "ctr-ls", "ctr-rm"] {
        if !crate::profile_dir().join(tool).is_file() {
            crate::skip(&format!("{tool} is not built"));
            return None;
        }
    }
    let layout = images()?.layout("busybox")?;
    let place = crate::Place::new();
    place.sh(&format!("img-copy oci:{}:1 store:busybox:1", layout.display())).expect(0);
    Some(place)
}

fn make() -> Option<Images> {
    if !crate::is_root() {
        crate::skip("making the images takes root");
        return None;
    }
    let script = project().join("tests/fixtures/make-images");
    let output = Command::new(&script)
        .arg(crate::target_dir().join("fixtures"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("run {}: {error}", script.display()));
    assert!(
        output.status.success(),
        "{} failed:\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Some(Images { dir: PathBuf::from(dir) })
}

/// The root of the source tree.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the source tree is there")
}
