//! The flags that limit what a container takes of the machine. `ctr-update` changes them on one that exists.

use crate::facts::{Machine, gather, identity};
use clap::Args;
use cli::Result;
use oci::users::UserFiles;
use record::{Config, Extra, Quantity};
use serde_json::Value;
use store::Store;

/// Docker's names and meanings. Zero is no limit.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct LimitFlags {
    /// Most memory: 512m, 2g
    #[arg(short, long, value_name = "BYTES", help_heading = "Limits")]
    pub memory: Option<String>,

    /// Memory it keeps when there is not enough
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub memory_reservation: Option<String>,

    /// Most memory and swap together; -1: unlimited swap [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, help_heading = "Limits")]
    pub memory_swap: Option<String>,

    /// Most CPU time, in CPUs: 1.5
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub cpus: Option<String>,

    /// Share of CPU time when there is not enough; 1024 is usual
    #[arg(short, long, value_name = "NUMBER", help_heading = "Limits")]
    pub cpu_shares: Option<u64>,

    /// Microseconds over which --cpu-quota is counted
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Limits")]
    pub cpu_period: Option<u64>,

    /// Most CPU time in each period; -1: unlimited
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true, help_heading = "Limits")]
    pub cpu_quota: Option<i64>,

    /// CPUs it may run on: 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,

    /// Memory nodes it may use: 0-1
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_mems: Option<String>,

    /// Share of the disks' time when there is not enough, 10 to 1000
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub blkio_weight: Option<u16>,

    /// Most processes and threads; -1: unlimited
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Limits")]
    pub pids_limit: Option<i64>,
}

macro_rules! members {
    ($act:ident) => {
        $act!(memory memory_reservation memory_swap cpus cpu_shares cpu_period cpu_quota cpuset_cpus cpuset_mems blkio_weight
            pids_limit)
    };
}

impl LimitFlags {
    /// As the record says it.
    pub fn asked(&self) -> Config {
        let quantity = |text: &Option<String>| text.clone().map(Quantity::Text);
        Config {
            memory: quantity(&self.memory),
            memory_reservation: quantity(&self.memory_reservation),
            memory_swap: quantity(&self.memory_swap),
            cpus: quantity(&self.cpus),
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            blkio_weight: self.blkio_weight,
            pids_limit: self.pids_limit,
            ..Config::default()
        }
    }
}

/// Their names in a record's `config`.
pub const MEMBERS: &[&str] = {
    macro_rules! names {
        ($($member:ident)*) => { &[$(stringify!($member)),*] };
    }
    members!(names)
};

/// Puts the limits `asked` has over those of `config`.
pub fn merge(config: &mut Config, asked: &Config) {
    macro_rules! wins {
        ($($member:ident)*) => { $(if asked.$member.is_some() { config.$member.clone_from(&asked.$member); })* };
    }
    members!(wins);
}

/// Makes the limits of `config` those of `other`, the missing ones too.
pub fn copy(config: &mut Config, other: &Config) {
    macro_rules! takes {
        ($($member:ident)*) => { $(config.$member.clone_from(&other.$member);)* };
    }
    members!(takes);
}

/// Sections of the specification's `linux.resources` that come from these flags.
pub const SECTIONS: [&str; 4] = ["memory", "cpu", "pids", "blockIO"];

/// What the limits of `config` alone become in `linux.resources`. They are checked, each by itself and together.
pub fn resources(store: &Store, config: &Config) -> Result<Extra> {
    let mut alone = Config { command: Some(vec!["true".to_owned()]), ..Config::default() };
    copy(&mut alone, config);
    let identity = identity(store, &"0".repeat(64), "limits");
    let (files, facts) = (UserFiles::default(), gather(&alone)?);
    let spec = oci::spec::generate(None, &alone, &files, &identity, &facts, &Machine { store })?.json()?;
    let of = |section: &str| spec["linux"]["resources"].get(section).cloned();
    Ok(SECTIONS.iter().filter_map(|section| Some(((*section).to_owned(), of(section)?))).collect())
}

/// The sections of a specification's resources with limits that came from other flags: what `old` has goes, what `new` has
/// comes, and what somebody wrote into the specification itself stays.
pub fn changed(resources: &Value, old: &Extra, new: &Extra) -> Extra {
    let mut changed = Extra::new();
    for section in SECTIONS {
        let members = |resources: &Extra| -> Extra {
            resources.get(section).and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let mut all = resources.get(section).and_then(Value::as_object).cloned().unwrap_or_default();
        for (member, _) in members(old) {
            all.shift_remove(&member);
        }
        all.extend(members(new));
        if !all.is_empty() {
            changed.insert(section.to_owned(), Value::Object(all));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_flags_say_is_changed() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let spec = json!({"memory": {"limit": 1, "swappiness": 5}, "pids": {"limit": 3}, "devices": [1]});
        let old = object(json!({"memory": {"limit": 1}, "pids": {"limit": 3}}));
        let new = object(json!({"memory": {"limit": 2, "swap": 4}, "cpu": {"shares": 6}}));
        let expected = json!({"memory": {"limit": 2, "swap": 4, "swappiness": 5}, "cpu": {"shares": 6}});
        assert_eq!(Value::Object(changed(&spec, &old, &new)), expected);
        assert_eq!(changed(&Value::Null, &old, &Extra::new()), Extra::new());
    }
}
