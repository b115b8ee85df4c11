//! Other projects' data, read from a checkout that `scripts/corpora` is told of. None of it is part of this project.
#![allow(clippy::print_stdout, reason = "how much was right is for somebody to read")]

mod checks;

use crate::parser::{Arguments, Node};
use crate::shell::Lex;
use crate::{parse, text};
use std::path::{Path, PathBuf};

/// The folder `frontend/dockerfile` of a checkout of moby/buildkit.
fn folder() -> PathBuf {
    let checkout = std::env::var_os("STAVES_CORPORA").expect("STAVES_CORPORA is a checkout of moby/buildkit");
    Path::new(&checkout).join("frontend/dockerfile")
}

fn directories(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// What was tried, and what came out other than it should.
fn report(name: &str, tried: usize, wrong: &[String]) {
    println!("{name}: {} of {tried}", tried - wrong.len());
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

/// An instruction as BuildKit's `Node.Dump` writes it.
fn dump(node: &Node) -> String {
    let mut parts = vec![node.keyword.to_lowercase()];
    if !node.flags.is_empty() {
        parts.push(text::quoted_list(&node.flags));
    }
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => {
            parts.extend(words.iter().map(|word| text::quote(word)));
        }
        Arguments::Pairs(pairs) => {
            for (name, value, equals) in pairs {
                parts.extend([name.as_str(), value, if *equals { "=" } else { "" }].map(text::quote));
            }
        }
        Arguments::Nested(node) => parts.push(format!("({})", dump(node))),
    }
    parts.join(" ").trim().to_owned()
}

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn parser() {
    let mut wrong = Vec::new();
    let directories = directories(&folder().join("parser/testfiles"));
    for directory in &directories {
        let dockerfile = std::fs::read(directory.join("Dockerfile")).unwrap();
        let expected = std::fs::read_to_string(directory.join("result")).unwrap();
        let dumped = match parse(&dockerfile) {
            Ok(file) => {
                let nodes: Vec<String> = file.nodes.iter().map(|node| format!("({})", dump(node))).collect();
                nodes.join("\n")
            }
            Err(problem) => problem.to_string(),
        };
        if dumped.trim() != expected.trim() {
            wrong.push(format!("{}:\n{dumped}\ninstead of\n{expected}", directory.display()));
        }
    }
    report("parser/testfiles", directories.len(), &wrong);
}

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn parser_negative() {
    let directories = directories(&folder().join("parser/testfiles-negative"));
    let is_taken = |path: &&PathBuf| parse(&std::fs::read(path.join("Dockerfile")).unwrap()).is_ok();
    let wrong: Vec<String> = directories.iter().filter(is_taken).map(|p| p.display().to_string()).collect();
    report("parser/testfiles-negative", directories.len(), &wrong);
}

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn variables() {
    let environment = ["PWD=/home", "SHELL=bash", "KOREAN=한국어", "NULL="].map(str::to_owned).to_vec();
    let table = std::fs::read_to_string(folder().join("shell/envVarTest")).unwrap();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [platform, source, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        // The others are of Windows.
        if !matches!(platform, "A" | "U") {
            continue;
        }
        tried += 1;
        let expanded = Lex::new('\\').word(source, &environment);
        let expanded = expanded.map_or_else(|_| "error".to_owned(), |word| word.text);
        if expanded != expected {
            wrong.push(format!("{source}: {expanded} instead of {expected}"));
        }
    }
    report("shell/envVarTest", tried, &wrong);
}

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn words() {
    let table = std::fs::read_to_string(folder().join("shell/wordsTest")).unwrap();
    let mut environment: Vec<String> = Vec::new();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        if let Some(variable) = line.strip_prefix("ENV ") {
            environment.push(variable.trim_start_matches(' ').to_owned());
            continue;
        }
        let (source, expected) = line.split_once('|').unwrap();
        let expected: Vec<&str> = expected.trim_start_matches(' ').split(',').collect();
        tried += 1;
        let found = Lex::new('\\').words(source.trim(), &environment);
        let found = found.map_or_else(|_| vec!["error".to_owned()], |(words, _)| words);
        if found != expected {
            wrong.push(format!("{source}: {found:?} instead of {expected:?}"));
        }
    }
    report("shell/wordsTest", tried, &wrong);
}

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn lines() {
    let dockerfile = std::fs::read(folder().join("parser/testfile-line/Dockerfile")).unwrap();
    let lines: Vec<(u32, u32)> =
        parse(&dockerfile).unwrap().nodes.iter().map(|node| (node.lines.first, node.lines.last)).collect();
    assert_eq!(lines, [(5, 5), (11, 12), (17, 31)]);
    println!("parser/testfile-line: 3 of 3");
}

/// A string of Go's that is one of JSON's, too, and what follows it.
fn go_string(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\n', '\t', ',', ':']);
    let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let string = strings.next()?.ok()?;
    Some((string, &text[strings.byte_offset()..]))
}

/// The strings of the literal of a member, keys and values one after the other.
fn go_strings(entry: &str, member: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let Some((_, mut rest)) = entry.split_once(member).and_then(|(_, rest)| rest.split_once('{')) else {
        return strings;
    };
    // Nothing: what is found is another member's.
    if entry.split_once(member).is_some_and(|(_, rest)| rest.trim_start().starts_with("nil")) {
        return strings;
    }
    // The members of a set are empty structures.
    rest = rest.strip_prefix('}').map_or(rest, |rest| rest.trim_start_matches('{'));
    while let Some((string, after)) = go_string(rest) {
        strings.push(string);
        rest = after.trim_start_matches([':', ' ']).trim_start_matches("{}");
    }
    strings
}

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn matches() {
    let go = std::fs::read_to_string(folder().join("shell/lex_test.go")).unwrap();
    let table = go.split_once("func TestProcessWithMatches(").unwrap().1;
    let table = &table[..table.find("\nfunc ").unwrap()];
    let mut wrong = Vec::new();
    let mut tried = 0;
    for entry in table.split("\n\t\t\tinput:").skip(1) {
        let entry = &entry[..entry.find("\n\t\t}").unwrap()];
        let (input, rest) = go_string(entry).unwrap();
        let environment: Vec<String> =
            go_strings(rest, "envs:").chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect();
        let expected = rest.split_once("expected:").and_then(|(_, rest)| go_string(rest));
        let expected = if rest.contains("expectedErr: true") || rest.contains("expectedErr:  true") {
            None
        } else {
            Some(expected.unwrap().0)
        };
        tried += 1;
        let expanded = Lex::new('\\').word(&input, &environment).ok();
        let names = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        let same_names = expanded.as_ref().is_none_or(|word| {
            names(&word.used) == sorted(go_strings(rest, "\tmatches:"))
                && names(&word.unset) == sorted(go_strings(rest, "unmatched:"))
        });
        if expanded.as_ref().map(|word| &word.text) != expected.as_ref() || !same_names {
            wrong.push(format!("{input}: {expanded:?} instead of {expected:?}"));
        }
    }
    report("shell/lex_test.go, TestProcessWithMatches", tried, &wrong);
}

fn sorted(mut strings: Vec<String>) -> Vec<String> {
    strings.sort();
    strings
}

/// What keeps a Dockerfile from being read, planned and resolved, all of its stages.
fn refusal(text: &[u8]) -> Option<crate::Problem> {
    let platform = oci::Platform::parse("linux/amd64").unwrap();
    let request = crate::Request::new(platform.clone(), platform);
    let facts = crate::lint::Facts { is_ignored: &|_| false, image: &|_, _| None, all_stages: true };
    match parse(text) {
        Ok(file) => crate::check(&file, &request, &facts).problem,
        Err(problem) => Some(problem),
    }
}

/// What is refused is printed, for somebody to look at.
fn report_refused(name: &str, tried: usize, refused: &[String]) {
    println!("{name}: {} of {tried} taken", tried - refused.len());
    for refused in refused {
        println!("  {refused}");
    }
    assert!(tried > 0 && refused.len() * 9 <= tried, "more is refused than can be right");
}

/// The Dockerfiles of BuildKit's tests of whole builds, as far as they stand in its files as they are.
#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn builds() {
    let mut tried = 0;
    let mut refused = Vec::new();
    for path in directories(&folder()).iter().filter(|path| path.to_string_lossy().ends_with("_test.go")) {
        let go = std::fs::read_to_string(path).unwrap();
        for text in
            go.split('`').skip(1).step_by(2).filter(|text| text.contains("FROM ") && !text.contains("%s"))
        {
            tried += 1;
            if let Some(problem) = refusal(text.as_bytes()) {
                refused.push(format!("{}: {problem}", path.file_name().unwrap().display()));
            }
        }
    }
    report_refused("Dockerfiles of *_test.go", tried, &refused);
}

/// Everything below a directory that is called a Dockerfile.
#[test]
#[ignore = "needs a directory with Dockerfiles: scripts/corpora"]
fn dockerfiles() {
    let mut open =
        vec![PathBuf::from(std::env::var_os("STAVES_CORPORA").expect("STAVES_CORPORA is a directory"))];
    let mut tried = 0;
    let mut refused = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.is_symlink() {
            open.extend(directories(&path));
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_one = name == "Dockerfile" || name.starts_with("Dockerfile.") || name.ends_with(".Dockerfile");
        if !is_one || name.ends_with("ignore") || !path.is_file() {
            continue;
        }
        tried += 1;
        if let Some(problem) = refusal(&std::fs::read(&path).unwrap()) {
            refused.push(format!("{}: {problem}", path.display()));
        }
    }
    report_refused("Dockerfiles", tried, &refused);
}
