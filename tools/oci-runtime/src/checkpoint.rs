//! `checkpoint`.

use crate::call::{Call, absolute};
use crate::delete::destroy;
use crate::options::Opt;
use crate::state::Container;
use fault::{Fault, Result};
use runtime::checkpoint::{self, CgroupMode, Criu, Images, Stage, Wishes};
use runtime::{RootFs, Status};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Where the images go that nobody names a directory for.
const IMAGES: &str = "checkpoint";

pub fn checkpoint(call: &Call<'_>) -> Result<u8> {
    if runtime::is_rootless() {
        call.log.warn("checkpoint takes a superuser's rights, which criu may lack in a user namespace");
    }
    let container = Container::load(call)?;
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Fault::conflict(format!("Container cannot be checkpointed in {} state", status.name())));
    }
    let mut wishes = wishes(call)?;
    configure(&mut wishes, &container.stored.annotations);
    let status_fd = status_fd(call)?;
    let criu = Criu::find()?;
    let images = Images::make(&image_path(call)?)?;
    if let Some(parent) = &wishes.parent {
        images.check_parent(parent)?;
    }
    let work = work(call)?;
    let stays = wishes.leave_running || wishes.pre_dump;
    let whole = checkpoint::Container {
        spec: &container.spec()?,
        bundle: &container.stored.bundle,
        rootfs: &container.stored.rootfs,
        root_fs: &RootFs::Directory,
        trees: &[],
        images: &images,
        work: work.as_ref(),
        wishes,
    };
    checkpoint::dump(&criu, &whole, &container.need_cgroup()?, container.stored.pid, &mut |stage| {
        tell(&stage, status_fd.as_ref(), call);
        Ok(())
    })?;
    if !stays {
        // The checkpoint is there all the same.
        if let Err(fault) = destroy(&container, call.log) {
            call.log.warn_of(&fault);
        }
    }
    Ok(0)
}

/// Whoever reads the pages waits for a byte.
fn tell(stage: &Stage, status_fd: Option<&OwnedFd>, call: &Call<'_>) {
    if let (Stage::StatusReady, Some(fd)) = (stage, status_fd)
        && let Err(error) = rustix::io::write(fd, &[0])
    {
        call.log.warn(&format!("can't write \\0 to status fd: {error}"));
    }
}

/// A copy of the descriptor the caller waits on.
fn status_fd(call: &Call<'_>) -> Result<Option<OwnedFd>> {
    let Some(number) = call.options.number(Opt::StatusFd, "status-fd")?.filter(|number| *number != -1) else {
        return Ok(None);
    };
    let wrong = || Fault::usage(format!("invalid --status-fd argument {number}"));
    let number = i32::try_from(number).ok().filter(|number| *number >= 0).ok_or_else(wrong)?;
    let fd = sys::process::duplicate(number).map_err(|error| wrong().because(error))?;
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(|error| wrong().because(std::io::Error::from(error)))?;
    if flags.intersects(rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::RDWR) {
        Ok(Some(fd))
    } else {
        Err(Fault::usage(format!("invalid --status-fd argument {number}: not writable")))
    }
}

pub fn image_path(call: &Call<'_>) -> Result<std::path::PathBuf> {
    absolute(call.options.path(Opt::ImagePath).unwrap_or(Path::new(IMAGES)))
}

pub fn work(call: &Call<'_>) -> Result<Option<Images>> {
    call.options.path(Opt::WorkPath).map(|path| Images::make(&absolute(path)?)).transpose()
}

/// What the options of both verbs say.
pub fn wishes(call: &Call<'_>) -> Result<Wishes> {
    let options = call.options;
    let text = |opt| Ok::<_, Fault>(options.text(opt)?.map(str::to_owned));
    let mut empty_network = false;
    for name in options.all(Opt::EmptyNs)? {
        if name != "network" {
            return Err(Fault::usage(format!("namespace {name:?} is not supported"))
                .hint("--empty-ns network is what criu can do"));
        }
        empty_network = true;
    }
    Ok(Wishes {
        leave_running: options.has(Opt::LeaveRunning),
        pre_dump: options.has(Opt::PreDump),
        tcp_established: options.has(Opt::TcpEstablished),
        tcp_skip_in_flight: options.has(Opt::TcpSkipInFlight),
        tcp_close: options.has(Opt::TcpClose),
        ext_unix_sk: options.has(Opt::ExtUnixSk),
        shell_job: options.has(Opt::ShellJob),
        file_locks: options.has(Opt::FileLocks),
        link_remap: options.has(Opt::LinkRemap),
        auto_dedup: options.has(Opt::AutoDedup),
        lazy_pages: options.has(Opt::LazyPages),
        empty_network,
        cgroups: match options.text(Opt::ManageCgroupsMode)? {
            Some(name) => CgroupMode::parse(name)?,
            None => CgroupMode::default(),
        },
        parent: text(Opt::ParentPath)?,
        page_server: options.text(Opt::PageServer)?.map(page_server).transpose()?,
        lsm_profile: text(Opt::LsmProfile)?,
        lsm_mount_context: text(Opt::LsmMountContext)?,
        config_file: Some("/etc/criu/runc.conf".to_owned()),
    })
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT`.
fn page_server(text: &str) -> Result<(String, u16)> {
    let wrong = || Fault::usage("Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let inside = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let address = match inside {
        Some(address) => address,
        None if address.contains(':') => return Err(wrong()),
        None => address,
    };
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    if address.is_empty() { Err(wrong()) } else { Ok((address.to_owned(), port)) }
}

/// The settings the annotation names come before runc's, which those who configured criu for containers have.
pub fn configure(wishes: &mut Wishes, annotations: &std::collections::BTreeMap<String, String>) {
    if let Some(file) = annotations.get("org.criu.config") {
        wishes.config_file = Some(file.clone()).filter(|file| !file.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_have_a_port() {
        assert_eq!(page_server("10.0.0.1:27").unwrap(), ("10.0.0.1".to_owned(), 27));
        assert_eq!(page_server("[::1]:65535").unwrap(), ("::1".to_owned(), 65535));
        for text in ["", ":", ":1", "a", "a:", "a:0", "a:65536", "a:x", "::1:5", "[]:1"] {
            assert!(page_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_annotation_names_the_settings() {
        let mut wishes = Wishes { config_file: Some("/etc/criu/runc.conf".into()), ..Wishes::default() };
        configure(&mut wishes, &std::collections::BTreeMap::new());
        assert!(wishes.config_file.is_some());
        configure(&mut wishes, &[("org.criu.config".to_owned(), "/x".to_owned())].into());
        assert_eq!(wishes.config_file.as_deref(), Some("/x"));
        configure(&mut wishes, &[("org.criu.config".to_owned(), String::new())].into());
        assert_eq!(wishes.config_file, None);
    }
}
