//! Networks of containers: definitions, bridges, leased addresses, published ports.
//!
//! A network is a file that says what it is to be, a bridge or pairs of links the host routes between, and rules in one nftables table, made once since boot. Attaching a container
//! makes a veth pair with one end in its namespace, in two netlink packets; publishing a port adds an element to a
//! map. Neither runs a program nor grows with the number of containers.
#![forbid(unsafe_code)]

mod address;
mod attach;
mod claim;
mod cni;
mod conflist;
mod conntrack;
mod create;
mod definition;
pub mod dns;
mod files;
mod firewall;
pub mod foreign;
mod host;
mod inspect;
mod link;
mod netlink;
mod occupied;
mod options;
mod plan;
mod port;
mod prune;
mod release;
mod reload;
mod remove;
mod routed;
mod signals;
mod subnet;
mod sysctl;
mod vlan;
mod wanted;
mod work;

pub use attach::{Request, attach};
pub use conflist::read_cni;
pub use create::{Asked, Created, Families, create, plan_create};
pub use definition::{DEFAULT, Definition, Dns, Driver, File, Parent, Pool};
pub use firewall::{Obstacle, obstacles};
pub use host::Host;
pub use inspect::{Attached, Info, Users, definitions_in, find, list, names_in, users};
pub use plan::{Step, plan, plan_detach};
pub use port::{HostPort, Protocol, Wish};
pub use prune::{Pruned, plan_prune, prune};
pub use release::{detach, detach_from, release};
pub use reload::{Reloaded, reload};
pub use remove::{Removal, plan_remove, remove};
pub use subnet::Subnet;
