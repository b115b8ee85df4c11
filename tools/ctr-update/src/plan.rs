//! What an update of one container comes to.

use crate::Args;
use cli::{Explain, Fault, Kind, Result};
use ctr_create::edited::{self, Edit};
use ctr_create::limits;
use oci::wishes::Wishes;
use record::{Config, Extra, Record};
use serde_json::{Value, json};
use store::{ContainerDir, Status, Store, Subject, atomic};

/// Members of `config` besides limits that a container that runs can change: its shim or ctr-stop acts on them.
const LIVE: [&str; 3] = ["restart", "stop_signal", "stop_timeout"];

pub enum Change {
    Nothing,
    /// Of a container that runs: its shim sets the limits and writes all of it down.
    Live {
        resources: Extra,
        config: Extra,
    },
    /// Of one that does not: its bundle is written anew.
    Rewrite {
        record: Box<Record>,
        config: Box<Config>,
    },
}

pub fn plan(store: &Store, dir: &ContainerDir, subject: &Subject, args: &Args) -> Result<Change> {
    let stored = dir.load()?;
    let bundle = specification(dir)?;
    let mut record = match subject {
        Subject::Record(record) => (**record).clone(),
        Subject::Name(_) => stored.clone(),
    };
    // As ctr-inspect --spec prints it, it is no wish.
    let as_it_is = record.get::<Value>("spec")?.is_some_and(|spec| spec == bundle);
    if as_it_is || matches!(subject, Subject::Name(_)) {
        record.remove("spec");
    }
    let mut old = stored.config()?;
    let mut config = if record.contains("config") { record.config()? } else { old.clone() };
    args.apply(&mut config);
    let name = stored.require::<record::Container>("container")?.name;
    config.name.get_or_insert_with(|| name.clone());
    old.name.get_or_insert(name);
    if config.name != old.name {
        return Err(Fault::conflict("config.name is another name than the container's")
            .hint("ctr-rename gives it another name, ctr-create makes another container"));
    }
    Wishes::parse(&config)?;
    let new_limits = limits::resources(store, &config)?;
    let changes = changes(&old, &config)?;
    let spec_edited = record.raw("spec").is_some_and(|spec| stored.raw("spec") != Some(spec));
    if changes.is_empty() && !spec_edited {
        return Ok(Change::Nothing);
    }
    let own = &bundle["linux"]["resources"];
    let resources = limits::changed(own, &limits::resources(store, &old)?, &new_limits);
    if matches!(dir.status()?, Status::Running | Status::Paused | Status::Restarting) {
        refuse(&changes, spec_edited)?;
        return Ok(Change::Live { resources, config: changes });
    }
    // A specification of the user's own says everything, so the limits have to be in it too.
    if !spec_edited && let Some(mut spec) = stored.get::<Value>("spec")? {
        let limited =
            limits::changed(&spec["linux"]["resources"], &limits::resources(store, &old)?, &new_limits);
        for section in limits::SECTIONS {
            let value = limited.get(section).cloned();
            let own = spec.pointer_mut("/linux/resources").and_then(Value::as_object_mut);
            if let Some(own) = own {
                own.shift_remove(section);
                own.extend(value.map(|value| (section.to_owned(), value)));
            }
        }
        if stored.get::<Value>("spec")?.as_ref() != Some(&spec) {
            record.set("spec", &spec)?;
        }
    }
    Ok(Change::Rewrite { record: Box::new(record), config: Box::new(config) })
}

impl Change {
    /// For `--dry-run`.
    pub fn steps(self, store: &Store, dir: &ContainerDir, warn: &mut dyn FnMut(&str)) -> Result<Vec<Value>> {
        let (record, config) = match self {
            Change::Nothing => return Ok(Vec::new()),
            Change::Live { resources, config } => {
                return Ok(vec![
                    json!({"step": "set_limits", "resources": resources}),
                    json!({"step": "save_record", "config": config}),
                ]);
            }
            Change::Rewrite { record, config } => (record, *config),
        };
        Ok(match edited::edit(store, dir, &record, config, warn)? {
            Edit::Nothing => Vec::new(),
            Edit::Ports => vec![json!({"step": "save_record"})],
            Edit::Bundle(rewrite) => {
                let directories = rewrite
                    .make_directories
                    .iter()
                    .map(|path| json!({"step": "make_directory", "path": path}));
                let volumes =
                    rewrite.make_volumes.iter().map(|name| json!({"step": "make_volume", "name": name}));
                let mut steps: Vec<Value> = directories.chain(volumes).collect();
                steps.push(json!({"step": "rewrite_bundle"}));
                steps.extend(dir.has_shim().then(|| json!({"step": "recreate"})));
                steps
            }
        })
    }
}

fn specification(dir: &ContainerDir) -> Result<Value> {
    let path = dir.bundle.join("config.json");
    let text =
        atomic::read(&path)?.ok_or_else(|| Fault::not_found(format!("there is no {}", path.display())))?;
    serde_json::from_slice(&text).explain_as(Kind::Input, || format!("read {}", path.display()))
}

/// Members that differ, with their new values; null for one that goes.
fn changes(old: &Config, new: &Config) -> Result<Extra> {
    let members = |config: &Config| -> Result<Extra> {
        match serde_json::to_value(config).explain(|| "compare configurations".into())? {
            Value::Object(members) => Ok(members),
            _ => Ok(Extra::new()),
        }
    };
    let (old, new) = (members(old)?, members(new)?);
    let gone =
        old.keys().filter(|member| !new.contains_key(*member)).map(|member| (member.clone(), Value::Null));
    let changed = new.iter().filter(|(member, value)| old.get(*member) != Some(value));
    Ok(gone.chain(changed.map(|(member, value)| (member.clone(), value.clone()))).collect())
}

/// Fails if what is to be changed is made when a container is.
fn refuse(changes: &Extra, spec_edited: bool) -> Result<()> {
    let live = |member: &str| limits::MEMBERS.contains(&member) || LIVE.contains(&member);
    let mut fixed: Vec<&str> = changes.keys().map(String::as_str).filter(|member| !live(member)).collect();
    if spec_edited {
        fixed.push("spec");
    }
    if fixed.is_empty() {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "the container runs, and cannot change {} before it has ended",
        fixed.join(", ")
    ))
    .hint("pipe the record into ctr-restart, or stop the container first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_differ() {
        let config = |json: &str| serde_json::from_str::<Config>(json).unwrap();
        let old = config(r#"{"memory":"1g","cpus":1,"env":["A=b"],"mine":1}"#);
        let new = config(r#"{"memory":"2g","env":["A=b"],"mine":1}"#);
        let found = changes(&old, &new).unwrap();
        assert_eq!(Value::Object(found.clone()), json!({"cpus": null, "memory": "2g"}));
        assert!(refuse(&found, false).is_ok());
        assert_eq!(refuse(&found, true).unwrap_err().kind(), Kind::Conflict);
        let fault = refuse(&changes(&old, &config("{}")).unwrap(), false).unwrap_err().to_string();
        assert!(fault.contains("env, mine"), "{fault}");
    }
}
