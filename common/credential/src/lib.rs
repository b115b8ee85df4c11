//! The protocol of docker's credential helpers (docker/docker-credential-helpers, README): a program
//! `docker-credential-NAME` that is called with an action, reads stdin and writes stdout. [`Helper`] calls one,
//! [`server::main`] is one.
//!
//! A helper is another program and hostile: how much it says and how long it takes is bounded, its name is no path.
#![forbid(unsafe_code)]

mod client;
pub mod server;

pub use client::Helper;
pub use server::Keychain;

use serde::{Deserialize, Serialize};

/// What a helper says, word for word, of a server it has nothing for.
pub const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name of a secret that is an OAuth 2 identity token.
pub const TOKEN_USER: &str = "<token>";
/// Longest message either way; a secret is a few kilobytes at most.
pub const MAX_BYTES: usize = 1 << 20;

/// What is kept for a server.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    #[serde(rename = "ServerURL", default)]
    pub server: String,
    #[serde(rename = "Username", default)]
    pub user: String,
    #[serde(rename = "Secret", default)]
    pub secret: String,
}

// Never derived: a password may not reach a log.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({} at {})", self.user, self.server)
    }
}
