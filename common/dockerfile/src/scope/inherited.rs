//! What a stage has from its base.

use crate::Problem;
use serde_json::Value;

/// The members of an image's configuration that instructions are read under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    pub env: Vec<String>,
    pub shell: Vec<String>,
    pub workdir: String,
    pub user: String,
    /// `OnBuild`: for [`crate::Request::triggers`].
    pub triggers: Vec<String>,
}

impl Inherited {
    /// Of a stage that begins with nothing.
    pub fn scratch() -> Inherited {
        Inherited { workdir: "/".to_owned(), ..Inherited::default() }
    }

    /// From a whole image configuration, the object around `config`.
    ///
    /// # Errors
    /// Members that are not what they should be.
    pub fn of(image: &Value) -> Result<Inherited, Problem> {
        let config = match image.get("config") {
            None | Some(Value::Null) => return Ok(Inherited::default()),
            Some(config @ Value::Object(_)) => config,
            Some(_) => return Err(malformed("config")),
        };
        Ok(Inherited {
            env: words(config, "Env")?,
            shell: words(config, "Shell")?,
            workdir: word(config, "WorkingDir")?,
            user: word(config, "User")?,
            triggers: words(config, "OnBuild")?,
        })
    }
}

fn word(config: &Value, name: &str) -> Result<String, Problem> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(malformed(name)),
    }
}

fn words(config: &Value, name: &str) -> Result<Vec<String>, Problem> {
    let list = match config.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(malformed(name)),
    };
    list.iter().map(|word| word.as_str().map(str::to_owned).ok_or_else(|| malformed(name))).collect()
}

fn malformed(name: &str) -> Problem {
    Problem::new(format!("the base image's configuration is malformed: {name}"))
}
