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
