//! `--to` and `--bundle`: layers one over the other in a plain directory.

use crate::bundle;
use crate::reader::{Stop, Watched};
use crate::unpack::{Options, open_blob, text};
use cli::{Explain, Fault, Result};
use layer::{Expected, Skipped, Target};
use oci::Digest;
use record::{Image, Rootfs};
use rustix::fs::{CWD, Mode};
use std::path::{Path, PathBuf};
use store::{Scratch, Settle, Store};

/// What is put into the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The image's files themselves.
    Tree,
    /// An OCI bundle: `rootfs` and `config.json`.
    Bundle,
}

/// Flattens an image into `dir`, which must be new or empty; on failure it is again.
pub fn flatten(
    store: &Store,
    image: &Image,
    dir: &Path,
    shape: Shape,
    options: &Options<'_>,
    settle: &Settle,
) -> Result<(Rootfs, Skipped)> {
    let dir = absolute(dir)?;
    let unset = options.unset.map(|file| unset_file(file, &dir)).transpose()?;
    let place = Place::prepare(store, &dir)?;
    let fs = match shape {
        Shape::Tree => place.path().to_owned(),
        Shape::Bundle => place.path().join("rootfs"),
    };
    let unset = match shape {
        Shape::Bundle => unset.or_else(|| Some(place.path().join(store::UNSET))),
        Shape::Tree => unset,
    };
    let filled = fill(store, image, &fs, unset.as_deref(), options, settle)
        .and_then(|skipped| match shape {
            Shape::Tree => Ok(skipped),
            Shape::Bundle => bundle::write_config(image, place.path(), &dir).map(|()| skipped),
        })
        .and_then(|skipped| place.finish(&dir).map(|()| skipped));
    let path = match shape {
        Shape::Tree => dir.clone(),
        Shape::Bundle => dir.join("rootfs"),
    };
    match filled {
        Ok(skipped) => {
            let rootfs =
                Rootfs { driver: "directory".to_owned(), path: Some(text(&path)?), ..Rootfs::default() };
            Ok((rootfs, skipped))
        }
        Err(fault) => {
            place.undo();
            if let Some(file) = unset {
                let _ = std::fs::remove_file(file);
            }
            Err(fault)
        }
    }
}

/// Where it is written down what could not be set: a file there is not, outside the tree.
fn unset_file(file: &Path, dir: &Path) -> Result<PathBuf> {
    let file = absolute(file)?;
    if file.starts_with(dir) {
        return Err(Fault::usage("it would be a part of the tree")
            .on(format!("--unset {}", file.display()))
            .hint("give a file elsewhere"));
    }
    match file.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(file),
        Err(error) => Err(error).explain(|| format!("look at {}", file.display())),
        Ok(_) => Err(Fault::conflict("the file is there already").on(file.display().to_string())),
    }
}

fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir).explain(|| format!("find {}", dir.display()))
}

/// Where the tree grows: in `tmp/`, to be renamed, when that is the same file system, so that the directory is there whole
/// or not at all; else in place.
enum Place {
    Scratch(std::cell::RefCell<Option<Scratch>>, PathBuf),
    InPlace { dir: PathBuf, existed: bool },
}

impl Place {
    fn prepare(store: &Store, dir: &Path) -> Result<Place> {
        let existed = match std::fs::read_dir(dir) {
            Ok(mut entries) => match entries.next() {
                None => true,
                Some(_) => {
                    return Err(Fault::conflict("the directory is not empty")
                        .on(dir.display().to_string())
                        .hint("give a new or an empty one"));
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).explain(|| format!("open {}", dir.display())),
        };
        let parent = dir.parent().unwrap_or(dir);
        let parent_status = rustix::fs::stat(if existed { dir } else { parent })
            .map_err(std::io::Error::from)
            .explain(|| format!("open {}", parent.display()))?;
        let scratch = Scratch::new(store)?;
        make_dir(scratch.path())?;
        let own = rustix::fs::stat(scratch.path()).map_err(std::io::Error::from);
        if !existed && own.is_ok_and(|own| own.st_dev == parent_status.st_dev) {
            let path = scratch.path().to_owned();
            return Ok(Place::Scratch(Some(scratch).into(), path));
        }
        if !existed {
            make_dir(dir)?;
        }
        Ok(Place::InPlace { dir: dir.to_owned(), existed })
    }

    fn path(&self) -> &Path {
        match self {
            Place::Scratch(_, path) => path,
            Place::InPlace { dir, .. } => dir,
        }
    }

    fn finish(&self, dir: &Path) -> Result<()> {
        let Place::Scratch(scratch, path) = self else { return Ok(()) };
        // Fails when somebody has put something there meanwhile.
        std::fs::rename(path, dir).explain(|| format!("make {}", dir.display()))?;
        if let Some(scratch) = scratch.take() {
            scratch.keep();
        }
        Ok(())
    }

    /// Best effort, as another failure is on its way out. A scratch directory goes by itself.
    fn undo(&self) {
        let Place::InPlace { dir, existed } = self else { return };
        if *existed {
            if let Ok(fd) = sys::fs::open_dir(CWD, dir.as_path()) {
                let _ = sys::fs::empty_dir(fd);
            }
        } else {
            let _ = sys::fs::remove_tree(CWD, dir.as_path());
        }
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdir(dir, mode)
        .and_then(|()| rustix::fs::chmod(dir, mode))
        .map_err(std::io::Error::from)
        .explain(|| format!("make {}", dir.display()))
}

fn fill(
    store: &Store,
    image: &Image,
    fs: &Path,
    unset: Option<&Path>,
    options: &Options<'_>,
    settle: &Settle,
) -> Result<Skipped> {
    if !fs.is_dir() {
        make_dir(fs)?;
    }
    let root = sys::fs::open_dir(CWD, fs)
        .map_err(std::io::Error::from)
        .explain(|| format!("open {}", fs.display()))?;
    let mut target = Target::flat(root);
    if let Some(file) = unset {
        target = target.recording(file.to_owned());
    }
    let mut skipped = Skipped::default();
    let stop = Stop::new(options.interrupt);
    for layer in &image.layers {
        let within = |fault: Fault| fault.within(format!("layer {}", layer.digest));
        let diff_id = Digest::parse(&layer.diff_id)?;
        let digest = Digest::parse(&layer.digest)?;
        let item = options
            .progress
            .map(|progress| progress.start(&image.reference, diff_id.as_str(), "unpack", Some(layer.size)));
        let blob = open_blob(store, image, layer, &digest, settle).map_err(within)?;
        let mut watched = Watched::new(blob, &stop, item);
        let expected = Expected { digest: None, diff_id: Some(&diff_id) };
        let applied = layer::apply(&mut watched, expected, &options.limits, &mut target).map_err(within)?;
        watched.done();
        skipped.add(&applied.skipped);
    }
    Ok(skipped)
}
