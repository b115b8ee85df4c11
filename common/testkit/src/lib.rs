//! What tests share: images and a real registry, network namespaces and state directories of one's own.
#![forbid(unsafe_code)]

mod bench;
pub mod containers;
pub mod docker_registry;
pub mod fake_registry;
mod holder;
mod images;
mod own;

pub use bench::{Bench, wait_until};
pub use containers::FakeShim;
pub use docker_registry::DockerRegistry;
pub use fake_registry::{Behaviour, FakeRegistry};
pub use holder::Holder;
pub use images::{Images, busybox, images, project};
pub use own::{
    OtherHost, Place, Ran, die_with_parent, find_program, ip, is_root, own_network, profile_dir, skip,
    target_dir,
};
