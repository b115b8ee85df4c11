//! `--filter`.

use cli::words::{LabelFilters, boolean, name_matches};
use cli::{Fault, Result};
use volume::Info;

/// What a volume must be like.
#[derive(Debug, Default)]
pub struct Filters {
    names: Vec<String>,
    drivers: Vec<String>,
    labels: LabelFilters,
    dangling: Option<bool>,
    anonymous: Option<bool>,
}

impl Filters {
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            let wrong = || {
                Fault::usage(format!("there is no filter {text:?}"))
                    .hint("name=, driver=, label=KEY[=VALUE], label!=KEY[=VALUE], dangling=true|false, anonymous=true|false")
            };
            let (key, value) = text.split_once('=').ok_or_else(wrong)?;
            match key {
                "name" => filters.names.push(value.to_owned()),
                "driver" => filters.drivers.push(value.to_owned()),
                "label" | "label!" => filters.labels.push(value, key == "label"),
                "dangling" => filters.dangling = Some(boolean(value).ok_or_else(wrong)?),
                "anonymous" => filters.anonymous = Some(boolean(value).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        }
        Ok(filters)
    }

    pub fn hold(&self, info: &Info, is_used: bool) -> bool {
        (self.names.is_empty() || self.names.iter().any(|part| name_matches(&info.name, part)))
            && (self.drivers.is_empty() || self.drivers.contains(&info.driver))
            && self.dangling.is_none_or(|wanted| wanted != is_used)
            && self.anonymous.is_none_or(|wanted| wanted == info.anonymous)
            && self.labels.hold(&info.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        let info = Info { name: "data".into(), driver: "local".into(), labels, ..Info::default() };
        let holds = |texts: &[&str], used| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Filters::parse(&texts).unwrap().hold(&info, used)
        };
        assert!(holds(&[], true));
        assert!(holds(
            &["name=at", "driver=local", "label=a", "label=a=b", "label!=c", "dangling=true"],
            false
        ));
        assert!(holds(&["name=x", "name=^data$", "anonymous=false", "dangling=0"], true));
        for no in
            ["name=^at", "name=at$", "driver=x", "label=a=c", "label!=a", "dangling=false", "anonymous=1"]
        {
            assert!(!holds(&[no], false), "{no}");
        }
        for bad in ["colour=red", "name", "dangling=maybe"] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
