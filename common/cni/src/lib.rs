//! The Container Network Interface (specification 1.1.0, and before it 0.1.0 to 1.0.0), both ways: running the plugins
//! of a network, and being one.
//!
//! [`Configuration`] is a network as administrators write it, [`Runtime`] runs its plugins for an [`Attachment`],
//! [`Success`] is what they answer, in the shape of the newest version whichever they speak. [`Request`] is the other
//! end: what a plugin is asked by its runtime, and [`Refusal`] how it says no.
//!
//! A configuration is an administrator's, but everything in it and all that a plugin prints is bounded and checked:
//! plugins are found by name in given folders only, never by a path, run without a shell, for a limited time.
#![forbid(unsafe_code)]

mod chain;
mod configuration;
mod execution;
mod refusal;
mod request;
mod result;
mod version;

pub use chain::{Attachment, Runtime};
pub use configuration::{Configuration, Plugin, check_container, check_interface, is_plugin_name};
pub use refusal::{Refusal, code};
pub use request::{Command, Request};
pub use result::{Cidr, Dns, Interface, Ip, Route, Success};
pub use version::Version;

/// Where plugins are looked for when nothing else is said: upstream's folder, then Debian's.
pub const DEFAULT_PATH: &str = "/opt/cni/bin:/usr/lib/cni";

/// Where configurations are looked for when nothing else is said.
pub const DEFAULT_CONFIGURATIONS: &str = "/etc/cni/net.d";

/// The part of a text that may be shown: plugins may print anything, control sequences of terminals too.
pub(crate) fn shown(text: &str) -> String {
    const MOST_CHARACTERS: usize = 1000;
    let text = text.trim();
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_CHARACTERS).collect();
    if text.chars().nth(MOST_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}
