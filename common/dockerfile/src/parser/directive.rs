//! `# name=value` before everything else.

use crate::Problem;

const NAMES: [&str; 3] = ["check", "escape", "syntax"];

/// The directives of a file: once there was a line that is none, nothing is one any more.
#[derive(Default)]
pub struct Directives {
    seen: Vec<String>,
    done: bool,
}

pub struct Directive {
    /// In lower case.
    pub name: String,
    pub value: String,
}

impl Directive {
    pub fn escape(&self) -> Result<char, Problem> {
        match self.value.as_str() {
            "\\" => Ok('\\'),
            "`" => Ok('`'),
            other => Err(Problem::new(format!("the escape character {other:?} is neither \\ nor `"))),
        }
    }
}

impl Directives {
    pub fn read(&mut self, line: &str) -> Result<Option<Directive>, Problem> {
        if self.done {
            return Ok(None);
        }
        let Some(directive) = line.strip_prefix('#').and_then(name_and_value) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&directive.name) {
            return Err(Problem::new(format!("there are two directives {}", directive.name)));
        }
        self.seen.push(directive.name.clone());
        Ok(Some(directive))
    }
}

/// `name = value` of the names that there are.
pub fn name_and_value(comment: &str) -> Option<Directive> {
    let (name, value) = comment.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let value = value.trim();
    let known = NAMES.contains(&name.as_str()) && !value.is_empty();
    known.then(|| Directive { name, value: value.to_owned() })
}
