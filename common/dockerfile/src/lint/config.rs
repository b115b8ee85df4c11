//! `# check=skip=Rule,Rule;error=true;experimental=all`, before a file or an instruction.

use super::{Finding, Rule};
use crate::Problem;
use crate::parser::name_and_value;

/// Which rules count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    skip: Names,
    experimental: Names,
    pub error: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    some: Vec<String>,
}

impl Names {
    fn parse(text: &str) -> Names {
        if text.trim() == "all" {
            return Names { all: true, some: Vec::new() };
        }
        Names { all: false, some: text.split(',').map(|name| name.trim().to_owned()).collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.some.iter().any(|some| some == name)
    }
}

impl Config {
    pub fn parse(text: &str) -> Result<Config, Problem> {
        let mut config = Config::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for option in text.trim().splitn(3, ';') {
            let invalid = || {
                Problem::new(format!("invalid check option {:?}", crate::problem::shorten(option)))
                    .hint("# check=skip=Rule,Rule;error=true;experimental=all")
            };
            let (name, value) = option.split_once('=').ok_or_else(invalid)?;
            match name.trim() {
                "skip" => config.skip = Names::parse(value),
                "experimental" => config.experimental = Names::parse(value),
                "error" => config.error = crate::mount::boolean(value.trim()).ok_or_else(invalid)?,
                _ => return Err(invalid()),
            }
        }
        Ok(config)
    }

    /// Of the comments above an instruction: the first directive counts, a malformed one does not.
    fn of_comments(comments: &[String]) -> Option<Config> {
        let directive =
            comments.iter().filter_map(|comment| name_and_value(comment)).find(|d| d.name == "check")?;
        Config::parse(directive.value.split(' ').next()?).ok()
    }

    /// Whether a finding counts for an instruction with such comments.
    pub fn wants(&self, finding: &Finding, comments: &[String]) -> bool {
        let of_comments = Config::of_comments(comments);
        let mut configs = std::iter::once(self).chain(of_comments.as_ref());
        let rule = finding.rule;
        if Rule::ALL.iter().any(|known| known.name() == rule && known.is_experimental()) {
            return configs.any(|config| config.experimental.has(rule));
        }
        !configs.any(|config| config.skip.has(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lines;

    #[test]
    fn options() {
        let config = Config::parse("skip=A, B;error=true").unwrap();
        assert!(config.error && config.skip.has("A") && config.skip.has("B") && !config.skip.has("C"));
        assert!(Config::parse("skip=all").unwrap().skip.has("anything"));
        assert_eq!(Config::parse("").unwrap(), Config::default());
        for bad in ["skip", "error=maybe", "what=ever", "error=true;x=1"] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn comments_add_to_the_file() {
        let casing = Rule::StageNameCasing.finding(Lines::one(1), "");
        let config = Config::default();
        assert!(config.wants(&casing, &[]));
        assert!(!config.wants(&casing, &["check=skip=StageNameCasing for now".to_owned()]));
        assert!(config.wants(&casing, &["check=nonsense".to_owned()]));
        let experimental = Rule::InvalidDefinitionDescription.finding(Lines::one(1), "");
        assert!(!config.wants(&experimental, &[]));
        assert!(Config::parse("experimental=all").unwrap().wants(&experimental, &[]));
        assert!(config.wants(&experimental, &["check=experimental=InvalidDefinitionDescription".to_owned()]));
    }
}
