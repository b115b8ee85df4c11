//! Checkpoint and restore of containers, by criu.
//!
//! criu saves a tree of processes as files and makes it again from these. It is asked over a socket (`criu swrk`) and tells on
//! it how far it has come. What is not the container's own (see [`outside`]) is left out of the images and put in again from
//! the specification. Images are trusted: who writes them decides what the restored processes may do.

mod criu;
mod images;
pub mod outside;
mod request;
mod scene;
pub mod stats;
mod wire;

pub use criu::Criu;
pub use images::Images;
pub use request::{CgroupMode, Feature, Wishes};

use crate::create::Manners;
use crate::root::RootFs;
use crate::spec::{Spec, namespace_path};
use crate::{groups, host_root};
use cgroup::{Cgroup, Version};
use criu::{Session, refused};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType;
use request::{Kind, Request, Response};
use scene::Scene;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where criu has got to, for who has something to do then. The names are criu's.
#[derive(Debug)]
pub enum Stage {
    /// The images are written and nothing runs yet: what belongs to the processes outside (their files) is as they know it. A failure
    /// here lets the container go on as before.
    PostDump,
    /// The namespaces are made; the process that will be the first is in them.
    SetupNamespaces(i32),
    /// Everything is restored and about to go on.
    PostRestore(i32),
    /// The other side of the container's terminal, which nobody in it holds.
    OrphanPtsMaster(OwnedFd),
    /// Pages can be asked for now.
    StatusReady,
}

/// What both ways need.
#[derive(Debug)]
pub struct Container<'a> {
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    /// Absolute.
    pub rootfs: &'a Path,
    /// What is mounted there for a restore.
    pub root_fs: &'a RootFs,
    /// Mounts that are nowhere yet and belong, for a restore, on places outside that sources of the specification's bind mounts name.
    pub trees: &'a [(PathBuf, OwnedFd)],
    pub images: &'a Images,
    /// Where criu writes its log; with the images if there is none.
    pub work: Option<&'a Images>,
    pub wishes: Wishes,
}

/// Whether a process is in control groups that were made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    Yes,
    No,
}

/// Saves the container whose first process is `pid`. After a failure it goes on as before; after success its processes are
/// gone unless they were to be left running.
pub fn dump(
    criu: &Criu,
    container: &Container<'_>,
    cgroup: &Cgroup,
    pid: i32,
    on: &mut dyn FnMut(Stage) -> Result<()>,
) -> Result<()> {
    let version = criu.version()?;
    let Container { spec, images, wishes, .. } = container;
    need_mount_namespace(spec)?;
    if wishes.pre_dump {
        criu.need(Feature::MemoryTracking)?;
    }
    if wishes.lazy_pages {
        criu.need(Feature::LazyPages)?;
    }
    let kind = if wishes.pre_dump { Kind::PreDump } else { Kind::Dump };
    let mut request = container.request(kind);
    request.pid = Some(pid);
    request.external = outside::namespaces_to_leave_out(spec, pid, version)?;
    request.freezer = freezer(cgroup).filter(|_| cgroup.version() == Version::V1 || version >= 31_400);
    if !wishes.pre_dump {
        request.mounts = outside::mounts_to_leave_out(spec, cgroup, pid)?;
        let streams = outside::streams(pid);
        request.external.extend(outside::streams_to_leave_out(&streams));
        images.write_descriptors(&streams)?;
    }
    let was_frozen = cgroup.is_to_be_frozen();
    let done = Session::start(criu, &[]).and_then(|session| {
        session.send(&request.encode())?;
        converse(&session, on)?;
        let status = session.end()?;
        // After a first pass over the memory criu waits for the next, which is another process here.
        if status.success() || wishes.pre_dump {
            return Ok(());
        }
        Err(Fault::failed(format!("criu failed: {status}")))
    });
    // A criu that was killed leaves it so.
    if (done.is_err() || wishes.leave_running) && !was_frozen && cgroup.is_to_be_frozen() {
        cgroup.thaw()?;
    }
    done.map_err(|fault| container.with_log(fault, &request))
}

/// Makes a container again from its images; its first process is a child of this one. Returns its number.
///
/// The caller must have one thread; its working directory is `/` afterwards. `started` is told the number of criu's process, and makes the
/// container's control groups if they are not there yet; with `Joined::Yes` the process is in all of them. After a failure there may be
/// processes in these.
pub fn restore<'g>(
    criu: &Criu,
    container: &Container<'_>,
    started: &mut dyn FnMut(i32) -> Result<(&'g Cgroup, Joined)>,
    on: &mut dyn FnMut(Stage) -> Result<()>,
) -> Result<i32> {
    let version = criu.version()?;
    let Container { spec, wishes, .. } = container;
    need_mount_namespace(spec)?;
    if wishes.lsm_profile.is_some() {
        outside::need_version(version, 31_600, "--lsm-profile")?;
    }
    if wishes.lsm_mount_context.is_some() {
        outside::need_version(version, 31_600, "--lsm-mount-context")?;
    }
    let mut request = container.request(Kind::Restore);
    request.inherited = outside::streams_to_put_in(&container.images.descriptors()?);
    let namespaces = outside::namespaces_to_put_in(spec, version)?;
    for (key, fd) in &namespaces.opened {
        request.inherited.push(((*key).to_owned(), fd.as_raw_fd()));
    }
    request.joined = namespaces.joined;
    let scene = Scene::enter()?;
    scene::attach_trees(container.trees)?;
    scene::mount_root(spec, container.bundle, container.rootfs, container.root_fs)?;
    // criu mounts in its directories, which it can do only where they are seen from its own mount namespace.
    let images = Images::open(&container.images.path)?;
    let work = container.work.map(|work| Images::open(&work.path)).transpose()?;
    request.images = images.number();
    request.work = work.as_ref().map(Images::number);
    let passed: Vec<_> = namespaces.opened.iter().map(|(_, fd)| fd.as_fd()).collect();
    let session = Session::start(criu, &passed)?;
    drop(scene);
    let (cgroup, joined) = started(session.pid())?;
    if joined == Joined::No {
        for entry in cgroup.join_files()? {
            entry.put(session.pid()).map_err(|fault| fault.within("criu"))?;
        }
    }
    request.mounts = outside::mounts_to_put_in(spec, cgroup, container.bundle)?;
    let file = format!("/proc/{}/cgroup", session.pid());
    let groups = std::fs::read_to_string(&file).explain(|| format!("read {file}"))?;
    request.cgroup_roots = outside::group_roots(&groups);
    let mut pid = 0;
    let restored = session.send(&request.encode()).and_then(|()| {
        let response = converse(&session, &mut |stage| {
            if let Stage::PostRestore(first) = stage {
                pid = first;
            }
            on(stage)
        })?;
        let status = session.end()?;
        if !status.success() {
            return Err(Fault::failed(format!("criu failed: {status}")));
        }
        Ok(if pid > 0 { pid } else { response.pid })
    });
    match restored {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(_) => Err(Fault::failed("criu does not tell which process it restored")),
        Err(fault) => Err(container.with_log(fault, &request)),
    }
}

/// Has the network namespace stay outside of the images, as one given by path does: whoever restores the container has prepared one, with its
/// links and addresses, and holds it open at `path`. Does nothing for a container that makes none.
pub fn leave_network_outside(spec: &mut Spec, path: &Path) {
    let namespaces = spec.linux.namespaces.iter_mut();
    for namespace in namespaces.filter(|one| one.typ() == LinuxNamespaceType::Network) {
        if namespace_path(namespace).is_none() {
            namespace.set_path(Some(path.to_owned()));
        }
    }
}

/// Makes the control groups of a container that is to be restored, as [`crate::create`] does.
pub fn groups(id: &str, spec: &Spec) -> Result<Cgroup> {
    let group = groups::make(id, spec, Manners::default())?;
    if group.version() == Version::V1 {
        return Ok(group.with(groups::make_unified(id, spec)));
    }
    Ok(group)
}

/// Fails for what this project makes of containers and criu cannot save.
pub fn check(spec: &Spec) -> Result<()> {
    need_mount_namespace(spec)?;
    if spec.namespace(LinuxNamespaceType::User).is_some() {
        return Err(Fault::input("a container in a user namespace cannot be checkpointed or restored")
            .hint("criu does not know mounts whose owners are mapped; make it without --userns"));
    }
    Ok(())
}

/// criu saves and makes the mounts of a namespace, which the host's are not for it to do with.
fn need_mount_namespace(spec: &Spec) -> Result<()> {
    if host_root::is_asked_for(spec) {
        return Err(Fault::input("a container without a mount namespace cannot be checkpointed or restored")
            .hint("its mounts are the host's, which criu would have to restore with it"));
    }
    Ok(())
}

impl Container<'_> {
    fn request(&self, kind: Kind) -> Request {
        let mut request =
            Request::new(kind, self.wishes.clone(), self.images.number(), self.rootfs.to_owned());
        request.work = self.work.map(Images::number);
        request
    }

    /// The failure with what criu's log has to say about it.
    fn with_log(&self, fault: Fault, request: &Request) -> Fault {
        let directory = self.work.unwrap_or(self.images);
        let log = directory.path.join(request.log);
        let told = fault.to_string();
        // Each begins with its time in brackets; criu may have sent one itself.
        let is_new =
            |line: &String| !told.contains(line.split_once(") ").map_or(line.as_str(), |(_, rest)| rest));
        let more: Vec<String> = directory.complaints(request.log).into_iter().filter(is_new).collect();
        let fault =
            if more.is_empty() { fault } else { Fault::failed(format!("{told}: {}", more.join("; "))) };
        if log.exists() { fault.hint(format!("criu's log is {}", log.display())) } else { fault }
    }
}

/// Until criu says that it is done.
fn converse(session: &Session, on: &mut dyn FnMut(Stage) -> Result<()>) -> Result<Response> {
    loop {
        let (response, fd) = session.receive()?;
        if !response.success {
            return Err(refused(&response));
        }
        if response.kind != Kind::Notify as u64 {
            return Ok(response);
        }
        let stage = match (response.script.as_str(), fd) {
            ("post-dump", _) => Some(Stage::PostDump),
            ("setup-namespaces", _) => Some(Stage::SetupNamespaces(response.pid)),
            ("post-restore", _) => Some(Stage::PostRestore(response.pid)),
            ("orphan-pts-master", Some(master)) => Some(Stage::OrphanPtsMaster(master)),
            ("status-ready", _) => Some(Stage::StatusReady),
            _ => None,
        };
        stage.map_or(Ok(()), &mut *on)?;
        session.confirm()?;
    }
}

/// Where criu stops the processes all at once.
fn freezer(cgroup: &Cgroup) -> Option<PathBuf> {
    let mut directories = cgroup.directories().iter();
    if cgroup.version() == Version::V2 {
        return directories.next().cloned();
    }
    let is_freezer = |directory: &&PathBuf| {
        directory.strip_prefix(cgroup::MOUNT).is_ok_and(|rest| rest.starts_with("freezer"))
    };
    directories.find(is_freezer).cloned()
}
