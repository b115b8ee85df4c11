//! What is kept of a container in `ROOT/ID`: `state.json`, written here, and `config.json` as it was when it was made.

use crate::call::Call;
use crate::place::{GATE, Place, absent};
use crate::process;
use cgroup::Cgroup;
use fault::{Explain, Fault, Kind, Result};
use runtime::hooks::Hooks;
use runtime::{Spec, State, Status, rdt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";

/// Longest files read, in bytes.
const MAX_STATE_BYTES: u64 = 4 << 20;
const MAX_CONFIG_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    pub oci_version: String,
    pub id: String,
    /// Of the first process, with when it began.
    pub pid: i32,
    pub pid_started: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Absolute; none where the container does without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<PathBuf>,
    /// The unit they are, if systemd made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<cgroup::systemd::Unit>,
    /// All of its processes end with the first.
    pub own_pid_namespace: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<rdt::Group>,
    /// Those that are run after it was made.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What `update` changed, as config.json has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<serde_json::Value>,
}

/// A container that was made.
#[derive(Debug)]
pub struct Container {
    pub stored: Stored,
    pub place: Place,
}

impl Container {
    /// The one the call names.
    pub fn load(call: &Call<'_>) -> Result<Container> {
        Container::load_id(call, call.id()?)
    }

    pub fn load_id(call: &Call<'_>, id: &str) -> Result<Container> {
        Container::load_from(Place::open(&call.root, id)?, id)
    }

    /// Everything in the directory may be torn or somebody else's work.
    pub fn load_from(place: Place, id: &str) -> Result<Container> {
        let text = place.read(STATE, MAX_STATE_BYTES)?.ok_or_else(absent)?;
        let unreadable = |why: String| {
            Fault::input(format!("{}: {why}", place.path.join(STATE).display()))
                .hint("delete --force removes what is left of the container")
        };
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        if stored.id != id {
            return Err(unreadable(format!("it is the state of {:?}", stored.id)));
        }
        Ok(Container { stored, place })
    }

    pub fn save(&self) -> Result<()> {
        save(&self.place, &self.stored)
    }

    pub fn status(&self) -> Result<Status> {
        match self.cgroup()? {
            // A group without processes may be frozen still.
            Some(group) if group.is_frozen() && self.has_init() => Ok(Status::Paused),
            _ => Ok(self.status_unfrozen()),
        }
    }

    /// The same for who does not care whether it is paused.
    pub fn status_unfrozen(&self) -> Status {
        if !self.has_init() {
            Status::Stopped
        } else if !self.place.has(GATE) {
            Status::Running
        } else if self.place.is_busy() {
            Status::Creating
        } else {
            Status::Created
        }
    }

    pub fn has_init(&self) -> bool {
        process::lives(self.stored.pid, self.stored.pid_started)
    }

    /// A descriptor of its first process, if that has not ended.
    pub fn open_init(&self) -> Result<Option<OwnedFd>> {
        process::open(self.stored.pid, self.stored.pid_started)
    }

    pub fn cgroup(&self) -> Result<Option<Cgroup>> {
        match self.stored.cgroups.as_slice() {
            [] => Ok(None),
            directories => Ok(Some(Cgroup::open(directories)?.of_unit(self.stored.systemd.clone()))),
        }
    }

    /// For verbs that do nothing without.
    pub fn need_cgroup(&self) -> Result<Cgroup> {
        self.cgroup()?.ok_or_else(|| {
            Fault::conflict("the container has no control groups").hint("they could not be made when it was")
        })
    }

    /// What it was made from.
    pub fn spec(&self) -> Result<Spec> {
        Spec::parse(&self.config_text()?).map_err(|fault| fault.within(self.config_path()))
    }

    /// The same as it was written.
    pub fn config(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.config_text()?).explain_as(Kind::Input, || self.config_path())
    }

    fn config_text(&self) -> Result<Vec<u8>> {
        let missing = || Fault::input(format!("{} is missing", self.config_path()));
        self.place.read(CONFIG, MAX_CONFIG_BYTES)?.ok_or_else(missing)
    }

    fn config_path(&self) -> String {
        self.place.path.join(CONFIG).display().to_string()
    }

    /// As hooks are told it.
    pub fn oci_state(&self, status: Status) -> State {
        State {
            oci_version: self.stored.oci_version.clone(),
            id: self.stored.id.clone(),
            status,
            pid: Some(self.stored.pid).filter(|_| status != Status::Stopped),
            bundle: self.stored.bundle.clone(),
            annotations: self.stored.annotations.clone(),
        }
    }
}

/// Writes the state of a new container, and what it was made from.
pub fn save_new(place: &Place, stored: &Stored, config: &[u8]) -> Result<()> {
    place.write_new(CONFIG, config)?;
    save(place, stored)
}

fn save(place: &Place, stored: &Stored) -> Result<()> {
    let text = serde_json::to_vec(stored).map_err(|error| Fault::failed("write the state").because(error))?;
    place.write(STATE, &text)
}
