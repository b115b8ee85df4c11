//! `--health-*`: how to find out whether the container does what it is there for.

use cli::{Fault, Result};
use record::{Healthcheck, Quantity};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct HealthFlags {
    /// Check its health with this command, run by the image's shell in the container
    #[arg(long, value_name = "COMMAND", help_heading = "Health")]
    pub health_cmd: Option<String>,

    /// Time between checks: 30s, 1m30s
    #[arg(long, value_name = "TIME", help_heading = "Health")]
    pub health_interval: Option<String>,

    /// A check that takes longer has failed
    #[arg(long, value_name = "TIME", help_heading = "Health")]
    pub health_timeout: Option<String>,

    /// So many failures one after another make it unhealthy
    #[arg(long, value_name = "NUMBER", help_heading = "Health")]
    pub health_retries: Option<u32>,

    /// Failures so soon after the start do not count
    #[arg(long, value_name = "TIME", help_heading = "Health")]
    pub health_start_period: Option<String>,

    /// Time between checks in that period
    #[arg(long, value_name = "TIME", help_heading = "Health")]
    pub health_start_interval: Option<String>,

    /// What to do when it becomes unhealthy: none, kill, restart, stop
    #[arg(long, value_name = "ACTION", help_heading = "Health")]
    pub health_on_failure: Option<String>,

    /// Check nothing, whatever the image says
    #[arg(long, help_heading = "Health")]
    pub no_healthcheck: bool,
}

impl HealthFlags {
    /// What the flags alone ask for.
    pub fn asked(&self) -> Result<Option<Healthcheck>> {
        let time = |text: &Option<String>| text.clone().map(Quantity::Text);
        let asked = Healthcheck {
            // docker takes an empty one for none given.
            test: match self.health_cmd.as_deref() {
                Some(text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text.to_owned()],
                _ => Vec::new(),
            },
            interval: time(&self.health_interval),
            timeout: time(&self.health_timeout),
            retries: self.health_retries,
            start_period: time(&self.health_start_period),
            start_interval: time(&self.health_start_interval),
            on_failure: self.health_on_failure.clone(),
            extra: record::Extra::default(),
        };
        match (self.no_healthcheck, asked == Healthcheck::default()) {
            (true, false) => {
                Err(Fault::usage("--no-healthcheck and other --health flags exclude each other"))
            }
            (true, true) => Ok(Some(Healthcheck { test: vec!["NONE".to_owned()], ..asked })),
            (false, true) => Ok(None),
            (false, false) => Ok(Some(asked)),
        }
    }
}

/// Puts `asked` over what a record has: each member that is set wins.
pub fn merge(present: &mut Option<Healthcheck>, asked: Option<Healthcheck>) {
    let Some(asked) = asked else { return };
    let present = present.get_or_insert_default();
    macro_rules! wins {
        ($($member:ident)*) => { $(if asked.$member.is_some() { present.$member = asked.$member; })* };
    }
    if !asked.test.is_empty() {
        present.test = asked.test;
    }
    wins!(interval timeout retries start_period start_interval on_failure);
}

/// The flags that say what a record's health check says, for `ctr-run --show`. One that no flag can say (`CMD`) is left out: only
/// flags come here.
pub fn words(check: &Healthcheck) -> Vec<String> {
    let mut words = Vec::new();
    let mut flag = |name: &str, value: String| words.extend([format!("--health-{name}"), value]);
    let time = |quantity: &Quantity| match quantity {
        Quantity::Integer(number) => number.to_string(),
        Quantity::Float(number) => number.to_string(),
        Quantity::Text(text) => text.clone(),
    };
    if let [kind, text] = check.test.as_slice()
        && kind == "CMD-SHELL"
    {
        flag("cmd", text.clone());
    }
    let times = [
        ("interval", &check.interval),
        ("timeout", &check.timeout),
        ("start-period", &check.start_period),
        ("start-interval", &check.start_interval),
    ];
    for (name, value) in times {
        if let Some(value) = value {
            flag(name, time(value));
        }
    }
    if let Some(retries) = check.retries {
        flag("retries", retries.to_string());
    }
    if let Some(action) = &check.on_failure {
        flag("on-failure", action.clone());
    }
    if check.test == ["NONE"] {
        words.push("--no-healthcheck".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_health_check_is_changed_member_by_member() {
        let record = json!({"test": ["CMD", "a"], "interval": 5, "retries": 2, "later": 1});
        let merged = |flags: HealthFlags| {
            let mut present: Option<Healthcheck> = serde_json::from_value(record.clone()).unwrap();
            merge(&mut present, flags.asked().unwrap());
            serde_json::to_value(present).unwrap()
        };
        let interval = HealthFlags { health_interval: Some("9s".into()), ..HealthFlags::default() };
        assert_eq!(
            merged(interval),
            json!({"test": ["CMD", "a"], "interval": "9s", "retries": 2, "later": 1})
        );
        let none = HealthFlags { no_healthcheck: true, ..HealthFlags::default() };
        assert_eq!(merged(none)["test"], json!(["NONE"]));
        assert_eq!(merged(HealthFlags::default()), record);
    }

    #[test]
    fn words_are_the_flags() {
        let check = json!({"test": ["CMD-SHELL", "a b"], "interval": "9s", "timeout": 2, "retries": 1, "on_failure": "stop"});
        let check: Healthcheck = serde_json::from_value(check).unwrap();
        let wanted = "--health-cmd|a b|--health-interval|9s|--health-timeout|2|--health-retries|1|--health-on-failure|stop";
        assert_eq!(words(&check).join("|"), wanted);
    }
}
