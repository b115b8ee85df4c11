//! Which images are listed.

use cli::{Fault, Result};
use serde_json::Value;
use store::Entry;

/// Names given as arguments; without any, every image.
pub struct Wanted(Vec<String>);

impl Wanted {
    pub fn parse(names: &[String]) -> Wanted {
        Wanted(names.to_vec())
    }

    pub fn holds(&self, entry: &Entry) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| names_of(entry).iter().any(|own| glob(name, own)))
    }
}

/// All filters of a command line.
#[derive(Debug, Default)]
pub struct Filters {
    references: Vec<String>,
    dangling: Option<bool>,
    labels: Vec<(String, Option<String>)>,
}

const KEYS: &str = "reference, dangling, label";

impl Filters {
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Fault::usage(format!("filter {text:?} is not KEY=VALUE")).hint(format!("keys: {KEYS}"))
            })?;
            match key.trim() {
                "reference" => filters.references.push(value.to_owned()),
                "dangling" => {
                    filters.dangling = Some(match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(Fault::usage(format!("filter dangling={value}: not true or false"))),
                    });
                }
                "label" => filters.labels.push(match value.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (value.to_owned(), None),
                }),
                key => {
                    return Err(
                        Fault::usage(format!("there is no filter {key:?}")).hint(format!("keys: {KEYS}"))
                    );
                }
            }
        }
        Ok(filters)
    }

    /// The filters that need no more than the name.
    pub fn hold_for_name(&self, entry: &Entry) -> bool {
        self.dangling.is_none_or(|dangling| dangling == entry.name().is_none())
            && (self.references.is_empty()
                || self.references.iter().any(|pattern| names_of(entry).iter().any(|own| glob(pattern, own))))
    }

    pub fn hold_for_config(&self, config: &Value) -> bool {
        let labels = config.pointer("/config/Labels");
        self.labels.iter().all(|(key, wanted)| {
            let value = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
            value.is_some_and(|value| wanted.as_deref().is_none_or(|wanted| wanted == value))
        })
    }
}

/// Everything an image can be called by: with and without tag, short and full.
fn names_of(entry: &Entry) -> Vec<String> {
    let Some(reference) = entry.reference() else {
        return entry.name().map(str::to_owned).into_iter().collect();
    };
    let mut names =
        vec![reference.to_string(), reference.familiar(), reference.name(), super::repository(&reference)];
    if let Some(short) = reference.path().strip_prefix("library/") {
        names.push(format!("{}/{short}", reference.domain()));
    }
    names
}

/// Shell patterns as Go's `path.Match` has them: `*` and `?` never stand for a slash, `[a-z]`, `[^a-z]`, `\` quotes.
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Where to go on when what follows the last `*` does not fit.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            retry = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(&pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        match retry {
            Some((after, from)) if text[from] != '/' => {
                retry = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|c| *c == '*')
}

/// The place in the pattern after what stands for this character.
fn one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' if c != '/' => Some(at + 1),
        '?' => None,
        '\\' => (*pattern.get(at + 1)? == c).then_some(at + 2),
        '[' => {
            let end = at + 1 + pattern[at + 1..].iter().position(|p| *p == ']')?;
            let (negated, first) = if pattern[at + 1] == '^' { (true, at + 2) } else { (false, at + 1) };
            let set = &pattern[first..end];
            let mut index = 0;
            let mut found = false;
            while index < set.len() {
                if set.get(index + 1) == Some(&'-') && index + 2 < set.len() {
                    found |= (set[index]..=set[index + 2]).contains(&c);
                    index += 3;
                } else {
                    found |= set[index] == c;
                    index += 1;
                }
            }
            (found != negated && c != '/').then_some(end + 1)
        }
        literal => (literal == c).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        for (pattern, text, fits) in [
            ("debian", "debian", true),
            ("deb*", "debian", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("*:1?", "x:12", true),
            ("*:1?", "x:1", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a\\*", "a*", true),
            ("[", "[", false),
            ("", "", true),
            ("**", "abc", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
