//! `containers/<id>` and `names/<name>`.

use crate::survivor::survives;
use crate::{Lock, Store, atomic};
use fault::{Explain, Fault, Kind, Result};
use record::{Container, Health, Record};
use rustix::fs::{AtFlags, CWD};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The record's `networks` section, in the bundle.
const NETWORKS: &str = "networks.json";

/// What its health check has found out, in the run-time directory.
const HEALTH: &str = "health.json";

/// One container's directories.
#[derive(Clone, Debug)]
pub struct ContainerDir {
    pub id: String,
    /// `$STAVES_ROOT/containers/<id>`, the OCI bundle.
    pub bundle: PathBuf,
    /// `$STAVES_RUN/containers/<id>`.
    pub run: PathBuf,
}

/// `state.json`: about the present run. Written by ctr-shim only.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LiveState {
    /// `created`, `running`, `paused` or `restarting`.
    pub status: String,
    /// Init's process id on the host.
    pub pid: i32,
    /// Its start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub pid_started: u64,
    pub shim_pid: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(default)]
    pub restart_count: u32,
    /// Absolute directories of the container's control groups, one per hierarchy.
    #[serde(default)]
    pub cgroup: Vec<PathBuf>,
}

/// `last_run.json`: how the last run went. `exit_code` is null as long as it goes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastRun {
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default)]
    pub oom_killed: bool,
    /// Who asked for it to end. None: it ended by itself, or whoever looked after it was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<StoppedBy>,
    /// How often the restart policy has started it again, since it was last started otherwise.
    #[serde(default)]
    pub restarts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoppedBy {
    User,
    /// The machine was shut down.
    Machine,
    /// Its processes were saved, to go on later or elsewhere.
    Checkpoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
}

/// Which of a container's records a file was: each time it is written there is another one ([`ContainerDir::version`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
        }
    }
}

impl Store {
    /// Directories of a container with this id, whether or not it exists.
    pub fn container_dir(&self, id: &str) -> ContainerDir {
        ContainerDir {
            id: id.to_owned(),
            bundle: self.root.join("containers").join(id),
            run: self.run.join("containers").join(id),
        }
    }

    /// All containers whose record was written, in no order.
    pub fn containers(&self) -> Result<Vec<ContainerDir>> {
        Ok(self
            .container_ids()?
            .into_iter()
            .map(|id| self.container_dir(&id))
            .filter(ContainerDir::exists)
            .collect())
    }

    fn container_ids(&self) -> Result<Vec<String>> {
        let dir = self.root.join("containers");
        match std::fs::read_dir(&dir) {
            Ok(entries) => Ok(entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| is_id(name))
                .collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).explain(|| format!("read {}", dir.display())),
        }
    }

    /// By full id, by name, or by an unambiguous prefix of the id.
    ///
    /// Fails with not found, or with a conflict when several ids begin so.
    pub fn find_container(&self, wanted: &str) -> Result<ContainerDir> {
        if is_id(wanted) {
            let dir = self.container_dir(wanted);
            if dir.exists() {
                return Ok(dir);
            }
        }
        if let Some(id) = self.id_of_name(wanted) {
            let dir = self.container_dir(&id);
            if dir.is_called(wanted) {
                return Ok(dir);
            }
        }
        let not_found = || Fault::not_found("no such container").on(wanted).hint("ctr-ls --all lists them");
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut hits: Vec<String> =
            self.container_ids()?.into_iter().filter(|id| id.starts_with(wanted)).collect();
        hits.retain(|id| self.container_dir(id).exists());
        match hits.as_slice() {
            [] => Err(not_found()),
            [id] => Ok(self.container_dir(id)),
            _ => Err(Fault::conflict(format!("{} containers have ids that begin so", hits.len()))
                .on(wanted)
                .hint("give more digits")),
        }
    }
}

impl ContainerDir {
    /// A container exists from the moment its record is written.
    pub fn exists(&self) -> bool {
        rustix::fs::accessat(
            CWD,
            self.bundle.join("container.json"),
            rustix::fs::Access::EXISTS,
            AtFlags::empty(),
        )
        .is_ok()
    }

    /// Whether the container exists and has this name. A record nobody can read has any: its reader says what is wrong.
    pub fn is_called(&self, name: &str) -> bool {
        self.exists()
            && match self.load().and_then(|record| record.container()) {
                Ok(Some(container)) => container.name == name,
                Err(fault) => fault.kind() != Kind::NotFound,
                Ok(None) => true,
            }
    }

    /// Of the record as last written; `None` when there is none.
    pub fn version(&self) -> Option<Version> {
        let status = std::fs::symlink_metadata(self.bundle.join("container.json")).ok()?;
        Some(Version { inode: status.ino(), modified: (status.mtime(), status.mtime_nsec()) })
    }

    /// The container's record as last written.
    pub fn load(&self) -> Result<Record> {
        let path = self.bundle.join("container.json");
        let content =
            atomic::read(&path)?.ok_or_else(|| Fault::not_found("no such container").on(self.id.as_str()))?;
        let text = |content, path: &Path| {
            String::from_utf8(content)
                .map_err(|_| Fault::input(format!("{} is not UTF-8", path.display())).on(self.id.as_str()))
        };
        let within =
            |path: &Path, fault: Fault| fault.within(format!("read {}", path.display())).on(self.id.as_str());
        let mut record = Record::parse(&text(content, &path)?).map_err(|fault| within(&path, fault))?;
        let path = self.bundle.join(NETWORKS);
        // Empty after a power cut: attached to nothing, then.
        if let Some(networks) = atomic::read(&path)?.filter(|content| !content.is_empty()) {
            record.set_raw("networks", text(networks, &path)?).map_err(|fault| within(&path, fault))?;
        }
        Ok(record)
    }

    /// Replaces the container's record.
    ///
    /// The attachments have a file of their own: they come when the record has been written a moment before, and a file
    /// system flushes what is replaced.
    pub fn save(&self, record: &Record) -> Result<()> {
        let mut rest = record.clone();
        rest.remove("networks");
        let mut line = rest.to_line();
        line.push('\n');
        replace(&self.bundle.join("container.json"), line.as_bytes())?;
        let path = self.bundle.join(NETWORKS);
        match record.raw("networks") {
            Some(networks) => replace(&path, networks.as_bytes()),
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).explain(|| format!("remove {}", path.display()))
                }
                _ => Ok(()),
            },
        }
    }

    /// Changes the record under the container's lock, so that two tools never overwrite each other's sections.
    pub fn update(&self, change: impl FnOnce(&mut Record) -> Result<()>) -> Result<Record> {
        // Not Lock::exclusive, which would make a file where a container was a moment ago.
        let _lock = Lock::directory(&self.bundle).map_err(|fault| fault.on(self.id.as_str()))?;
        let mut record = self.load()?;
        change(&mut record)?;
        self.save(&record)?;
        Ok(record)
    }

    pub fn live_state(&self) -> Result<Option<LiveState>> {
        let path = self.run.join("state.json");
        atomic::read(&path)?.map(|content| parse(&content, &path)).transpose()
    }

    pub fn write_live_state(&self, state: &LiveState) -> Result<()> {
        write(&self.run.join("state.json"), state)
    }

    /// Empty after a power cut: a run whose end nobody saw.
    pub fn last_run(&self) -> Result<Option<LastRun>> {
        let path = self.bundle.join("last_run.json");
        match atomic::read(&path)? {
            Some(content) if content.is_empty() => Ok(Some(LastRun::default())),
            Some(content) => parse(&content, &path).map(Some),
            None => Ok(None),
        }
    }

    pub fn write_last_run(&self, run: &LastRun) -> Result<()> {
        let content = serde_json::to_vec(run).explain(|| "write the last run".into())?;
        atomic::write_unflushed(&self.bundle.join("last_run.json"), &content, 0o600)
    }

    /// The same, and it is so after a crash of the machine, too: for what decides whether the container runs after it. Waits for the
    /// disk.
    pub fn write_last_run_durably(&self, run: &LastRun) -> Result<()> {
        let content = serde_json::to_vec(run).explain(|| "write the last run".into())?;
        atomic::write_durably(&self.bundle.join("last_run.json"), &content, 0o600)
    }

    /// What its health check found out since its last start; `None` without one.
    pub fn health(&self) -> Result<Option<Health>> {
        let path = self.run.join(HEALTH);
        atomic::read(&path)?
            .filter(|content| !content.is_empty())
            .map(|content| parse(&content, &path))
            .transpose()
    }

    pub fn write_health(&self, health: &Health) -> Result<()> {
        let content = serde_json::to_vec(health).explain(|| "write the health".into())?;
        atomic::write_unflushed(&self.run.join(HEALTH), &content, 0o600)
    }

    /// Whether a ctr-shim looks after it.
    pub fn has_shim(&self) -> bool {
        Lock::is_held(&self.run.join("lock"))
    }

    /// What is true of it now.
    pub fn status(&self) -> Result<Status> {
        self.status_by(self.live()?.as_ref())
    }

    /// What its shim says of it, or has said of a container that outlived it.
    fn live(&self) -> Result<Option<LiveState>> {
        let Some(state) = self.live_state()? else { return Ok(None) };
        Ok(Some(state).filter(|state| self.has_shim() || survives(state)))
    }

    fn status_by(&self, live: Option<&LiveState>) -> Result<Status> {
        if let Some(state) = live {
            return Ok(match state.status.as_str() {
                "created" => match self.last_run()? {
                    // Set up again for another run but not started yet.
                    Some(_) => Status::Exited,
                    None => Status::Created,
                },
                "paused" => Status::Paused,
                "restarting" => Status::Restarting,
                _ => Status::Running,
            });
        }
        Ok(if self.last_run()?.is_some() { Status::Exited } else { Status::Created })
    }

    /// The record with its `container` section brought up to date: status, pid, times, exit code.
    pub fn current(&self) -> Result<Record> {
        let mut record = self.load()?;
        let mut container: Container = record.require("container").map_err(|f| f.on(self.id.as_str()))?;
        let live = self.live()?;
        let status = self.status_by(live.as_ref())?;
        container.status = Some(status.name().to_owned());
        container.bundle = Some(self.bundle.display().to_string());
        container.pid = live.as_ref().map(|state| state.pid).filter(|pid| *pid > 0);
        if let Some(run) = self.last_run()? {
            let ended = matches!(status, Status::Exited);
            container.started_at = run.started_at;
            container.finished_at = run.finished_at;
            // A run nobody saw the end of was cut off with its machine or its shim.
            container.exit_code = if ended { Some(run.exit_code.unwrap_or(137)) } else { None };
            container.error = run.error;
            let checkpointed = ended && run.stopped_by == Some(StoppedBy::Checkpoint);
            container.checkpointed = checkpointed.then_some(true);
            container.oom_killed = (ended && run.oom_killed).then_some(true);
            container.restart_count = Some(run.restarts);
        } else {
            container.oom_killed = None;
            container.restart_count = None;
        }
        // While it runs, or is about to run again, its shim knows better.
        let restarts = live.map(|state| state.restart_count).or(container.restart_count);
        container.restart_count = restarts.filter(|count| *count > 0);
        // Most containers have no check, and then there is no file to look for.
        container.health = if container.extra.contains_key("healthcheck") {
            self.health().unwrap_or_default()
        } else {
            None
        };
        record.set("container", &container)?;
        Ok(record)
    }
}

/// 64 lower-case hexadecimal digits.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// docker's rule for names: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, and short enough for a file name.
pub fn check_name(name: &str) -> Result<()> {
    if oci::wishes::is_name(name) {
        return Ok(());
    }
    Err(Fault::usage("not a valid name").on(name).hint("letters, digits, and after the first also _ . -"))
}

fn parse<T: for<'de> Deserialize<'de>>(content: &[u8], path: &Path) -> Result<T> {
    serde_json::from_slice(content).explain(|| format!("read {}", path.display()))
}

/// Writes only what is not there already.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    if atomic::read(path)?.as_deref() == Some(content) {
        return Ok(());
    }
    atomic::write(path, content, 0o600)
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut content = serde_json::to_vec(value).explain(|| format!("write {}", path.display()))?;
    content.push(b'\n');
    atomic::write(path, &content, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make_dirs;

    struct Fixture(PathBuf);

    impl Fixture {
        fn new(name: &str) -> (Fixture, Store) {
            let dir = std::env::temp_dir().join(format!("store-{name}-{}", std::process::id()));
            let store = Store::at(dir.join("root"), dir.join("run"));
            (Fixture(dir), store)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn make(store: &Store, id: &str, name: &str) -> ContainerDir {
        let dir = store.container_dir(id);
        make_dirs(&dir.bundle).unwrap();
        store.take_name(name, id).unwrap();
        let mut record = Record::new();
        record
            .set("container", &Container { id: id.into(), name: name.into(), ..Container::default() })
            .unwrap();
        dir.save(&record).unwrap();
        dir
    }

    #[test]
    fn found_by_id_name_and_prefix() {
        let (_fixture, store) = Fixture::new("find");
        let (a, b) = ("ab".repeat(32), format!("abcd{}", "0".repeat(60)));
        make(&store, &a, "one");
        make(&store, &b, "two");
        for wanted in [a.as_str(), "one", "abab"] {
            assert_eq!(store.find_container(wanted).unwrap().id, a);
        }
        assert_eq!(store.find_container("ab").unwrap_err().kind(), Kind::Conflict);
        for wanted in ["three", "", "../x", "ef", "../containers"] {
            assert_eq!(store.find_container(wanted).unwrap_err().kind(), Kind::NotFound);
        }
    }

    #[test]
    fn a_name_is_taken_once_and_free_when_its_holder_is_gone() {
        let (_fixture, store) = Fixture::new("names");
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let dir = make(&store, &a, "web");
        store.take_name("web", &a).unwrap();
        assert_eq!(store.take_name("web", &b).unwrap_err().kind(), Kind::Conflict);
        std::fs::remove_dir_all(&dir.bundle).unwrap();
        store.take_name("web", &b).unwrap();
        assert_eq!(store.take_name("-x", &b).unwrap_err().kind(), Kind::Usage);
        assert_eq!(store.take_name("../x", &b).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn a_renamed_container_has_one_name() {
        let (_fixture, store) = Fixture::new("rename");
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let dir = make(&store, &a, "web");
        make(&store, &b, "db");
        let fault = store.rename_container(&dir, "db").unwrap_err();
        assert!(fault.kind() == Kind::Conflict && fault.to_string().contains(&b[..12]), "{fault}");
        assert_eq!(store.rename_container(&dir, "web").unwrap_err().kind(), Kind::Conflict);
        assert_eq!(store.rename_container(&dir, "../x").unwrap_err().kind(), Kind::Usage);
        store.rename_container(&dir, "site").unwrap();
        assert_eq!(store.find_container("site").unwrap().id, a);
        assert_eq!(store.find_container("web").unwrap_err().kind(), Kind::NotFound);
        store.take_name("web", &b).unwrap();
    }

    #[test]
    fn what_a_killed_renaming_left_is_nobodys_name() {
        let (_fixture, store) = Fixture::new("killed-rename");
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        make(&store, &a, "web");
        // Before the record was written: the new link is there as well.
        store.take_name("site", &a).unwrap();
        assert_eq!(store.find_container("site").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(store.find_container("web").unwrap().id, a);
        store.sweep_names();
        assert!(store.id_of_name("site").is_none() && store.id_of_name("web").is_some());
        store.take_name("site", &a).unwrap();
        make(&store, &b, "site");
        assert_eq!(store.find_container("site").unwrap().id, b);
    }

    #[test]
    fn status_follows_the_files() {
        let (_fixture, store) = Fixture::new("status");
        let dir = make(&store, &"c".repeat(64), "c");
        assert_eq!(dir.status().unwrap(), Status::Created);
        make_dirs(&dir.run).unwrap();
        dir.write_live_state(&LiveState { status: "running".into(), pid: 1, ..LiveState::default() })
            .unwrap();
        let shim = Lock::exclusive(&dir.run.join("lock")).unwrap();
        assert_eq!(dir.status().unwrap(), Status::Running);
        drop(shim);
        dir.write_last_run(&LastRun { exit_code: Some(3), ..LastRun::default() }).unwrap();
        assert_eq!(dir.status().unwrap(), Status::Exited);
        let container = dir.current().unwrap().container().unwrap().unwrap();
        assert_eq!((container.exit_code, container.pid), (Some(3), None));
    }
}
