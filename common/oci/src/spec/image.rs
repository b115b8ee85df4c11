//! What an image's configuration says about how to run it.

use fault::{Fault, Result};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// The members of an image configuration's `config` (image-spec `config.md`) a container is made from. Absent and
/// null ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageDefaults {
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
}

impl ImageDefaults {
    /// From the whole image configuration, the object around `config`.
    pub fn of(image: Option<&serde_json::Value>) -> Result<ImageDefaults> {
        match image.and_then(|image| image.get("config")) {
            None | Some(serde_json::Value::Null) => Ok(ImageDefaults::default()),
            // serde would take a list as the members in order.
            Some(config) if !config.is_object() => {
                Err(Fault::input("the image's configuration is malformed: not an object"))
            }
            Some(config) => ImageDefaults::deserialize(config)
                .map_err(|error| Fault::input("the image's configuration is malformed").because(error)),
        }
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// A list of words, or one word as old images have it.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        List(Vec<String>),
        One(String),
    }
    Ok(match Option::<Words>::deserialize(from)? {
        None => Vec::new(),
        Some(Words::List(list)) => list,
        Some(Words::One(word)) => vec![word],
    })
}
