//! BuildKit's own test data, read from a checkout that `scripts/corpora` is told of. None of it is part of this project.

use crate::parser::{Arguments, Node};
use crate::shell::Lex;
use crate::{parse, text};
use std::fmt::Write;
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
    let mut dumped = node.keyword.to_lowercase();
    if !node.flags.is_empty() {
        let _ = write!(dumped, " {}", text::quoted_list(&node.flags));
    }
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => {
            words.iter().for_each(|word| dumped += &format!(" {}", text::quote(word)));
        }
        Arguments::Pairs(pairs) => {
            for (name, value, equals) in pairs {
                let equals = if *equals { "=" } else { "" };
                for word in [name, value, equals] {
                    dumped += &format!(" {}", text::quote(word));
                }
            }
        }
        Arguments::Nested(node) => dumped += &format!(" ({})", dump(node)),
    }
    dumped.trim().to_owned()
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
            Ok(file) => file.nodes.iter().map(|node| format!("({})\n", dump(node))).collect(),
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

/// Everything else there that is a Dockerfile can be read, planned and resolved, or is refused with a line.
#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn lines() {
    let dockerfile = std::fs::read(folder().join("parser/testfile-line/Dockerfile")).unwrap();
    let lines: Vec<(u32, u32)> =
        parse(&dockerfile).unwrap().nodes.iter().map(|node| (node.lines.first, node.lines.last)).collect();
    assert_eq!(lines, [(5, 5), (11, 12), (17, 31)]);
    println!("parser/testfile-line: 3 of 3");
}
