//! `RUN --mount`.

use serde::Serialize;

/// A mount as written. All but `from` may hold variables, so that the rest is read when they have values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flag {
    pub text: String,
    pub from: Option<String>,
}

/// `sharing` of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// Owner and mode of what is made for a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ownership {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}
