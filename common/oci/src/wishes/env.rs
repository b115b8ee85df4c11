//! Environment variables: `-e`, `--env-file`, merging by name.

use fault::{Fault, Result};
use std::collections::HashMap;

/// Lines of an `--env-file` as `NAME=value`, or `NAME` alone for one to take from the caller's environment.
///
/// docker's grammar: blank lines and lines beginning with `#` are passed over, leading white space is cut, quotes
/// are part of the value. Fails on names with white space and on lines without a name.
pub fn env_file(content: &str, path: &str) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    for (index, line) in content.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            let what = if name.is_empty() {
                "there is no name".to_owned()
            } else {
                format!("the name \"{name}\" has white space in it")
            };
            return Err(Fault::input(format!("{path}:{}: {what}", index + 1)));
        }
        if line.contains('=') {
            variables.push(line.to_owned());
        } else {
            variables.push(name.trim_end().to_owned());
        }
    }
    Ok(variables)
}

/// Checks one `-e`: `NAME=value` or `NAME`.
pub fn env(text: &str) -> Result<()> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    if name.is_empty() {
        return Err(Fault::input(format!("\"{text}\" is not an environment variable: there is no name")));
    }
    if text.contains('\0') {
        return Err(Fault::input(format!(
            "the environment variable {} holds a zero byte",
            name.replace('\0', "\\0")
        )));
    }
    Ok(())
}

/// Puts `NAME=value` over a variable of the same name, in its place; `NAME` alone takes the variable away.
pub fn set(environment: &mut Vec<String>, variable: &str) {
    let Some((name, _)) = variable.split_once('=') else {
        environment.retain(|present| name_of(present) != variable);
        return;
    };
    match environment.iter_mut().find(|present| name_of(present) == name) {
        Some(present) => variable.clone_into(present),
        None => environment.push(variable.to_owned()),
    }
}

/// As [`set`] for each of many: an image may have hundreds of thousands. `environment` has every name once.
pub fn set_all<'a>(environment: &mut Vec<String>, variables: impl IntoIterator<Item = &'a String>) {
    let mut places: HashMap<String, usize> =
        environment.iter().enumerate().map(|(place, text)| (name_of(text).to_owned(), place)).collect();
    let mut slots: Vec<Option<String>> = std::mem::take(environment).into_iter().map(Some).collect();
    for variable in variables {
        let name = name_of(variable);
        let place = places.get(name).copied();
        match (variable.contains('='), place) {
            (true, Some(place)) => slots[place] = Some(variable.clone()),
            (true, None) => {
                places.insert(name.to_owned(), slots.len());
                slots.push(Some(variable.clone()));
            }
            (false, Some(place)) => {
                places.remove(name);
                slots[place] = None;
            }
            (false, None) => {}
        }
    }
    environment.extend(slots.into_iter().flatten());
}

/// Whether there is a variable of this name.
pub fn has(environment: &[String], name: &str) -> bool {
    environment.iter().any(|present| name_of(present) == name)
}

/// Whether a variable has this name.
pub fn is_named(variable: &str, name: &str) -> bool {
    name_of(variable) == name
}

/// `NAME=value` with `$OTHER` and `${OTHER}` in its value replaced by what `environment` has under that name, or nothing.
pub fn expand(variable: &str, environment: &[String]) -> String {
    let Some((name, value)) = variable.split_once('=') else { return variable.to_owned() };
    let lookup = |wanted: &str| {
        environment
            .iter()
            .find_map(|present| present.split_once('=').filter(|(name, _)| *name == wanted))
            .map(|(_, v)| v)
    };
    let mut text = format!("{name}=");
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some((wanted, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            text.push_str(lookup(wanted).unwrap_or_default());
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            text.push('$');
            continue;
        }
        text.push_str(lookup(&rest[..end]).unwrap_or_default());
        rest = &rest[end..];
    }
    text + rest
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let text = "\u{feff}A=1\n# no\n\n  B=x y \nC\nD=\nE=\"q\"\nF=a=b\r\n";
        assert_eq!(env_file(text, "f").unwrap(), ["A=1", "B=x y ", "C", "D=", "E=\"q\"", "F=a=b"]);
        for wrong in ["=x", "A B=1", "A\tB"] {
            assert!(env_file(wrong, "f").is_err(), "{wrong}");
        }
        assert!(env_file("A=1\nB C=1", "list").unwrap_err().to_string().contains("list:2"));
    }

    #[test]
    fn merging_replaces_in_place() {
        let mut environment = vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        for variable in ["PATH=/x", "B=2", "A", "C", "D="] {
            set(&mut environment, variable);
        }
        assert_eq!(environment, ["PATH=/x", "B=2", "D="]);
        assert!(has(&environment, "D") && !has(&environment, "A"));
        let mut at_once = vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        set_all(&mut at_once, &["PATH=/x", "B=2", "A", "C", "D="].map(str::to_owned));
        assert_eq!(at_once, environment);
        set_all(&mut at_once, &["B", "B=3", "E=1", "E", "D=4"].map(str::to_owned));
        assert_eq!(at_once, ["PATH=/x", "D=4", "B=3"]);
        assert!(env("A=1").is_ok() && env("A").is_ok());
        assert!(env("=1").is_err() && env("").is_err() && env("A=\0").is_err());
    }

    #[test]
    fn values_are_made_of_others() {
        let environment = ["PATH=/bin".to_owned(), "A=1".to_owned()];
        for (text, expected) in [
            ("PATH=${PATH}:/x", "PATH=/bin:/x"),
            ("B=$A-$A$C.", "B=1-1."),
            ("B=$ ${A", "B=$ ${A"),
            ("B=", "B="),
            ("B=$", "B=$"),
        ] {
            assert_eq!(expand(text, &environment), expected);
        }
    }

    #[test]
    fn very_many_are_merged_in_no_time() {
        let variables: Vec<String> = (0..300_000).map(|n| format!("{n}=")).collect();
        let mut environment = Vec::new();
        let begun = std::time::Instant::now();
        set_all(&mut environment, &variables);
        assert_eq!(environment, variables);
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
