//! What the words of options mean.

use cli::{Fault, Result};

/// Longest text people are shown of a command.
const SHOWN: usize = 1000;

/// A command as one would type it.
pub fn line(words: &[String]) -> String {
    let line = words.iter().map(|word| cli::words::quoted(word)).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// `PATH[:TARGET]`. The target begins after the last colon.
pub fn input(text: &str) -> Result<(&str, Option<&str>)> {
    let (path, target) = match text.rsplit_once(':') {
        Some((path, target)) => (path, Some(target)),
        None => (text, None),
    };
    if path.is_empty() || target == Some("") {
        return Err(Fault::usage(format!("--input \"{text}\" is not of the form PATH[:TARGET]")));
    }
    Ok((path, target))
}

/// `SRC:DST`.
pub fn copy(text: &str) -> Result<(&str, &str)> {
    text.rsplit_once(':')
        .filter(|(source, destination)| !source.is_empty() && !destination.is_empty())
        .ok_or_else(|| Fault::usage(format!("--copy \"{text}\" is not of the form SRC:DST")))
}

/// `[ID:]TARGET`.
pub fn cache(text: &str) -> Result<(&str, &str)> {
    let (id, target) = text.rsplit_once(':').unwrap_or((text, text));
    if id.is_empty() || target.is_empty() {
        return Err(Fault::usage(format!("--cache \"{text}\" is not of the form [ID:]TARGET")));
    }
    Ok((id, target))
}

/// `-e`: those that have no value and are not set are left out.
///
/// # Errors
/// [`cli::Kind::Usage`] for what has no name.
pub fn environment(texts: &[String], find: impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), find(text)),
        };
        if name.is_empty() || text.contains('\0') {
            return Err(Fault::usage(format!("--env \"{text}\" is not of the form NAME[=VALUE]")));
        }
        variables.retain(|(known, _)| known != name);
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(variables)
}

/// A path from a directory on, `.` and `..` taken out by their names alone.
pub fn resolve(directory: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// A name as a pattern that fits it alone.
pub fn literal(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '!' | '#') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_targets() {
        assert_eq!(input("src").unwrap(), ("src", None));
        assert_eq!(input("a:b:/c").unwrap(), ("a:b", Some("/c")));
        assert_eq!(copy(".:/app/").unwrap(), (".", "/app/"));
        assert_eq!(cache("/root/.npm").unwrap(), ("/root/.npm", "/root/.npm"));
        assert_eq!(cache("npm:/root/.npm").unwrap(), ("npm", "/root/.npm"));
        for wrong in ["", ":", "a:", ":/a"] {
            assert!(input(wrong).is_err() && copy(wrong).is_err() && cache(wrong).is_err(), "{wrong}");
        }
        assert!(copy("a").is_err());
    }

    #[test]
    fn paths_are_resolved_by_name() {
        for (path, resolved) in
            [("src", "/w/src"), ("/a/./b//c/", "/a/b/c"), ("../../../x", "/x"), (".", "/w"), ("..", "/")]
        {
            assert_eq!(resolve("/w", path), resolved, "{path}");
        }
        assert_eq!(resolve("", "a"), "/a");
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let find = |name: &str| (name == "SET").then(|| "here".to_owned());
        let found = environment(&texts(&["A=1", "SET", "UNSET", "A=b=c"]), find).unwrap();
        let pairs: Vec<(&str, &str)> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("SET", "here"), ("A", "b=c")]);
        assert!(environment(&texts(&["=x"]), find).is_err());
        assert!(environment(&texts(&[""]), find).is_err());
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let words = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(line(&words(&["sh", "-c", "echo 'a' b"])), r"sh -c 'echo '\''a'\'' b'");
        assert!(line(&words(&["é".repeat(5000).as_str()])).len() < 2100);
    }
}
