//! `--name[=value]` between an instruction and its arguments.

use crate::{Problem, suggest};

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Given or not, or `=true`, `=false`.
    Switch,
    One,
    Many,
}

/// The flags an instruction knows, with what was given.
pub struct Flags(Vec<(&'static str, Vec<String>)>);

impl Flags {
    pub fn read(given: &[String], known: &[(&'static str, Kind)]) -> Result<Flags, Problem> {
        let mut flags: Vec<(&'static str, Vec<String>)> = Vec::new();
        for flag in given {
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.as_str(), None),
            };
            let bare = name.strip_prefix("--").unwrap_or(name);
            let Some((known_name, kind)) = known.iter().find(|(known, _)| *known == bare) else {
                let problem = Problem::new(format!("unknown flag: {}", crate::problem::shorten(name)));
                return Err(match suggest::nearest(bare, known.iter().map(|(name, _)| *name)) {
                    Some(meant) => problem.hint(format!("did you mean --{meant}?")),
                    None => problem,
                });
            };
            let value = match (kind, value) {
                (Kind::Switch, None) => "true".to_owned(),
                (Kind::Switch, Some(value)) => switch(name, value)?.to_owned(),
                (_, Some(value)) => value.to_owned(),
                (_, None) => return Err(Problem::new(format!("a value is missing: {name}="))),
            };
            match flags.iter_mut().find(|(seen, _)| seen == known_name) {
                None => flags.push((known_name, vec![value])),
                Some((_, values)) if *kind == Kind::Many => values.push(value),
                Some(_) => return Err(Problem::new(format!("{name} is given twice"))),
            }
        }
        Ok(Flags(flags))
    }

    pub fn many(&mut self, name: &str) -> Vec<String> {
        let found = self.0.iter_mut().find(|(known, _)| *known == name);
        found.map(|(_, values)| std::mem::take(values)).unwrap_or_default()
    }

    /// What is empty is as good as not given.
    pub fn one(&mut self, name: &str) -> Option<String> {
        self.many(name).pop().filter(|value| !value.is_empty())
    }

    pub fn switch(&mut self, name: &str) -> Option<bool> {
        self.many(name).pop().map(|value| value == "true")
    }
}

fn switch(name: &str, value: &str) -> Result<&'static str, Problem> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok("true"),
        "false" => Ok("false"),
        _ => Err(Problem::new(format!("{name} is true or false, not {:?}", crate::problem::shorten(value)))),
    }
}
