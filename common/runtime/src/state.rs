//! The state of a container (runtime.md, "State"): what `state` prints and hooks read.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub status: Status,
    /// Of the container's process, as whoever reads this sees it; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Absolute.
    pub bundle: PathBuf,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    /// Not in the specification; frozen by `pause`.
    Paused,
    Stopped,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_the_specification_has_it() {
        let mut state = State {
            oci_version: "1.3.0".into(),
            id: "c1".into(),
            status: Status::Running,
            pid: Some(4422),
            bundle: "/b".into(),
            annotations: BTreeMap::from([("myKey".into(), "myValue".into())]),
        };
        let json = serde_json::to_string(&state).unwrap();
        let wanted = r#"{"ociVersion":"1.3.0","id":"c1","status":"running","pid":4422,"bundle":"/b","annotations":{"myKey":"myValue"}}"#;
        assert_eq!(json, wanted);
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        state.pid = None;
        state.annotations.clear();
        assert!(!serde_json::to_string(&state).unwrap().contains("pid"));
    }
}
