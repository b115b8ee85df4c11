//! Networks of containers: a bridge, leased addresses, published ports.
//!
//! A network is a bridge on the host and rules in one nftables table, made once since boot. Attaching a container
//! makes a veth pair with one end in its namespace, in two netlink packets; publishing a port adds an element to a
//! map. Neither runs a program nor grows with the number of containers.
#![forbid(unsafe_code)]

mod address;
mod attach;
mod claim;
mod conntrack;
mod definition;
mod files;
mod firewall;
mod host;
mod link;
mod netlink;
mod plan;
mod port;
mod prune;
mod release;
mod signals;

pub use attach::{Request, attach};
pub use definition::{DEFAULT, Definition, Subnet};
pub use host::Host;
pub use plan::{Step, plan, plan_detach};
pub use port::{HostPort, Protocol, Wish};
pub use prune::{Pruned, plan_prune, prune};
pub use release::{detach, release};
