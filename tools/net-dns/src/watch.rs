//! What the kernel tells of changes: of the leases and the network's definition (inotify(7)), of the host's links (rtnetlink(7)).

use fault::{Explain, Result};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

/// RTMGRP_LINK: links that come, go and change.
const LINKS: u32 = 1;

/// Room for some hundred events.
const BUFFER: usize = 8192;

#[derive(Debug)]
pub struct Watch {
    pub files: OwnedFd,
    pub links: OwnedFd,
    leases: i32,
}

/// What has changed since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Leases that are new, others or gone.
    pub addresses: Vec<IpAddr>,
    /// More has changed than can be told.
    pub all: bool,
    /// `network.json`, perhaps.
    pub definition: bool,
    /// A directory that is watched was removed.
    pub lost: bool,
}

impl Watch {
    /// Watches the directory of a network, and that of its leases.
    pub fn new(network: &Path, leases: &Path) -> Result<Watch> {
        let files = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .explain(|| "prepare for changes of leases".into())?;
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR;
        let watch = |path: &Path| {
            inotify::add_watch(&files, path, changes).explain(|| format!("watch {}", path.display()))
        };
        watch(network)?;
        let leases = watch(leases)?;
        Ok(Watch { files, links: link_socket().explain(|| "listen for changes of links".into())?, leases })
    }

    /// What has changed. Does not wait.
    pub fn changes(&self) -> Changes {
        let mut changes = Changes::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.files, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return changes,
            };
            let kinds = event.events();
            if kinds.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.all = true;
                changes.definition = true;
            } else if kinds.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
                changes.lost = true;
            } else if let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) {
                // Beside leases there are files on their way to become some.
                match name.parse() {
                    Ok(address) if event.wd() == self.leases => {
                        if !changes.addresses.contains(&address) {
                            changes.addresses.push(address);
                        }
                    }
                    _ => changes.definition |= name == "network.json",
                }
            }
        }
    }

    /// Throws away what was told of links: what counts is how they are now.
    pub fn forget_links(&self) {
        let mut buffer = [0; 4096];
        // One that is too long, or one lost because there were too many (ENOBUFS), says as much as any.
        for _ in 0..64 {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            if rustix::net::recv(&self.links, &mut buffer, flags).is_err_and(|error| error == Errno::AGAIN) {
                return;
            }
        }
    }
}

fn link_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, LINKS))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told() {
        let dir = std::env::temp_dir().join(format!("net-dns-watch-{}", std::process::id()));
        let leases = dir.join("leases");
        std::fs::create_dir_all(&leases).unwrap();
        let watch = Watch::new(&dir, &leases).unwrap();
        assert_eq!(watch.changes(), Changes::default());
        std::fs::write(leases.join("10.0.0.1"), "x").unwrap();
        std::fs::write(leases.join(".10.0.0.2.1-1"), "x").unwrap();
        std::fs::rename(leases.join(".10.0.0.2.1-1"), leases.join("10.0.0.2")).unwrap();
        let changes = watch.changes();
        assert_eq!(changes.addresses, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
        assert!(!changes.definition && !changes.all && !changes.lost);
        std::fs::remove_file(leases.join("10.0.0.1")).unwrap();
        std::fs::write(dir.join("network.json"), "{}").unwrap();
        let changes = watch.changes();
        assert!(changes.definition && changes.addresses.len() == 1);
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(watch.changes().lost);
        watch.forget_links();
    }
}
