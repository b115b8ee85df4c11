//! The tables of github.com/moby/patternmatcher, read from a checkout (`scripts/corpora`).

use super::rules::{Rules, clean};
use regex_lite::Regex;
use std::io::Write;

/// What a string of Go's source stands for, as far as the tables go.
fn text(quoted: &str) -> String {
    let mut out = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        out.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    out
}

#[test]
#[ignore = "takes a checkout of github.com/moby/patternmatcher: scripts/corpora patternmatcher DIRECTORY"]
fn tables_of_docker() {
    let dir = std::env::var("STAVES_CORPORA").expect("STAVES_CORPORA names a checkout");
    let source = std::fs::read_to_string(format!("{dir}/patternmatcher_test.go")).unwrap();
    let string = r#""((?:[^"\\]|\\.)*)""#;
    let single = Regex::new(&format!(
        r"^\s*\{{{string}, {string}, (true|false)(?:, (nil|filepath\.ErrBadPattern))?\}},"
    ))
    .unwrap();
    let several = Regex::new(&format!(r"^\s*\{{\[\]string\{{(.*)\}}, {string}, (true|false)\}},")).unwrap();
    let strings = Regex::new(string).unwrap();
    let (mut right, mut wrong, mut unreadable) = (0, Vec::new(), 0);
    for line in source.lines() {
        let (patterns, path, fits, is_bad) = if let Some(row) = single.captures(line) {
            let is_bad = row.get(4).is_some_and(|end| end.as_str() != "nil");
            (vec![text(&row[1])], text(&row[2]), &row[3] == "true", is_bad)
        } else if let Some(row) = several.captures(line) {
            let patterns = strings.captures_iter(&row[1]).map(|string| text(&string[1])).collect();
            (patterns, text(&row[2]), &row[3] == "true", false)
        } else {
            unreadable += usize::from(line.trim_start().starts_with("{\"") && line.contains("true,"));
            continue;
        };
        let path = clean(path.as_bytes());
        // The root is no path a context has.
        if path == b"/" {
            continue;
        }
        let found = Rules::new(&patterns).map(|rules| rules.find(&path).is_some());
        if found.as_ref().map_or(is_bad, |found| !is_bad && *found == fits) {
            right += 1;
        } else {
            wrong.push(line.trim().to_owned());
        }
    }
    let mut out = std::io::stderr().lock();
    writeln!(out, "patternmatcher: {right} rows right, {} wrong, {unreadable} not understood", wrong.len())
        .unwrap();
    for line in &wrong {
        writeln!(out, "  {line}").unwrap();
    }
    assert!(wrong.is_empty() && unreadable == 0 && right > 100);
}
