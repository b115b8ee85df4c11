//! `--filter`.

use cli::words::{LabelFilters, boolean, name_matches};
use cli::{Fault, Result};
use network::{DEFAULT, Info};

/// What a network must be like.
#[derive(Debug, Default)]
pub struct Filters {
    names: Vec<String>,
    drivers: Vec<String>,
    labels: LabelFilters,
    dangling: Option<bool>,
    builtin: Option<bool>,
    scopes: Vec<String>,
}

impl Filters {
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            let wrong = || {
                Fault::usage(format!("there is no filter {text:?}")).hint(
                    "name=, id=, driver=, label=KEY[=VALUE], label!=KEY[=VALUE], dangling=true|false, type=custom|builtin, scope=local|global|swarm",
                )
            };
            let (key, value) = text.split_once('=').ok_or_else(wrong)?;
            match key {
                // A network's name is its id.
                "name" | "id" => filters.names.push(value.to_owned()),
                "driver" => filters.drivers.push(value.to_owned()),
                "label" | "label!" => filters.labels.push(value, key == "label"),
                "dangling" => filters.dangling = Some(boolean(value).ok_or_else(wrong)?),
                "type" if value == "builtin" => filters.builtin = Some(true),
                "type" if value == "custom" => filters.builtin = Some(false),
                "scope" if matches!(value, "local" | "global" | "swarm") => {
                    filters.scopes.push(value.to_owned());
                }
                _ => return Err(wrong()),
            }
        }
        Ok(filters)
    }

    pub fn hold(&self, info: &Info) -> bool {
        let file = &info.file;
        (self.names.is_empty() || self.names.iter().any(|part| name_matches(&file.name, part)))
            && (self.drivers.is_empty() || self.drivers.iter().any(|driver| is_driver(info, driver)))
            && self.dangling.is_none_or(|wanted| wanted == (!info.in_use && file.name != DEFAULT))
            && self.builtin.is_none_or(|wanted| wanted == (file.name == DEFAULT))
            // Ours are this machine's, all of them.
            && (self.scopes.is_empty() || self.scopes.iter().any(|scope| scope == "local"))
            && self.labels.hold(&file.labels)
    }
}

/// A network of CNI plugins has their types as drivers, too.
fn is_driver(info: &Info, driver: &str) -> bool {
    let plugins = info.file.cni.as_ref().and_then(|list| list["plugins"].as_array());
    info.file.driver == driver || plugins.into_iter().flatten().any(|plugin| plugin["type"] == driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::File;

    #[test]
    fn filters() {
        let text = r#"{"name":"web","driver":"cni","labels":{"a":"b"},"cni":{"plugins":[{"type":"ptp"}]}}"#;
        let file: File = serde_json::from_str(text).unwrap();
        let definition = file.clone().check().unwrap();
        let info = Info { file, definition, active: false, in_use: false, containers: Vec::new() };
        let holds = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Filters::parse(&texts).unwrap().hold(&info)
        };
        assert!(holds(&[]));
        assert!(holds(&["name=eb", "driver=ptp", "label=a", "label=a=b", "label!=c", "dangling=true"]));
        assert!(holds(&["name=x", "name=^web$", "driver=cni", "type=custom"]));
        assert!(
            holds(&["scope=local"]) && holds(&["scope=swarm", "scope=local"]) && !holds(&["scope=swarm"])
        );
        for no in
            ["name=^eb", "name=we$", "driver=x", "label=a=c", "label!=a", "dangling=false", "type=builtin"]
        {
            assert!(!holds(&[no]), "{no}");
        }
        for bad in ["colour=red", "name", "dangling=maybe", "type=other", "scope=other"] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
