//! The protocol between a container's `ctr-shim` and the tools: one JSON object per packet on a
//! `SOCK_SEQPACKET` socket (ARCHITECTURE.md, "The shim's protocol").
#![forbid(unsafe_code)]

mod client;
mod end;
pub mod log_files;
mod wire;

pub use client::{Client, Prepared, start_shim};
pub use end::{Deadline, Orphan, Waited, clear, end, ended_record, lost_shim, outcome, settled_status};
pub use sys::process::sibling;
pub use wire::{MAX_PACKET, Packet, address_of, listen, receive, send};

use fault::{Fault, Kind};
use record::Extra;
use serde::{Deserialize, Serialize};

/// What a tool asks of a shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Answered when the waiting process is set up, or by why it could not be.
    Ready,
    /// Release the waiting process.
    Start,
    /// Send a signal to the container's init. `stop`: the restart policy is to let it end.
    Signal {
        signal: i32,
        #[serde(default)]
        stop: bool,
    },
    /// Answered by an [`Exit`] when the container ends.
    Wait,
    /// Connect pipe ends, which come along in this order, to the container's streams.
    Attach {
        #[serde(default)]
        stdin: bool,
        #[serde(default)]
        stdout: bool,
        #[serde(default)]
        stderr: bool,
        /// Seconds for which the container waits while none of its output is taken; then the client is let go of, with an
        /// [`Exit`] whose event is `let_go`. Absent: it waits for ever, as a pipe's writer does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        patience: Option<u64>,
    },
    /// Size of the container's terminal.
    Resize { rows: u16, columns: u16 },
    /// Before start: make the waiting process again, as the bundle changed. To a shim that has just been started, on its
    /// stdin: make it for the first time.
    Recreate,
    /// Before start: end the waiting process and the shim.
    Discard,
    /// Stop every process of the container where it is (cgroup freezer).
    Pause,
    /// Let them run on.
    Unpause,
    /// End the run, whatever the restart policy, and begin another in the same network namespace. Answered when that one
    /// runs. The shim does it all: whoever asked may be gone.
    Restart {
        signal: i32,
        /// Seconds until SIGKILL; absent: never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<u64>,
    },
    /// The run is about to be saved by whoever asks. Ended by that it does not begin again, whatever the restart policy; for as long as
    /// the connection lasts, which nobody else can have meanwhile.
    Checkpoint,
    /// Answered when all the container has written so far is in its log.
    Drain,
    /// Before start: in place of the waiting process those that criu saved in the bundle's directory `checkpoint`, in the same network namespace.
    Restore {
        /// With connections that were open.
        #[serde(default)]
        tcp_established: bool,
        /// With locks of files that were held.
        #[serde(default)]
        file_locks: bool,
    },
    /// Other limits for a container that runs, and a few members of its record's `config`: set and written down, or neither.
    Update {
        /// `memory`, `cpu`, `pids` and `blockIO` of the specification's `linux.resources`; one that is missing has no limits.
        resources: Extra,
        /// Members to set; null takes one away.
        config: Extra,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    #[serde(default)]
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// A failure on its way over the socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// [`Kind::name`].
    pub kind: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// docker's status where the command itself could not be run: 126 not executable, 127 not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// [`Failure::message`] of a restart that a stop has overtaken: the container stays stopped.
pub const OVERTAKEN: &str = "it was stopped before it could run again";

/// [`Exit::event`] for a client that is let go of while the container runs on.
pub const LET_GO: &str = "let_go";

/// How the container's run ended. Comes after the last byte of its output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// `exit`; for a client that took too long to read, `let_go`.
    pub event: String,
    /// Exit status, or 128 + the number of the signal that ended it.
    pub exit_code: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Failure {
    pub fn of(fault: &Fault, exit_code: Option<i32>) -> Failure {
        Failure {
            kind: fault.kind().name().to_owned(),
            message: fault.to_string(),
            hint: fault.hint_text().map(str::to_owned),
            exit_code,
        }
    }

    pub fn into_fault(self) -> Fault {
        let fault = Fault::new(Kind::from_name(&self.kind), self.message);
        match self.hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

impl Exit {
    pub fn new(exit_code: i32, error: Option<String>) -> Exit {
        Exit { event: "exit".to_owned(), exit_code, error }
    }
}
