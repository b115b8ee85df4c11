//! Unit files as text (systemd.syntax(7)): sections, settings, lines that go on, words and their quoting.

use fault::{Fault, Result};
use std::fmt::Write;

/// What systemd itself takes of one line.
pub const MAX_LINE: usize = 1 << 20;
/// A file of settings for one container is small.
pub const MAX_FILE: usize = 1 << 20;
const MAX_SETTINGS: usize = 8192;
/// systemd's white space; there is more in Unicode.
const BLANK: [char; 4] = [' ', '\t', '\n', '\r'];

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub section: String,
    pub key: String,
    /// Lines joined, white space around it gone, nothing else undone.
    pub value: String,
    /// Where it begins, from 1.
    pub line: usize,
}

/// All assignments of a file, in order.
///
/// # Errors
/// Input, with the line's number, for what is neither comment, section nor assignment.
pub fn parse(text: &str) -> Result<Vec<Setting>> {
    if text.len() > MAX_FILE {
        return Err(Fault::input(format!("it is longer than {MAX_FILE} bytes")));
    }
    if let Some(line) = text.lines().position(|line| line.contains('\0')) {
        return Err(at(line + 1, Fault::input("there is a zero byte")));
    }
    let mut settings = Vec::new();
    let mut section: Option<String> = None;
    let mut whole = String::new();
    let mut began = 0;
    for (index, raw) in text.lines().enumerate() {
        let part = raw.trim_start_matches(BLANK);
        // Comments may stand between lines that belong together.
        if part.starts_with(['#', ';']) || (part.trim_end_matches(BLANK).is_empty() && whole.is_empty()) {
            continue;
        }
        if whole.is_empty() {
            began = index + 1;
        }
        whole.push_str(part);
        if goes_on(&whole) {
            whole.pop();
            whole.push(' ');
            continue;
        }
        let line = std::mem::take(&mut whole);
        assign(line.trim_matches(BLANK), began, &mut section, &mut settings)
            .map_err(|fault| at(began, fault))?;
        if settings.len() > MAX_SETTINGS {
            return Err(at(began, Fault::input(format!("there are more than {MAX_SETTINGS} settings"))));
        }
    }
    if !whole.is_empty() {
        assign(whole.trim_matches(BLANK), began, &mut section, &mut settings)
            .map_err(|fault| at(began, fault))?;
    }
    Ok(settings)
}

/// An error with the line it is about.
pub fn at(line: usize, fault: Fault) -> Fault {
    fault.within(format!("line {line}"))
}

/// An escaped backslash at the end is one, and no continuation.
fn goes_on(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn assign(
    line: &str,
    number: usize,
    section: &mut Option<String>,
    settings: &mut Vec<Setting>,
) -> Result<()> {
    if line.is_empty() {
        return Ok(());
    }
    if let Some(rest) = line.strip_prefix('[') {
        let name = rest
            .strip_suffix(']')
            .filter(|name| !name.is_empty() && !name.contains(['[', ']']) && !has_control(name))
            .ok_or_else(|| Fault::input(format!("\"{line}\" is not a section")).hint("[Container]"))?;
        *section = Some(name.to_owned());
        return Ok(());
    }
    let (key, value) = line.split_once('=').ok_or_else(|| {
        Fault::input(format!("\"{line}\" is neither a section, an assignment nor a comment"))
            .hint("Key=value; a line that goes on ends in a backslash")
    })?;
    let key = key.trim_end_matches(BLANK);
    if !is_key(key) {
        return Err(Fault::input(format!("\"{key}\" is not the name of a setting")));
    }
    let section = section
        .clone()
        .ok_or_else(|| Fault::input(format!("{key}= stands before the first section")).hint("[Container]"))?;
    settings.push(Setting {
        section,
        key: key.to_owned(),
        value: value.trim_matches(BLANK).to_owned(),
        line: number,
    });
    Ok(())
}

/// How settings are called.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

pub fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Whether a value, written as it is, comes back as it is.
pub fn is_plain(value: &str) -> bool {
    value.trim() == value && !has_control(value) && !value.ends_with('\\') && value.len() < MAX_LINE / 2
}

/// What a backslash does in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backslash {
    /// As in ExecStart=: C's escapes.
    Escapes,
    /// As in lists of names: nothing.
    Stands,
}

/// Splits at white space outside quotes, and takes the quotes away.
///
/// # Errors
/// Input for a quote that is not closed, or an escape there is not.
pub fn words(value: &str, backslash: Backslash) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = value.trim_start_matches(BLANK);
    while !rest.is_empty() {
        let (word, after) = word(rest, backslash)?;
        words.push(word);
        rest = after.trim_start_matches(BLANK);
    }
    Ok(words)
}

fn word(text: &str, backslash: Backslash) -> Result<(String, &str)> {
    let mut word: Vec<u8> = Vec::new();
    let mut quote = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match (quote, c) {
            (None, c) if BLANK.contains(&c) => break,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') if backslash == Backslash::Escapes => {
                rest = unescape(after, &mut word)?;
                continue;
            }
            _ => word.extend_from_slice(&rest.as_bytes()[..c.len_utf8()]),
        }
        rest = after;
    }
    if quote.is_some() {
        return Err(Fault::input(format!("a quote is not closed in: {text}")).hint("\\\" is a quote itself"));
    }
    let word = String::from_utf8(word)
        .map_err(|_| Fault::input(format!("escapes that are not UTF-8 in: {text}")))?;
    Ok((word, rest))
}

/// What follows a backslash.
fn unescape<'a>(text: &'a str, word: &mut Vec<u8>) -> Result<&'a str> {
    let wrong = || Fault::input(format!("there is no escape \\{text}")).hint("\\\\ is a backslash itself");
    let kind = text.chars().next().ok_or_else(wrong)?;
    let after = &text[kind.len_utf8()..];
    let number = |text: &'a str, digits: usize, radix: u32| {
        let (digits, after) = text.split_at_checked(digits)?;
        let number = digits.chars().all(|c| c.is_digit(radix)).then_some(digits)?;
        Some((u32::from_str_radix(number, radix).ok().filter(|number| *number > 0)?, after))
    };
    let byte = match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        's' => b' ',
        '\\' | '"' | '\'' => kind as u8,
        'x' => {
            let (value, after) = number(after, 2, 16).ok_or_else(wrong)?;
            word.push(value as u8);
            return Ok(after);
        }
        '0'..='7' => {
            let (value, after) = number(text, 3, 8).ok_or_else(wrong)?;
            word.push(u8::try_from(value).map_err(|_| wrong())?);
            return Ok(after);
        }
        'u' | 'U' => {
            let (value, after) = number(after, if kind == 'u' { 4 } else { 8 }, 16).ok_or_else(wrong)?;
            let c = char::from_u32(value).ok_or_else(wrong)?;
            word.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(after);
        }
        _ => return Err(wrong()),
    };
    word.push(byte);
    Ok(after)
}

/// A word as [`words`] with [`Backslash::Escapes`] reads it back. What is not a word's own, `%` and `$`, is the caller's.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '\\');
    // A semicolon by itself begins another command in ExecStart=, # a comment where a line goes on.
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with([';', '#']) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(text, "\\x{:02x}", c as u32);
            }
            // C1 controls, and white space that is more than one byte.
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// With systemd's specifiers and variables put out of action.
pub fn literal(text: &str) -> String {
    text.replace('%', "%%").replace('$', "$$")
}

/// A word of ExecStart= and the like: quoted, and nothing in it is a specifier or a variable.
pub fn exec_word(word: &str) -> String {
    quoted(&literal(word))
}

/// A command of ExecStart=. The program's path has no variables (systemd.service(5)), so its `$` stands for itself.
pub fn exec_line(words: &[String]) -> String {
    let mut words = words.iter();
    let mut line = words.next().map(|path| quoted(&path.replace('%', "%%"))).unwrap_or_default();
    for word in words {
        line.push(' ');
        line.push_str(&exec_word(word));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(text: &str) -> Vec<(String, String, usize)> {
        let of = |s: Setting| (format!("{}.{}", s.section, s.key), s.value, s.line);
        parse(text).unwrap().into_iter().map(of).collect()
    }

    #[test]
    fn lines_sections_and_comments() {
        let text = "# c\n\n[Unit]\n Description = a b \n[Container]\nExec=x \\\n  y \\\n# no part of it\n; nor this\n  z\nImage=a\\\\\nLast=b\\";
        let expected = [
            ("Unit.Description", "a b", 4),
            ("Container.Exec", "x  y  z", 6),
            ("Container.Image", "a\\\\", 11),
            ("Container.Last", "b", 12),
        ];
        let expected = expected.map(|(key, value, line)| (key.to_owned(), value.to_owned(), line));
        assert_eq!(settings(text), expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, words) in [
            ("[Unit]\nnonsense", 2, "neither"),
            ("A=b", 1, "before the first section"),
            ("[Unit\n", 1, "not a section"),
            ("[Unit]\n\nA b=c", 3, "name of a setting"),
            ("[Unit]\nA=\0", 2, "zero byte"),
        ] {
            let fault = parse(text).unwrap_err().to_string();
            assert!(fault.contains(&format!("line {line}")) && fault.contains(words), "{text:?}: {fault}");
        }
        assert!(parse(&"[A]\n".repeat(1 << 19)).is_err());
        assert!(parse(&format!("[A]\n{}", "B=\n".repeat(9000))).is_err());
    }

    #[test]
    fn words_as_systemd_splits_them() {
        let split = |text| words(text, Backslash::Escapes).unwrap();
        assert_eq!(
            split(r#"a "b c" 'd "e'  f"g h"i "" \x41\102\s\u00e4"#),
            ["a", "b c", "d \"e", "fg hi", "", "AB ä"]
        );
        assert_eq!(words(r#"a\nb "c\""#, Backslash::Stands).unwrap(), ["a\\nb", "c\\"]);
        for wrong in ["\"a", "'a", "\\q", "\\x0", "\\x00", "\\777", "\\uD800", "a\\"] {
            assert!(words(wrong, Backslash::Escapes).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn quoting_is_undone(word in any::<String>()) {
            prop_assume!(!word.contains('\0'));
            let text = quoted(&word);
            prop_assert!(!has_control(&text));
            prop_assert_eq!(words(&text, Backslash::Escapes).unwrap(), [word]);
        }

        #[test]
        fn a_quoted_list_is_one_line_of_a_file(list in proptest::collection::vec("[^\0]*", 1..5)) {
            let text = list.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
            let file = format!("[S]\nExec={text}\nNext=1\n");
            let settings = parse(&file).unwrap();
            prop_assert_eq!(settings.len(), 2);
            prop_assert_eq!(words(&settings[0].value, Backslash::Escapes).unwrap(), list);
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = parse(&text);
            let _ = words(&text, Backslash::Escapes);
            let _ = words(&text, Backslash::Stands);
        }
    }
}
