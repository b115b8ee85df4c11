//! The OCI runtime: from a bundle to a process in a container, and into a running one.
//!
//! The parent ([`create`]) prepares what can be prepared outside (control group, seccomp program, open files), then makes
//! one child in new namespaces. The child ([`init`]) builds its own root file system with the new mount API, says it is
//! ready, and waits; [`Created::start`] lets it execute the command. Nothing is mounted on the host,
//! but for a container that is in its mount namespace ([`host_root`]).
#![forbid(unsafe_code)]

mod bitmap;
mod capabilities;
pub mod checkpoint;
mod create;
pub mod devices;
mod exec;
mod executable;
mod gate;
mod groups;
pub mod hooks;
pub mod host_root;
mod init;
pub mod labels;
mod mapped;
pub mod mappings;
pub mod masks;
mod message;
pub mod mounts;
mod namespaces;
pub mod netdevices;
mod netlink;
mod no_pivot;
pub mod process;
mod procfs;
pub mod rdt;
pub mod root;
pub mod scheduling;
pub mod seccomp;
pub mod spec;
mod state;
pub mod timens;

pub use create::{Created, Manners, Options, Stdio, create};
pub use exec::{ExecOptions, Executed, exec, leave_newlines};
pub use executable::protect_own_executable;
pub use gate::{Gate, StartFailure, start_at};
pub use groups::{Rootless, is_rootless};
pub use message::Failure;
pub use oci_spec::runtime::LinuxNamespaceType as NamespaceKind;
pub use root::RootFs;
pub use spec::{Linux, Process, Spec};
pub use state::{State, Status};
