//! What is copied and where to, and the copying.

use crate::end::{End, Tail};
use crate::{Args, Subjects};
use cli::{Context, Explain, Fault, Result};
use rootfs::{Access, Manner, Owners, Placer, Root, Tally, Tarball, Walk, show, unpack, walk};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use serde_json::json;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use store::Store;

/// Read and written at once, in bytes.
const CHUNK: usize = 256 << 10;
/// Symbolic links one after the other, as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// Directories above another that are looked at.
const MAX_DEPTH: usize = 4096;

/// Where paths are looked up.
enum Side<'a> {
    Here,
    In(&'a Root),
}

/// What is to be copied.
struct Source {
    /// `O_PATH`.
    fd: OwnedFd,
    is_directory: bool,
    /// What it is called where it gets to; `None` for what has no name, the root.
    name: Option<Vec<u8>>,
    is_contents: bool,
}

/// Where it gets to.
enum Place {
    /// A directory that is there, open to be listed.
    Directory(OwnedFd),
    /// A name in a directory that is there.
    Name { parent: OwnedFd, name: Vec<u8>, exists: bool },
}

/// `None` when nothing was to be done.
pub fn copy(
    args: &Args,
    context: &mut Context,
    store: &Store,
    subjects: &Subjects,
    [from, to]: [&End; 2],
) -> Result<Option<Tally>> {
    let to_root = match &subjects.to {
        Some((_, dir)) => {
            let access = if args.dry_run { Access::Seen } else { Access::Changed };
            Some(Root::open(store, dir, access)?)
        }
        None => None,
    };
    let same = matches!((&subjects.from, &subjects.to), (Some((_, a)), Some((_, b))) if a.id == b.id);
    let own_root = match &subjects.from {
        Some((_, dir)) if !same => Some(Root::open(store, dir, Access::Seen)?),
        _ => None,
    };
    let from_root = if same { to_root.as_ref() } else { own_root.as_ref() };
    let place = match to {
        End::Stream => None,
        End::Here(path) => Some((Side::Here, path)),
        End::In { path, .. } => to_root.as_ref().map(|root| (Side::In(root), path)),
    };
    let source = match (from, from_root) {
        (End::Here(path), _) => Some(Source::find(&Side::Here, path, args.follow_link)),
        (End::In { path, .. }, Some(root)) => Some(Source::find(&Side::In(root), path, args.follow_link)),
        (End::Stream, _) | (End::In { .. }, None) => None,
    };
    let source = source.transpose().map_err(|fault| fault.on(from.to_string()))?;
    let closed = from_root.map(Root::closed).unwrap_or_default();
    let manner = Manner {
        owners: args.archive && rustix::process::geteuid().is_root(),
        xattrs: args.archive,
        devices: args.archive,
        set_id: args.archive,
        links_in: None,
        mapped: to_root.as_ref().and_then(Root::owners),
    };
    let owners = from_root.and_then(Root::owners);
    if let Some(mapped) = manner.mapped.filter(|_| !args.dry_run) {
        mapped.act_as_superuser()?;
    }
    let copied = match (source, place) {
        (Some(source), Some((side, path))) => {
            let place = Place::find(&side, path).map_err(|fault| fault.on(to.to_string()))?;
            let (base, name) =
                aim(&source, place, Tail::of(path).is_directory).map_err(|fault| fault.on(to.to_string()))?;
            if args.dry_run {
                let shown = if name.is_empty() { ".".to_owned() } else { show(&name) };
                let step =
                    json!({"step": "copy", "from": from.to_string(), "to": to.to_string(), "as": shown});
                context.print_steps(None, &[step])?;
                return Ok(None);
            }
            if source.is_directory && is_within(&base, &source.fd)? {
                return Err(Fault::conflict("a directory cannot be copied into itself").on(to.to_string()));
            }
            let destination = Some(identity(&base)?);
            let mut placer = Placer::new(base, manner);
            let mut read = Tally::default();
            walk(source.fd.as_fd(), Walk { name: &name, closed, destination, owners }, &mut placer, &mut read)
                .and_then(|()| placer.finish())
                .map(|placed| merged(placed, read))
                .map_err(|fault| explained(fault, to))
        }
        (Some(source), None) => {
            if args.dry_run {
                let step = json!({"step": "copy", "from": from.to_string(), "to": "-"});
                context.print_steps(None, &[step])?;
                return Ok(None);
            }
            to_stdout(&source, closed, owners).map_err(|fault| fault.on(from.to_string()))
        }
        (None, Some((side, path))) => {
            let place = Place::find(&side, path).map_err(|fault| fault.on(to.to_string()))?;
            let Place::Directory(base) = place else {
                return Err(Fault::not_found(
                    "no such directory, and an archive is unpacked into one that is there",
                )
                .on(to.to_string()));
            };
            if args.dry_run {
                let step = json!({"step": "copy", "from": "-", "to": to.to_string()});
                context.print_steps(None, &[step])?;
                return Ok(None);
            }
            let links_in = to_root.as_ref().map(|root| (root.as_fd(), path.as_slice()));
            from_stdin(base, Manner { links_in, ..manner }).map_err(|fault| explained(fault, to))
        }
        (None, None) => return Ok(None),
    }?;
    warn(context, &copied, if copied.skipped > 0 && !args.archive { " (-a keeps devices)" } else { "" });
    Ok(Some(copied))
}

fn merged(placed: Tally, read: Tally) -> Tally {
    Tally {
        skipped: placed.skipped + read.skipped,
        example: placed.example.or(read.example),
        shrunk: placed.shrunk + read.shrunk,
        ..placed
    }
}

fn explained(fault: Fault, to: &End) -> Fault {
    let is_readonly = fault.os_error() == Some(Errno::ROFS.raw_os_error());
    let fault = fault.on(to.to_string());
    if is_readonly {
        fault.hint("the root file system of the container, or the volume there, is read-only")
    } else {
        fault
    }
}

fn warn(context: &Context, copied: &Tally, how: &str) {
    if copied.skipped > 0 {
        let example = copied.example.as_deref().unwrap_or_default();
        context.warn(
            example,
            &format!("{} sockets or devices were left out, this one first{how}", copied.skipped),
        );
    }
    if copied.shrunk > 0 {
        context.warn("", &format!("{} files became shorter while they were copied", copied.shrunk));
    }
}

fn to_stdout(source: &Source, closed: &[u64], owners: Option<&Owners>) -> Result<Tally> {
    let stdout: File = std::io::stdout().as_fd().try_clone_to_owned().explain(|| "use stdout".into())?.into();
    let mut tally = Tally::default();
    let mut tarball = Tarball::new(BufWriter::with_capacity(CHUNK, stdout), true);
    let name = if source.is_contents { &[][..] } else { source.name.as_deref().unwrap_or_default() };
    walk(source.fd.as_fd(), Walk { name, closed, destination: None, owners }, &mut tarball, &mut tally)?;
    tally.shrunk = tarball.shrunk;
    tarball.finish()?;
    Ok(tally)
}

fn from_stdin(base: OwnedFd, manner: Manner<'_>) -> Result<Tally> {
    let stdin: File = std::io::stdin().as_fd().try_clone_to_owned().explain(|| "use stdin".into())?.into();
    let mut placer = Placer::new(base, manner);
    unpack(BufReader::with_capacity(CHUNK, stdin), &mut placer)?;
    placer.finish()
}

/// The directory to copy into, and the name there; an empty one for the contents alone. The rules are those of docker's reference, "docker
/// container cp".
fn aim(source: &Source, place: Place, wants_directory: bool) -> Result<(OwnedFd, Vec<u8>)> {
    match place {
        Place::Directory(dir) if source.is_contents => Ok((dir, Vec::new())),
        Place::Directory(dir) => Ok((dir, source.name.clone().unwrap_or_default())),
        Place::Name { exists: true, .. } if source.is_directory => {
            Err(Fault::conflict("it is there and no directory: a directory cannot be copied onto it"))
        }
        Place::Name { exists: true, .. } if wants_directory => Err(Fault::conflict("it is no directory")),
        Place::Name { exists: false, .. } if wants_directory && !source.is_directory => {
            Err(Fault::not_found("no such directory")
                .hint("without a slash at its end it is the name of the copy"))
        }
        Place::Name { parent, name, .. } => Ok((parent, name)),
    }
}

impl Side<'_> {
    /// `O_PATH`. A relative path of a container begins at its root.
    fn open(&self, path: &[u8], follow: bool) -> rustix::io::Result<OwnedFd> {
        match self {
            Side::In(root) => root.look_up(path, follow),
            Side::Here => {
                let path = if path.is_empty() { b"." } else { path };
                let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
                openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
            }
        }
    }

    fn fault(&self, error: Errno) -> Fault {
        let inside = if matches!(self, Side::In(_)) { " in the container" } else { "" };
        match error {
            Errno::NOENT => Fault::not_found(format!("no such file or directory{inside}")),
            Errno::NOTDIR => Fault::not_found(format!("no such directory{inside}")),
            Errno::LOOP => Fault::not_found(format!("it leads through too many symbolic links{inside}")),
            Errno::ACCESS | Errno::PERM => Fault::denied("look it up").because(std::io::Error::from(error)),
            _ => Fault::failed("look it up").because(std::io::Error::from(error)),
        }
    }
}

fn kind_of(fd: &OwnedFd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd).explain(|| "look at it".into())?.st_mode))
}

fn listed(fd: &OwnedFd) -> Result<OwnedFd> {
    openat(fd, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .explain(|| "open the directory".into())
}

impl Source {
    fn find(side: &Side<'_>, path: &[u8], follow: bool) -> Result<Source> {
        let tail = Tail::of(path);
        let opened = if tail.is_directory { side.open(path, true) } else { side.open(tail.plain, follow) };
        let fd = opened.map_err(|error| side.fault(error))?;
        let is_directory = kind_of(&fd)? == FileType::Directory;
        if tail.is_directory && !is_directory {
            return Err(side.fault(Errno::NOTDIR));
        }
        let is_root = tail.plain == b"/";
        let name = tail.name().map(<[u8]>::to_vec);
        if name.is_none() && !is_root && !tail.is_contents {
            return Err(Fault::usage("it has no name of its own").hint("its contents are SRC/."));
        }
        Ok(Source { fd, is_directory, name, is_contents: tail.is_contents || is_root })
    }
}

impl Place {
    /// Symbolic links are followed; the last one may lead to what is not there yet.
    fn find(side: &Side<'_>, path: &[u8]) -> Result<Place> {
        match side.open(path, true) {
            Ok(fd) if kind_of(&fd)? == FileType::Directory => return Ok(Place::Directory(listed(&fd)?)),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(side.fault(error)),
        }
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            let tail = Tail::of(&path);
            let no_parent = |error| match error {
                Errno::NOENT | Errno::NOTDIR => Fault::not_found("the directory it is to be in is not there")
                    .hint("it is not made by copying"),
                error => side.fault(error),
            };
            let Some(name) = tail.name() else { return Err(side.fault(Errno::NOENT)) };
            let parent = side.open(tail.parent(), true).map_err(no_parent)?;
            if kind_of(&parent)? != FileType::Directory {
                return Err(no_parent(Errno::NOTDIR));
            }
            let in_parent = CString::new(name).map_err(|_| Fault::usage("its name holds a NUL"))?;
            let stat = match statat(&parent, &in_parent, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(side.fault(error)),
            };
            let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
            if kind != Some(FileType::Symlink) {
                let exists = kind.is_some();
                return Ok(Place::Name { parent: listed(&parent)?, name: name.to_vec(), exists });
            }
            let link =
                readlinkat(&parent, &in_parent, Vec::new()).explain(|| "read the symbolic link".into())?;
            path = match link.to_bytes() {
                absolute if absolute.starts_with(b"/") => absolute.to_vec(),
                relative => {
                    [tail.parent(), if tail.parent().is_empty() { b"" } else { b"/" }, relative].concat()
                }
            };
        }
        Err(side.fault(Errno::LOOP))
    }
}

fn identity(fd: &OwnedFd) -> Result<(u64, u64)> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).explain(|| "look at it".into())
}

/// Whether a directory is another or below it.
fn is_within(dir: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let other = identity(other)?;
    let mut at = dir.try_clone().explain(|| "copy a descriptor".into())?;
    for _ in 0..MAX_DEPTH {
        let here = identity(&at)?;
        if here == other {
            return Ok(true);
        }
        // Only looked at, never gone on from.
        let Ok(above) = openat(&at, c"..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        else {
            return Ok(false);
        };
        if identity(&above)? == here {
            return Ok(false);
        }
        at = above;
    }
    Ok(false)
}
