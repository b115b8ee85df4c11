//! What criu is asked for, and what it answers (`criu_req` and `criu_resp` of its `images/rpc.proto`).

use super::wire::{Value, Writer, read};
use fault::{Fault, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// Whether criu saves and makes control groups (`--manage-cgroups-mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    #[default]
    Default = 6,
}

impl CgroupMode {
    pub fn parse(name: &str) -> Result<CgroupMode> {
        match name {
            "soft" => Ok(CgroupMode::Soft),
            "full" => Ok(CgroupMode::Full),
            "strict" => Ok(CgroupMode::Strict),
            "ignore" => Ok(CgroupMode::Ignore),
            _ => Err(Fault::usage(format!("invalid manage-cgroups-mode {name:?}"))
                .hint("soft, full, strict or ignore")),
        }
    }
}

/// What whoever checkpoints or restores may wish; see criu(8) for what each means.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub leave_running: bool,
    pub pre_dump: bool,
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub tcp_close: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub link_remap: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    pub empty_network: bool,
    pub cgroups: CgroupMode,
    /// Relative to the image directory.
    pub parent: Option<String>,
    /// Address and port.
    pub page_server: Option<(String, u16)>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
    /// Settings that come before all of these; criu does not mind that it is missing.
    pub config_file: Option<String>,
}

/// One request. Descriptors are the asking process's, but for `inherited`, which are criu's.
#[derive(Debug)]
pub struct Request {
    pub kind: Kind,
    pub wishes: Wishes,
    /// Of the tree to dump.
    pub pid: Option<i32>,
    pub images: i32,
    pub work: Option<i32>,
    pub log: &'static str,
    pub root: PathBuf,
    /// Mount points to what they are called in the images, and back to sources.
    pub mounts: Vec<(String, String)>,
    /// `TYPE[ID]:KEY`.
    pub external: Vec<String>,
    pub inherited: Vec<(String, i32)>,
    /// Namespaces to join by path: kind, file.
    pub joined: Vec<(String, String)>,
    /// Controllers, and the group that stands for the one that was dumped.
    pub cgroup_roots: Vec<(String, String)>,
    pub freezer: Option<PathBuf>,
}

/// criu says nearly everything it does; that is what explains a failure.
const LOG_LEVEL: u64 = 4;

impl Request {
    pub fn new(kind: Kind, wishes: Wishes, images: i32, root: PathBuf) -> Request {
        let log = if kind == Kind::Restore { "restore.log" } else { "dump.log" };
        Request {
            kind,
            wishes,
            pid: None,
            images,
            work: None,
            log,
            root,
            mounts: Vec::new(),
            external: Vec::new(),
            inherited: Vec::new(),
            joined: Vec::new(),
            cgroup_roots: Vec::new(),
            freezer: None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(1, self.kind as u64);
        writer.message(2, |options| self.options(options));
        writer.finish()
    }

    fn options(&self, to: &mut Writer) {
        let wishes = &self.wishes;
        let restore = self.kind == Kind::Restore;
        to.number(1, self.images as u64);
        if let Some(pid) = self.pid {
            to.number(2, pid as u64);
        }
        to.switch(3, wishes.leave_running);
        to.switch(4, wishes.ext_unix_sk);
        to.switch(5, wishes.tcp_established);
        // A device may have another path where it is restored.
        to.switch(6, restore);
        to.switch(7, wishes.shell_job);
        to.switch(8, wishes.file_locks);
        to.number(9, LOG_LEVEL);
        to.bytes(10, self.log.as_bytes());
        if let Some((address, port)) = &wishes.page_server {
            to.message(11, |server| {
                server.bytes(1, address.as_bytes());
                server.number(2, u64::from(*port));
            });
        }
        to.switch(12, true);
        to.bytes(13, self.root.as_os_str().as_bytes());
        if let Some(parent) = &wishes.parent {
            to.bytes(14, parent.as_bytes());
            to.switch(15, true);
        }
        to.switch(16, wishes.auto_dedup);
        if let Some(work) = self.work {
            to.number(17, work as u64);
        }
        to.switch(18, wishes.link_remap);
        pairs(to, 23, &self.mounts);
        to.switch(24, true);
        pairs(to, 25, &self.cgroup_roots);
        // The restored process is the asker's own child.
        to.switch(26, restore);
        for (key, fd) in &self.inherited {
            to.message(27, |one| {
                one.bytes(1, key.as_bytes());
                one.number(2, *fd as u64);
            });
        }
        to.number(34, wishes.cgroups as u64);
        for external in &self.external {
            to.bytes(37, external.as_bytes());
        }
        if wishes.empty_network {
            to.number(38, libc::CLONE_NEWNET as u64);
        }
        pairs(to, 39, &self.joined);
        if let Some(freezer) = &self.freezer {
            to.bytes(44, freezer.as_os_str().as_bytes());
        }
        to.switch(46, wishes.tcp_skip_in_flight);
        to.switch(48, wishes.lazy_pages);
        to.switch(50, true);
        let texts = [(51, &wishes.config_file), (53, &wishes.lsm_profile), (63, &wishes.lsm_mount_context)];
        for (field, text) in texts {
            if let Some(text) = text {
                to.bytes(field, text.as_bytes());
            }
        }
        to.switch(52, wishes.tcp_close);
    }
}

fn pairs(to: &mut Writer, field: u32, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        to.message(field, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.bytes(2, value.as_bytes());
        });
    }
}

/// A request that is only its kind.
pub fn plain(kind: Kind) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(1, kind as u64);
    writer.finish()
}

/// Says that what criu notified of is done.
pub fn notified() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(1, Kind::Notify as u64);
    writer.switch(3, true);
    writer.finish()
}

/// What the kernel and criu together can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Which pages a process wrote to.
    MemoryTracking = 1,
    LazyPages = 2,
}

pub fn feature_check(feature: Feature) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(1, Kind::FeatureCheck as u64);
    writer.message(5, |features| features.switch(feature as u32, true));
    writer.finish()
}

/// What criu answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub kind: u64,
    pub success: bool,
    /// An errno(3), or 0.
    pub error: u64,
    pub message: String,
    /// What it notifies of, and the process that is about.
    pub script: String,
    pub pid: i32,
    /// Numbers of the features there are.
    pub features: Vec<u32>,
    /// 31701 for 3.17.1.
    pub version: u64,
}

impl Response {
    pub fn decode(bytes: &[u8]) -> Result<Response> {
        let mut response = Response::default();
        for (field, value) in read(bytes)? {
            match (field, value) {
                (1, Value::Number(kind)) => response.kind = kind,
                (2, Value::Number(success)) => response.success = success != 0,
                (4, Value::Bytes(restored)) => response.pid = number(restored, 1)? as i32,
                (5, Value::Bytes(notify)) => {
                    response.pid = number(notify, 2)? as i32;
                    for (field, value) in read(notify)? {
                        if field == 1 {
                            response.script = String::from_utf8_lossy(value.bytes()).into_owned();
                        }
                    }
                }
                (7, Value::Number(error)) => response.error = error & 0xffff_ffff,
                (8, Value::Bytes(features)) => {
                    let there = read(features)?.into_iter().filter(|(_, value)| value.number() != 0);
                    response.features = there.map(|(field, _)| field).collect();
                }
                (9, Value::Bytes(message)) => {
                    String::from_utf8_lossy(message).trim().clone_into(&mut response.message);
                }
                (10, Value::Bytes(version)) => {
                    let part = |field| Ok(number(version, field)?.min(99));
                    response.version = part(1)? * 10_000 + part(2)? * 100 + part(4)?;
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

fn number(message: &[u8], field: u32) -> Result<u64> {
    Ok(read(message)?.iter().rev().find(|(one, _)| *one == field).map_or(0, |(_, value)| value.number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(request: &Request) -> Vec<u8> {
        let bytes = request.encode();
        let fields = read(&bytes).unwrap();
        assert_eq!(fields[0], (1, Value::Number(request.kind as u64)));
        fields[1].1.bytes().to_vec()
    }

    #[test]
    fn a_dump_says_what_it_is_to_do() {
        let wishes = Wishes {
            leave_running: true,
            empty_network: true,
            parent: Some("../before".into()),
            page_server: Some(("::1".into(), 27)),
            cgroups: CgroupMode::Ignore,
            ..Wishes::default()
        };
        let mut request = Request::new(Kind::Dump, wishes, 7, "/b/rootfs".into());
        request.pid = Some(4711);
        request.mounts = vec![("/data".into(), "/data".into())];
        request.external = vec!["net[4026531840]:extRootNetNS".into()];
        request.freezer = Some("/sys/fs/cgroup/x".into());
        let bytes = options(&request);
        let fields = read(&bytes).unwrap();
        for wanted in [
            (1, Value::Number(7)),
            (2, Value::Number(4711)),
            (3, Value::Number(1)),
            (10, Value::Bytes(b"dump.log")),
            (11, Value::Bytes(b"\x0a\x03::1\x10\x1b")),
            (13, Value::Bytes(b"/b/rootfs")),
            (14, Value::Bytes(b"../before")),
            (15, Value::Number(1)),
            (23, Value::Bytes(b"\x0a\x05/data\x12\x05/data")),
            (34, Value::Number(0)),
            (37, Value::Bytes(b"net[4026531840]:extRootNetNS")),
            (38, Value::Number(libc::CLONE_NEWNET as u64)),
            (44, Value::Bytes(b"/sys/fs/cgroup/x")),
        ] {
            assert!(fields.contains(&wanted), "{wanted:?} in {fields:?}");
        }
        // Neither what is not wished nor what belongs to a restore.
        assert!(
            fields.iter().all(|(field, _)| ![4, 5, 6, 7, 8, 26, 27, 48, 52].contains(field)),
            "{fields:?}"
        );
    }

    #[test]
    fn a_restore_makes_a_child_of_the_asker() {
        let mut request = Request::new(Kind::Restore, Wishes::default(), 5, "/r".into());
        request.inherited = vec![("pipe:[12]".into(), 1)];
        request.cgroup_roots = vec![(String::new(), "/oci-runtime/c".into())];
        let bytes = options(&request);
        let fields = read(&bytes).unwrap();
        for wanted in [
            (26, Value::Number(1)),
            (6, Value::Number(1)),
            (10, Value::Bytes(b"restore.log")),
            (25, Value::Bytes(b"\x0a\x00\x12\x0e/oci-runtime/c")),
            (27, Value::Bytes(b"\x0a\x09pipe:[12]\x10\x01")),
        ] {
            assert!(fields.contains(&wanted), "{wanted:?} in {fields:?}");
        }
    }

    #[test]
    fn answers_are_understood() {
        let mut writer = Writer::default();
        writer.number(1, 10);
        writer.number(2, 1);
        writer.message(10, |version| {
            version.number(1, 3);
            version.number(2, 17);
            version.number(4, 1);
        });
        let response = Response::decode(&writer.finish()).unwrap();
        assert_eq!((response.kind, response.success, response.version), (10, true, 31701));
        let mut writer = Writer::default();
        writer.number(1, 6);
        writer.number(2, 1);
        writer.message(5, |notify| {
            notify.bytes(1, b"post-restore");
            notify.number(2, 99);
        });
        let response = Response::decode(&writer.finish()).unwrap();
        assert_eq!((response.script.as_str(), response.pid), ("post-restore", 99));
        assert!(Response::decode(b"\x2a\x02\x08").is_err());
        // A response of another shape is none that succeeded.
        assert!(!Response::decode(b"\x12\x00").unwrap().success);
    }

    #[test]
    fn modes_have_names() {
        assert_eq!(CgroupMode::parse("strict").unwrap(), CgroupMode::Strict);
        assert!(CgroupMode::parse("loose").is_err());
    }
}
