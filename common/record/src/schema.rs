//! The record's JSON schema, `schema.json` beside this crate's manifest. Made from the types themselves:
//! `STAVES_UPDATE=1 cargo test --release -p record schema` writes it anew, without the variable the test compares.

use crate::{Attachment, Config, Container, Image, Rootfs, VERSION, Volume};
use schemars::JsonSchema;

/// The sections this project defines. Others pass through untouched, so further members are allowed everywhere.
#[derive(JsonSchema)]
#[schemars(title = "Staves record")]
#[allow(dead_code)]
struct Document {
    /// Major version of this schema.
    staves: Option<u64>,
    image: Option<Image>,
    rootfs: Option<Rootfs>,
    config: Option<Config>,
    /// The OCI runtime specification, `config.json`.
    spec: Option<serde_json::Map<String, serde_json::Value>>,
    container: Option<Container>,
    networks: Option<Vec<Attachment>>,
    volumes: Option<Vec<Volume>>,
    /// Exit status of a container that was waited for.
    exit_code: Option<i32>,
}

#[test]
fn the_schema_is_that_of_the_types() {
    let mut schema = serde_json::to_value(schemars::schema_for!(Document)).unwrap();
    schema["properties"]["staves"] = serde_json::json!({
        "description": "Major version of this schema.",
        "const": VERSION,
    });
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json");
    if std::env::var_os("STAVES_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept == text,
        "schema.json is out of date: STAVES_UPDATE=1 cargo test --release -p record schema"
    );
}
