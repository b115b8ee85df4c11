//! `unit`: the section of a record that says what only systemd has to know. Made by `--read`, or by hand with `jq`.

use crate::syntax;
use fault::{Fault, Result};
use record::{Extra, Record};
use serde::{Deserialize, Serialize};

/// Name of the section.
pub const NAME: &str = "unit";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// Of the unit, without its suffix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Key=value` each, for the section `[Unit]` as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unit: Vec<String>,
    /// The same for `[Service]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<String>,
    /// The same for `[Install]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub install: Vec<String>,
    /// When the image is pulled: `missing` (default), `always`, `never`, `newer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<String>,
    /// How often pulling is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<u32>,
    /// `healthy`: the unit has started when its health check has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// What is run in the container by `systemctl reload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_command: Option<Vec<String>>,
    /// What is sent to it by `systemctl reload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_signal: Option<String>,
    /// Whether the unit waits for the network; true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_dependencies: Option<bool>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Unit {
    /// A record's, checked; `None` where it has none.
    ///
    /// # Errors
    /// Input for what would not be one setting in one line.
    pub fn of(record: &Record) -> Result<Option<Unit>> {
        let Some(unit) = record.get::<Unit>(NAME)? else { return Ok(None) };
        for (section, settings) in
            [("unit", &unit.unit), ("service", &unit.service), ("install", &unit.install)]
        {
            for setting in settings {
                check_setting(setting).map_err(|fault| fault.within(format!("{NAME}.{section}")))?;
            }
        }
        if let Some(name) = &unit.name {
            check_name(name)?;
        }
        let known =
            |value: &Option<String>, of: &[&str]| value.as_deref().is_none_or(|value| of.contains(&value));
        if !known(&unit.pull, &["missing", "always", "never", "newer"]) {
            return Err(Fault::input("unit.pull is not missing, always, never or newer"));
        }
        if !known(&unit.notify, &["healthy"]) {
            return Err(Fault::input("unit.notify is not \"healthy\""));
        }
        if let Some(signal) = &unit.reload_signal {
            oci::wishes::signal(signal).map_err(|fault| fault.within("unit.reload_signal"))?;
            if unit.reload_command.is_some() {
                return Err(Fault::input("unit.reload_command and unit.reload_signal exclude each other"));
            }
        }
        if unit
            .reload_command
            .as_ref()
            .is_some_and(|words| words.is_empty() || words.iter().any(|word| word.contains('\0')))
        {
            return Err(Fault::input("unit.reload_command is empty or has a zero byte"));
        }
        Ok(Some(unit))
    }

    pub fn is_empty(&self) -> bool {
        *self == Unit::default()
    }
}

/// The last value of a setting in one of the lists.
pub fn last<'a>(settings: &'a [String], key: &str) -> Option<&'a str> {
    settings.iter().rev().find_map(|setting| setting.strip_prefix(key)?.strip_prefix('='))
}

fn check_setting(setting: &str) -> Result<()> {
    let fits =
        setting.split_once('=').is_some_and(|(key, value)| syntax::is_key(key) && syntax::is_plain(value));
    if fits {
        return Ok(());
    }
    Err(Fault::input(format!("{setting:?} is not one setting in one line")).hint("\"Nice=5\""))
}

/// Of a unit, without its suffix: what systemd.unit(5) allows, and `@` for those made of templates.
pub fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(Fault::input(format!("{name:?} is not the name of a unit")).hint("letters, digits, : - _ . \\ @"))
}
