//! `%` and `$` in a quadlet's values. What systemd knows before anything runs is put in; the rest is an error, since a record
//! has no such things.

use fault::{Fault, Result};

/// What the file's name tells.
#[derive(Clone, Debug, Default)]
pub struct Specifiers {
    /// Of the unit, without its suffix; `None` for what came in by stdin.
    pub name: Option<String>,
}

impl Specifiers {
    /// A word as the command line would have it: `%%` and `$$` are the characters themselves.
    ///
    /// # Errors
    /// Input for what is known only when the unit is started.
    pub fn expand(&self, word: &str) -> Result<String> {
        let mut text = String::with_capacity(word.len());
        let mut rest = word;
        while let Some(found) = rest.find(['%', '$']) {
            text.push_str(&rest[..found]);
            let after = &rest[found + 1..];
            let next = after.chars().next();
            rest = match (rest.as_bytes()[found], next) {
                (b'%', Some(letter)) => {
                    text.push_str(&self.value(letter, word)?);
                    &after[letter.len_utf8()..]
                }
                (b'$', Some('$')) => {
                    text.push('$');
                    &after[1..]
                }
                (b'$', Some('{')) => return Err(variable(word)),
                // systemd puts a variable in only where it is the whole word.
                (b'$', Some(c)) if found == 0 && word.len() == rest.len() && is_name(after, c) => {
                    return Err(variable(word));
                }
                (other, _) => {
                    text.push(other as char);
                    after
                }
            };
        }
        text.push_str(rest);
        Ok(text)
    }

    fn value(&self, letter: char, word: &str) -> Result<String> {
        let name = || {
            self.name.clone().ok_or_else(|| {
                Fault::input(format!("%{letter} in \"{word}\" is the unit's name, which stdin does not have"))
                    .hint("--read FILE")
            })
        };
        Ok(match letter {
            '%' => "%".to_owned(),
            'n' => format!("{}.service", name()?),
            'N' => name()?,
            'p' => name()?.split('@').next().unwrap_or_default().to_owned(),
            'i' => match name()?.split_once('@') {
                Some((_, instance)) if !instance.is_empty() => instance.to_owned(),
                _ => return Err(unknown(letter, word)),
            },
            // Those of the system's manager (systemd.unit(5)).
            't' => "/run".to_owned(),
            'S' => "/var/lib".to_owned(),
            'C' => "/var/cache".to_owned(),
            'L' => "/var/log".to_owned(),
            'E' => "/etc".to_owned(),
            'T' => "/tmp".to_owned(),
            'V' => "/var/tmp".to_owned(),
            'h' => "/root".to_owned(),
            'u' | 'g' => "root".to_owned(),
            'U' | 'G' => "0".to_owned(),
            _ => return Err(unknown(letter, word)),
        })
    }
}

fn is_name(text: &str, first: char) -> bool {
    !first.is_ascii_digit() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn unknown(letter: char, word: &str) -> Fault {
    Fault::input(format!("%{letter} in \"{word}\" is known only when the unit is started"))
        .hint("write its value; %% is a % itself")
}

fn variable(word: &str) -> Fault {
    Fault::input(format!("the variable in \"{word}\" is known only when the unit is started"))
        .hint("write its value; $$ is a $ itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_put_in() {
        let specifiers = Specifiers { name: Some("web@a".to_owned()) };
        for (word, expected) in [
            ("100%%", "100%"),
            ("%n %N %p %i", "web@a.service web@a web a"),
            ("%t/x", "/run/x"),
            ("echo $HOME", "echo $HOME"),
            ("$$HOME $${A}", "$HOME ${A}"),
            ("a=$B", "a=$B"),
            ("$", "$"),
            ("$1", "$1"),
            ("%", "%"),
        ] {
            assert_eq!(specifiers.expand(word).unwrap(), expected, "{word}");
        }
        for word in ["%H", "${A}", "x${A}", "$HOME", "%ä"] {
            assert!(specifiers.expand(word).is_err(), "{word}");
        }
        assert!(Specifiers::default().expand("%N").is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_literal_stays_one(word in proptest::prelude::any::<String>()) {
            let expanded = Specifiers::default().expand(&crate::syntax::literal(&word)).unwrap();
            proptest::prop_assert_eq!(expanded, word);
        }
    }
}
