//! What has to be done for mounts outside the container, before it is made.
//!
//! Only who is privileged where a file system was mounted may map its owners (mount_setattr(2), `MOUNT_ATTR_IDMAP`), and in a
//! user namespace a source may be out of reach.

use super::bind;
use super::options::{MapIds, Mappings, Options};
use crate::mappings;
use crate::spec::{Spec, namespace_path};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::process::Fork;

/// What was made ready for bind mounts, by their places in the list.
#[derive(Debug, Default)]
pub struct Prepared {
    sources: BTreeMap<usize, Source>,
    /// For what the container finds on its own mounts, and has somebody outside map.
    pub owners: Owners,
}

#[derive(Debug)]
pub(super) enum Source {
    /// What the caller has for it; the source's path means nothing.
    Given(OwnedFd),
    /// The source, mounted nowhere yet.
    Tree(OwnedFd),
    /// The same, its owners mapped; `None` if it is not there outside the container.
    Mapped(Option<OwnedFd>),
    /// A user namespace with the mappings wanted.
    Users(OwnedFd),
}

/// How owners are to be mapped of bind mounts in a user namespace, by their places in the list.
#[derive(Debug, Default)]
pub struct Owners(BTreeMap<usize, OwnersOfOne>);

#[derive(Debug)]
struct OwnersOfOne {
    users: OwnedFd,
    recursive: bool,
    source: PathBuf,
    destination: PathBuf,
}

impl Owners {
    /// Maps those of a detached tree that the process in the container has taken for the mount at this place. To be called
    /// outside the container.
    pub fn map(&self, index: usize, tree: &OwnedFd) -> Result<()> {
        let one =
            self.0.get(&index).ok_or_else(|| Fault::failed("the container asks for a mount that is none"))?;
        bind::map(tree, one.recursive, &one.users, &one.source)
            .map_err(|fault| within(index, &one.destination, fault))
    }
}

impl Prepared {
    /// Whether somebody outside may be asked for this mount.
    pub fn may_ask(&self, index: usize) -> bool {
        matches!(self.sources.get(&index), Some(Source::Mapped(_)))
    }

    /// Sets the source of the bind mount at this place. Its owners are mapped if that is asked for.
    pub fn give(&mut self, index: usize, tree: OwnedFd) -> Result<()> {
        if let Some(one) = self.owners.0.remove(&index) {
            bind::map(&tree, one.recursive, &one.users, &one.source)
                .map_err(|fault| within(index, &one.destination, fault))?;
        } else if let Some(Source::Users(users)) = self.sources.get(&index) {
            bind::map(&tree, false, users, Path::new("it"))?;
        }
        self.sources.insert(index, Source::Given(tree));
        Ok(())
    }

    pub(super) fn take(&mut self, index: usize) -> Option<Source> {
        self.sources.remove(&index)
    }
}

/// Refuses mounts that contradict themselves or the specification, whatever the machine.
pub fn check(spec: &Spec) -> Result<()> {
    parse(spec).map(drop)
}

/// Checks the mounts and makes ready what can only be done outside the container. To be called by the process that makes it,
/// which must have one thread. `joined`: the user namespace the container is to join.
pub fn prepare(spec: &Spec, bundle: &Path, joined: Option<BorrowedFd<'_>>) -> Result<Prepared> {
    prepare_with(spec, bundle, &mut Users::new(spec, joined))
}

/// [`prepare`] with user namespaces the caller needs as well.
pub fn prepare_with(spec: &Spec, bundle: &Path, users: &mut Users<'_>) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    let in_user_namespace = spec.namespace(LinuxNamespaceType::User).is_some();
    for (index, (mount, options)) in parse(spec)?.into_iter().enumerate() {
        if !options.bind || options.remount || !(in_user_namespace || options.map_ids.is_some()) {
            continue;
        }
        let about = |fault: Fault| about(index, mount, fault);
        let path = bind::source_path(mount.source().as_ref(), bundle);
        if let Some(wish) = &options.map_ids {
            let users = users.of(wish).map_err(about)?;
            // Without a user namespace the process in the container may do it itself, and sees what is mounted there.
            if !in_user_namespace {
                prepared.sources.insert(index, Source::Users(users));
                continue;
            }
            // What cannot be taken here may be a path on the container's own mounts.
            let tree = bind::tree(&path, &options).ok();
            if let Some(tree) = &tree {
                bind::map(tree, wish.recursive, &users, &path).map_err(about)?;
            }
            prepared.sources.insert(index, Source::Mapped(tree));
            let destination = mount.destination().clone();
            let one = OwnersOfOne { users, recursive: wish.recursive, source: path, destination };
            prepared.owners.0.insert(index, one);
        } else if let Ok(tree) = bind::tree(&path, &options) {
            // What cannot be taken here may be a path on the container's own mounts.
            prepared.sources.insert(index, Source::Tree(tree));
        }
    }
    Ok(prepared)
}

fn parse(spec: &Spec) -> Result<Vec<(&Mount, Options)>> {
    let parse = |(index, mount)| {
        let parsed = Options::parse(mount).and_then(|options| are_mapped(spec, &options).map(|()| options));
        parsed.map(|options| (mount, options)).map_err(|fault| about(index, mount, fault))
    };
    spec.mounts.iter().enumerate().map(parse).collect()
}

/// Owners a file system is to have must be known in the container's user namespace. Not every kernel says so.
fn are_mapped(spec: &Spec, options: &Options) -> Result<()> {
    let linux = &spec.linux;
    for (key, value) in options.data.iter().filter(|_| !options.bind) {
        let mappings = match key.as_str() {
            "uid" => &linux.uid_mappings,
            "gid" => &linux.gid_mappings,
            _ => continue,
        };
        // Another text is the file system's to refuse.
        let Some(id) = value.as_ref().and_then(|text| text.parse().ok()) else { continue };
        if !mappings.is_empty() && mappings::outside(mappings, id).is_none() {
            return Err(Fault::input(format!(
                "cannot specify {key}={id} mount option: {id} is not mapped in the user namespace"
            )));
        }
    }
    Ok(())
}

pub(super) fn about(index: usize, mount: &Mount, fault: Fault) -> Fault {
    within(index, mount.destination(), fault)
}

fn within(index: usize, destination: &Path, fault: Fault) -> Fault {
    fault.within(format!("mounts[{index}] on {}", destination.display()))
}

/// User namespaces by their mappings.
#[derive(Debug)]
pub struct Users<'a> {
    spec: &'a Spec,
    joined: Option<BorrowedFd<'a>>,
    made: Vec<(Mappings, OwnedFd)>,
}

impl<'a> Users<'a> {
    /// `joined`: the user namespace the container is to join.
    pub fn new(spec: &'a Spec, joined: Option<BorrowedFd<'a>>) -> Users<'a> {
        Users { spec, joined, made: Vec::new() }
    }

    /// The container's, or one with the mappings its own will have.
    pub fn of_container(&mut self) -> Result<OwnedFd> {
        self.of(&MapIds::default())
    }

    fn of(&mut self, wish: &MapIds) -> Result<OwnedFd> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().explain(|| "copy a descriptor".into());
        let wanted = match (&wish.mappings, self.joined) {
            (Some(mappings), _) => mappings.clone(),
            (None, Some(joined)) => return copy(joined),
            (None, None) => self.container()?,
        };
        if let Some((_, fd)) = self.made.iter().find(|(mappings, _)| *mappings == wanted) {
            return copy(fd.as_fd());
        }
        let fd = user_namespace(&wanted.0, &wanted.1)?;
        let result = copy(fd.as_fd())?;
        self.made.push((wanted, fd));
        Ok(result)
    }

    fn container(&self) -> Result<Mappings> {
        let linux = &self.spec.linux;
        let own = self.spec.namespace(LinuxNamespaceType::User).filter(|one| namespace_path(one).is_none());
        if own.is_some() && !linux.uid_mappings.is_empty() && !linux.gid_mappings.is_empty() {
            return Ok((linux.uid_mappings.clone(), linux.gid_mappings.clone()));
        }
        Err(Fault::input("idmap needs uidMappings and gidMappings")
            .hint("give them to the mount, or give the container a user namespace of its own"))
    }
}

/// A user namespace with these mappings. A process holds it for as long as it takes to open it.
fn user_namespace(users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let (wait, end) = pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
    match sys::process::clone3(libc::CLONE_NEWUSER as u64, None)
        .explain(|| "make a user namespace for an idmapped mount".into())?
    {
        Fork::Child => {
            drop(end);
            let _ = rustix::io::read(&wait, &mut [0u8]);
            sys::process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop(wait);
            let opened = mappings::write(pid, users, groups).and_then(|()| {
                let path = format!("/proc/{pid}/ns/user");
                openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .explain(|| format!("open {path}"))
            });
            drop(end);
            let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
            let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
            opened
        }
    }
}
