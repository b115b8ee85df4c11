//! Files: the place for state, the tools beside this one, what talking to registries needs.

use crate::Row;
use rustix::fs::{statfs, statvfs};
use std::path::{Path, PathBuf};
use store::Store;

pub fn rows(store: &Store) -> Vec<Row> {
    vec![state_place(store), space(store), tools(), nft(), certificates()]
}

const OVERLAYFS: u64 = 0x794c_7630;
const NFS: u64 = 0x6969;
const FAT: u64 = 0x4d44;
const FUSE: u64 = 0x6573_5546;

/// The nearest directory that exists at or above the state directory.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn state_place(store: &Store) -> Row {
    const NAME: &str = "state";
    let root = store.root();
    let kind = match statfs(existing(root)) {
        Ok(found) => found.f_type as u64,
        Err(error) => {
            return Row::missing(
                NAME,
                format!("{}: {error}", root.display()),
                "set STAVES_ROOT to another place",
            );
        }
    };
    judge_file_system(&root.display().to_string(), kind)
}

fn judge_file_system(root: &str, kind: u64) -> Row {
    const NAME: &str = "state";
    let hint = "set STAVES_ROOT to a directory on ext4, xfs, btrfs or tmpfs";
    match kind {
        OVERLAYFS => Row::missing(NAME, format!("{root} is on an overlay, which cannot carry another"), hint),
        FAT => Row::missing(NAME, format!("{root} is on a file system without owners and links"), hint),
        NFS => Row::warn(
            NAME,
            format!("{root} is on NFS, which cannot carry a container's writable layer"),
            hint,
        ),
        FUSE => Row::warn(
            NAME,
            format!("{root} is on FUSE, which may not carry a container's writable layer"),
            hint,
        ),
        _ => Row::ok(NAME, root),
    }
}

/// Less than this and an ordinary image may not fit.
const LITTLE: u64 = 2 << 30;
const FEW_FILES: u64 = 100_000;

fn space(store: &Store) -> Row {
    const NAME: &str = "disk-space";
    let dir = existing(store.root());
    let Ok(found) = statvfs(&dir) else {
        return Row::warn(
            NAME,
            format!("cannot look at {}", dir.display()),
            "set STAVES_ROOT to another place",
        );
    };
    let bytes = found.f_bavail.saturating_mul(found.f_frsize);
    // Some file systems (btrfs) count no inodes.
    let files = (found.f_files > 0).then_some(found.f_favail);
    judge_space(bytes, files)
}

fn judge_space(bytes: u64, files: Option<u64>) -> Row {
    const NAME: &str = "disk-space";
    let detail = format!("{:.1} GiB free", bytes as f64 / f64::from(1 << 30));
    if bytes < LITTLE {
        return Row::warn(
            NAME,
            detail,
            "make room (img-prune, ctr-prune), or set STAVES_ROOT to another disk",
        );
    }
    match files {
        Some(files) if files < FEW_FILES => Row::warn(
            NAME,
            format!("{detail}, but room for {files} files only"),
            "make room (img-prune, ctr-prune), or set STAVES_ROOT to another disk",
        ),
        _ => Row::ok(NAME, detail),
    }
}

/// Tools others start as processes, so these must be where they are looked for.
const STARTED_BY_OTHERS: [&str; 3] = ["ctr-shim", "img-pull", "net-attach"];

fn tools() -> Row {
    const NAME: &str = "tools";
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let found = |tool: &str| {
        let beside = beside.iter().map(|dir| dir.join(tool));
        beside.chain(in_path(tool)).any(|file| file.is_file())
    };
    let lacking: Vec<&str> = STARTED_BY_OTHERS.into_iter().filter(|tool| !found(tool)).collect();
    if lacking.is_empty() {
        return Row::ok(NAME, STARTED_BY_OTHERS.join(" "));
    }
    let detail = format!("not found: {}", lacking.join(" "));
    Row::missing(NAME, detail, "install all tools into one directory (scripts/install)")
}

/// nft(8), which makes the firewall table of a network, once since boot.
fn nft() -> Row {
    const NAME: &str = "nft";
    let places = ["/usr/sbin/nft", "/sbin/nft"].map(PathBuf::from).into_iter().chain(in_path("nft"));
    match places.into_iter().find(|file| file.is_file()) {
        Some(file) => Row::ok(NAME, file.display().to_string()),
        None => Row::missing(
            NAME,
            "not found",
            "install nftables (on Debian: apt-get install nftables); without, use --network none or host",
        ),
    }
}

/// Where a program would be in the directories of PATH.
fn in_path(program: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).collect()
}

const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn certificates() -> Row {
    const NAME: &str = "certificates";
    if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| Path::new(file).is_file()) {
        return Row::ok(NAME, file.to_string_lossy());
    }
    match CERTIFICATES.into_iter().find(|file| Path::new(file).is_file()) {
        Some(file) => Row::ok(NAME, file),
        None => Row::warn(
            NAME,
            "this machine trusts no certificate authority of its own",
            "registries with certificates of your own authority need it (on Debian: apt-get install ca-certificates)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn an_overlay_cannot_carry_containers() {
        assert_eq!(judge_file_system("/x", OVERLAYFS).status, Status::Missing);
        assert_eq!(judge_file_system("/x", 0xef53).status, Status::Ok);
    }

    #[test]
    fn little_room_is_told() {
        assert_eq!(judge_space(1 << 20, None).status, Status::Warn);
        assert_eq!(judge_space(1 << 40, Some(10)).status, Status::Warn);
        assert_eq!(judge_space(1 << 40, None).status, Status::Ok);
    }

    #[test]
    fn the_nearest_existing_directory_is_found() {
        assert_eq!(existing(Path::new("/proc/self/no/such/thing")), Path::new("/proc/self"));
        assert_eq!(existing(Path::new("relative/nowhere")), Path::new("/"));
    }
}
