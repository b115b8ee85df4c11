//! What a container's mounts need before it is made: volumes that are there and filled, sources of bind mounts, images'
//! layers.

use fault::{Explain, Fault, Result};
use oci::Platform;
use oci::spec::{BindUse, Tree, TreeUse, VolumeUse};
use record::Rootfs;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, openat, statat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use store::{Lock, Store};
use volume::{Held, Info, Opened};

/// Deepest directory whose owner is changed.
const MAX_DEPTH: usize = 1000;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Makes sure that what is bound from the host is there, and is the user's where that is wished for. `outside`: who that is on this machine.
pub fn prepare_binds(binds: &[BindUse], owner: (u32, u32), outside: Option<(u32, u32)>) -> Result<()> {
    for bind in binds {
        if std::fs::symlink_metadata(&bind.source).is_err() {
            if !bind.create {
                return Err(Fault::not_found(format!(
                    "bind mount source {} does not exist",
                    bind.source.display()
                ))
                .hint("make it, or use -v, which makes a missing directory"));
            }
            std::fs::create_dir_all(&bind.source)
                .explain(|| format!("make the bind mount source {}", bind.source.display()))?;
        }
        if bind.chown {
            let owner = if bind.is_mapped { Some(owner) } else { outside };
            let unknown = || {
                Fault::input(format!(
                    "{}: who the container's user is on this machine is not known",
                    bind.source.display()
                ))
                .hint("bind it with idmap, and nothing has to be given to anybody")
            };
            give(&bind.source, owner.ok_or_else(unknown)?)?;
        }
    }
    Ok(())
}

/// Makes the volumes that are missing and fills those that are empty, `owner` being the container's user. Nobody can remove
/// them as long as what is returned lives.
pub fn prepare(
    store: &Store,
    volumes: &[VolumeUse],
    rootfs: &Rootfs,
    owner: (u32, u32),
) -> Result<Vec<Held>> {
    let mut held: Vec<Held> = Vec::new();
    for volume in volumes {
        let one =
            hold(store, volume, rootfs).map_err(|fault| fault.within(format!("volume {}", volume.name)))?;
        if volume.chown {
            if one.info.is_mounted() {
                give_opened(Opened::new(&one)?.root(), owner)?;
            } else {
                give(&volume.path, owner)?;
            }
        }
        held.push(one);
    }
    Ok(held)
}

fn hold(store: &Store, volume: &VolumeUse, rootfs: &Rootfs) -> Result<Held> {
    let wanted = Info {
        name: volume.name.clone(),
        driver: volume.driver.clone().unwrap_or_else(|| volume::LOCAL.to_owned()),
        anonymous: volume.anonymous,
        labels: volume.labels.clone(),
        options: volume.options.clone(),
        ..Info::default()
    };
    loop {
        let found = volume::create(store, &wanted, |data| {
            // What something is mounted over needs no filling.
            if volume.populate && !wanted.is_mounted() { fill(data, volume, rootfs) } else { Ok(()) }
        })?;
        let held = match volume::hold(store, &volume.name) {
            // Removed in between.
            Err(fault) if fault.kind() == fault::Kind::NotFound => continue,
            other => other?,
        };
        if volume.populate && held.info.is_mounted() {
            // A tmpfs is another one for each container, and empty.
            if !matches!(held.info.options.get("type").map(String::as_str), Some("tmpfs" | "ramfs")) {
                fill_mounted(&held, volume, rootfs)?;
            }
        } else if volume.populate && !found.made {
            fill_if_empty(volume, rootfs)?;
        }
        return Ok(held);
    }
}

/// Mounts that only the volumes' options ask for.
pub fn add_trees(volumes: &[VolumeUse], held: &[Held], trees: &mut Vec<TreeUse>) -> Result<()> {
    for (volume, held) in volumes.iter().zip(held) {
        let is_covered = trees.iter().find(|used| used.target == volume.target);
        match is_covered {
            Some(TreeUse { tree: Tree::Overlay { .. }, .. }) if held.info.is_mounted() => {
                return Err(Fault::input(format!(
                    "an overlay of the volume {}, which is mounted itself, is not supported",
                    volume.name
                )));
            }
            None if held.info.is_mounted() => {
                let tree = Tree::Volume { name: volume.name.clone(), subpath: None };
                trees.push(TreeUse { target: volume.target.clone(), tree });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Finds the images that are mounted, which must be unpacked.
pub fn find_images(store: &Store, trees: &mut [TreeUse]) -> Result<()> {
    for used in trees {
        let Tree::Image { reference, digest, layers, .. } = &mut used.tree else { continue };
        let within = |fault: Fault| fault.within(format!("mount at {}", used.target));
        let entry = store.find_image(reference).map_err(within)?;
        let image = store.load_image(&entry, &Platform::host()).map_err(within)?;
        let mut paths = Vec::new();
        for layer in &image.layers {
            let diff_id = oci::Digest::parse(&layer.diff_id).map_err(within)?;
            if !store.has_layer(&diff_id) {
                return Err(within(Fault::not_found(format!("the image {reference} is not unpacked")))
                    .hint(format!("img-unpack {reference}")));
            }
            let path = store.layer_fs(&diff_id);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        (*digest, *layers) = (image.digest.clone(), paths);
    }
    Ok(())
}

fn fill_if_empty(volume: &VolumeUse, rootfs: &Rootfs) -> Result<()> {
    let is_empty = || std::fs::read_dir(&volume.path).is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty() {
        return Ok(());
    }
    // One at a time; whoever comes second finds it filled.
    let _lock = Lock::directory(&volume.path)?;
    if is_empty() { fill(&volume.path, volume, rootfs) } else { Ok(()) }
}

fn fill_mounted(held: &Held, volume: &VolumeUse, rootfs: &Rootfs) -> Result<()> {
    let opened = Opened::new(held)?;
    let _lock = Lock::directory(&volume.path).ok();
    let is_empty = Dir::read_from(opened.root())
        .explain(|| "read it".into())?
        .flatten()
        .all(|entry| matches!(entry.file_name().to_bytes(), b"." | b".." | b"lost+found"));
    if is_empty { fill_opened(opened.root(), volume, rootfs) } else { Ok(()) }
}

/// Copies what the image has at the volume's target.
fn fill(data: &Path, volume: &VolumeUse, rootfs: &Rootfs) -> Result<()> {
    let target =
        openat(CWD, data, DIRECTORY, Mode::empty()).explain(|| format!("open {}", data.display()))?;
    fill_opened(target.as_fd(), volume, rootfs)
}

fn fill_opened(target: BorrowedFd<'_>, volume: &VolumeUse, rootfs: &Rootfs) -> Result<()> {
    let Some(root) = image_root(rootfs)? else { return Ok(()) };
    let inside = Path::new(&volume.target).strip_prefix("/").unwrap_or(Path::new(&volume.target));
    let source = match sys::fs::open_in_root(&root, inside, DIRECTORY) {
        Ok(source) => source,
        // Nothing there, or no directory.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => {
            return Err(std::io::Error::from(error))
                .explain(|| format!("open {} in the image", volume.target));
        }
    };
    volume::copy_tree(source.as_fd(), target)
        .map_err(|fault| fault.within(format!("copy {} from the image", volume.target)))
}

/// The image's root, read-only: a layer by itself, or several as an overlay that is mounted nowhere.
fn image_root(rootfs: &Rootfs) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match (rootfs.layers.as_slice(), &rootfs.path) {
        ([], None) => Ok(None),
        ([], Some(path)) => {
            openat(CWD, path, flags, Mode::empty()).map(Some).explain(|| format!("open {path}"))
        }
        ([layer], _) => {
            openat(CWD, layer, flags, Mode::empty()).map(Some).explain(|| format!("open {layer}"))
        }
        (layers, _) => {
            let layers: Vec<PathBuf> = layers.iter().map(PathBuf::from).collect();
            sys::overlay::mount(&layers, None).map(Some)
        }
    }
}

/// Gives a file or directory with all that is in it to a user. Links are given themselves, and never followed.
fn give(path: &Path, owner: (u32, u32)) -> Result<()> {
    let failed = || format!("give {} to {}:{}", path.display(), owner.0, owner.1);
    match openat(CWD, path, DIRECTORY, Mode::empty()) {
        Ok(dir) => give_opened(dir.as_fd(), owner).map_err(|fault| fault.within(failed())),
        Err(Errno::NOTDIR) => {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            chownat(CWD, path, Some(uid), Some(gid), AtFlags::empty()).explain(failed)
        }
        Err(error) => Err(error).explain(failed),
    }
}

fn give_opened(dir: BorrowedFd<'_>, owner: (u32, u32)) -> Result<()> {
    fn walk(dir: BorrowedFd<'_>, owner: (Uid, Gid), depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Fault::input("directories are too deep"));
        }
        for entry in Dir::read_from(dir).explain(|| "read it".into())? {
            let entry = entry.explain(|| "read it".into())?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let failed = || name.to_string_lossy().into_owned();
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).explain(failed)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let sub = openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).explain(failed)?;
                walk(sub.as_fd(), owner, depth + 1)?;
            } else {
                chownat(dir, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
                    .explain(failed)?;
            }
        }
        rustix::fs::fchown(dir, Some(owner.0), Some(owner.1)).explain(|| "change its owner".into())
    }
    walk(dir, (Uid::from_raw(owner.0), Gid::from_raw(owner.1)), 0)
}
