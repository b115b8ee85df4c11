//! A container's root under construction, in mount namespaces of the test's own.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};
use runtime::mounts::{Mounter, Prepared, Surroundings};
use runtime::root::Root;
use runtime::{RootFs, Spec};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};
use rustix::pipe::pipe;
use serde_json::{Value, json};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use sys::process::Fork;

/// Users and groups of the tests' user namespaces.
pub const FIRST_ID: u32 = 100_000;
pub const IDS: u32 = 65_536;

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// A tmpfs that is gone with the process, with a directory `root` for a container's root in it.
pub struct World {
    pub dir: PathBuf,
}

impl World {
    pub fn new() -> World {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        make_private();
        // Nothing is ever put into this directory itself, so that it needs no cleaning but its own removal.
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("runtime-machine-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).expect("a directory");
        mount("tmpfs", &dir, "tmpfs", "mode=755");
        let world = World { dir };
        world.make("root");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A directory, and those on the way to it.
    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a directory above")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        path
    }

    pub fn link(&self, text: &str, name: &str) {
        std::os::unix::fs::symlink(text, self.path(name)).expect("a link");
    }

    /// A directory with a tmpfs of its own, mounted with these options of mount(8).
    pub fn source(&self, name: &str, options: &str) -> PathBuf {
        let path = self.make(name);
        mount("tmpfs", &path, "tmpfs", "mode=755");
        if !options.is_empty() {
            remount(&path, options);
        }
        path
    }

    /// The root, mounted over itself as a container's is.
    pub fn root(&self) -> Root {
        RootFs::Directory.mount(&self.path("root")).expect("mount the root")
    }

    /// What is mounted at a path of the root, topmost last: its own options, its propagation, the file system's options.
    pub fn mounted(&self, name: &str) -> Vec<[String; 3]> {
        let wanted = self.path("root").join(name.trim_start_matches('/'));
        let wanted = wanted.to_str().expect("a plain path").trim_end_matches('/').to_owned();
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("the mounts");
        let mounts = table.lines().filter_map(|line| {
            let (own, file_system) = line.split_once(" - ")?;
            let fields: Vec<&str> = own.split(' ').collect();
            let last = file_system.rsplit(' ').next()?;
            (fields[4] == wanted).then(|| [fields[5].to_owned(), fields[6..].join(" "), last.to_owned()])
        });
        mounts.collect()
    }

    pub fn options(&self, name: &str) -> String {
        self.mounted(name).pop().unwrap_or_else(|| panic!("nothing is mounted on {name}"))[0].clone()
    }

    pub fn in_root(&self, name: &str) -> PathBuf {
        self.path("root").join(name.trim_start_matches('/'))
    }

    /// Makes these mounts. Each is destination, type, source and options.
    pub fn try_mounts(&self, mounts: &[Value]) -> fault::Result<()> {
        let root = self.root();
        self.mount_in(&root, mounts, Prepared::default())
    }

    pub fn mount_in(&self, root: &Root, mounts: &[Value], prepared: Prepared) -> fault::Result<()> {
        let mut mounter = Mounter::new(root, &self.path("root"), prepared, false);
        for (index, mount) in list(mounts).iter().enumerate() {
            mounter.make(index, mount, &self.surroundings())?;
        }
        mounter.finish()
    }

    pub fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            cgroup: &[],
            cgroup_is_v2: true,
            bundle: &self.dir,
            map_outside: &|_, _| panic!("not asked for"),
        }
    }

    pub fn mounts(&self, mounts: &[Value]) {
        self.try_mounts(mounts).expect("the mounts");
    }

    pub fn refused(&self, mounts: &[Value]) -> String {
        self.try_mounts(mounts).expect_err("refused").to_string()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What is mounted on it elsewhere than here does not keep it.
        let _ = rustix::mount::unmount(&self.dir, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.dir);
    }
}

pub fn list(mounts: &[Value]) -> Vec<Mount> {
    serde_json::from_value(Value::Array(mounts.to_vec())).expect("mounts")
}

/// A mount as the specification has it; the options are separated by commas.
pub fn entry(kind: &str, source: impl AsRef<Path>, destination: &str, options: &str) -> Value {
    let options: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
    json!({"type": kind, "source": source.as_ref(), "destination": destination, "options": options})
}

pub fn bind(source: impl AsRef<Path>, destination: &str, options: &str) -> Value {
    entry("none", source, destination, options)
}

pub fn with_mappings(mut mount: Value, users: Value, groups: Value) -> Value {
    mount["uidMappings"] = users;
    mount["gidMappings"] = groups;
    mount
}

pub fn range(inside: u32, outside: u32, size: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": size}])
}

pub fn spec(mounts: &[Value], user_namespace: bool) -> Spec {
    let mut spec =
        json!({"ociVersion": "1.3.0", "mounts": mounts, "linux": {"namespaces": [{"type": "mount"}]}});
    if user_namespace {
        let all = range(0, FIRST_ID, IDS);
        spec["linux"] = json!({
            "namespaces": [{"type": "mount"}, {"type": "user"}], "uidMappings": all, "gidMappings": all
        });
    }
    Spec::parse(spec.to_string().as_bytes()).expect("a specification")
}

fn make_private() {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
}

pub fn mount(kind: &str, path: &Path, source: &str, data: &str) {
    let data = std::ffi::CString::new(data).expect("a string");
    rustix::mount::mount(source, path, kind, MountFlags::empty(), data.as_c_str()).expect("mount");
}

/// As `mount --bind -o remount,…` does it.
pub fn remount(path: &Path, options: &str) {
    let options = format!("remount,bind,{options}");
    let status = std::process::Command::new("mount").arg("-o").arg(&options).arg(path).status();
    assert!(status.expect("run mount").success(), "mount -o {options}");
}

/// Runs something as the superuser of a new user namespace, with mount and other new namespaces, in a process of its own.
pub fn in_user_namespace(namespaces: i32, run: impl FnOnce()) {
    let (go, say_go) = pipe().expect("a pipe");
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | namespaces;
    match sys::process::clone3(flags as u64, None).expect("a process") {
        Fork::Child => {
            drop(say_go);
            let _ = rustix::io::read(&go, &mut [0u8]);
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
                rustix::thread::set_thread_groups(&[]).expect("no groups");
                rustix::thread::set_thread_res_gid(gid, gid, gid).expect("a group");
                rustix::thread::set_thread_res_uid(uid, uid, uid).expect("a user");
                make_private();
                run();
            }));
            sys::process::exit_now(ran.is_err().into())
        }
        Fork::Parent { pid, pidfd } => {
            drop(go);
            let all = ids();
            runtime::mappings::write(pid, &all, &all).expect("map");
            drop(say_go);
            let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
            let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).expect("wait");
            let code = status.and_then(|status| status.exit_status());
            assert_eq!(code, Some(0), "what ran in the user namespace failed");
        }
    }
}

fn ids() -> Vec<LinuxIdMapping> {
    let builder = LinuxIdMappingBuilder::default().container_id(0u32).host_id(FIRST_ID).size(IDS);
    vec![builder.build().expect("a mapping")]
}
