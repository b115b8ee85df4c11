//! Other projects' data, read from a checkout that `scripts/corpora` is told of. None of it is part of this project.
#![allow(clippy::print_stdout, reason = "how much was right is for somebody to read")]

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

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn lines() {
    let dockerfile = std::fs::read(folder().join("parser/testfile-line/Dockerfile")).unwrap();
    let lines: Vec<(u32, u32)> =
        parse(&dockerfile).unwrap().nodes.iter().map(|node| (node.lines.first, node.lines.last)).collect();
    assert_eq!(lines, [(5, 5), (11, 12), (17, 31)]);
    println!("parser/testfile-line: 3 of 3");
}

/// A Dockerfile of BuildKit's tests of its checks, and what it expects of it.
struct Expected {
    line: usize,
    dockerfile: String,
    build_args: Vec<String>,
    target: Option<String>,
    /// `line rule message`.
    findings: Vec<String>,
}

/// The cases of a Go file that are written in the one way most are: a literal, then a call with a literal.
fn cases(go: &str) -> Vec<Expected> {
    let mut cases = Vec::new();
    let mut dockerfile = None;
    let mut position = 0;
    while let Some(next) = go[position..].find("dockerfile").map(|found| position + found) {
        let rest = &go[next..];
        position = next + "dockerfile".len();
        if let Some(text) =
            ["dockerfile := []byte(`", "dockerfile = []byte(`"].iter().find_map(|s| rest.strip_prefix(s))
        {
            let end = text.find('`').unwrap();
            dockerfile = Some(text[..end].to_owned());
            position = go.len() - text.len() + end;
        } else if rest.starts_with("dockerfile :=") || rest.starts_with("dockerfile =") {
            dockerfile = None;
        }
        // What lies between this literal and the next: calls with it.
        let until = go[position..].find("dockerfile =").map_or(go.len(), |found| position + found);
        let until = go[position..].find("dockerfile :=").map_or(until, |found| until.min(position + found));
        let Some(text) = dockerfile.take() else { continue };
        for call in go[position..until].split("checkLinterWarnings(").skip(1) {
            let call = &call[..call.find("\n\t})").or_else(|| call.find("})")).unwrap_or(call.len())];
            // Other files, other platforms: not in the text alone.
            if call.contains("DockerIgnore") || call.contains("platform") || !call.contains("Dockerfile:") {
                continue;
            }
            cases.push(Expected {
                line: go[..position].lines().count(),
                dockerfile: text.clone(),
                build_args: attributes(call, "\"build-arg:")
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
                target: attributes(call, "\"target").next().map(|(_, value)| value),
                findings: findings(call),
            });
        }
    }
    cases
}

fn attributes<'a>(call: &'a str, prefix: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    call.lines().filter_map(move |line| {
        let (name, value) = line.trim().strip_prefix(prefix)?.split_once("\":")?;
        Some((name.to_owned(), value.trim().trim_end_matches(',').trim_matches('"').to_owned()))
    })
}

fn findings(call: &str) -> Vec<String> {
    // Those of a check, where they differ from those of a build.
    let lists: Vec<&str> = call.split("Warnings: []expectedLintWarning{").skip(1).collect();
    let Some(list) = lists.last() else { return Vec::new() };
    // Of those BuildKit's test compares no lines, and some are wrong.
    let has_lines = lists.len() == 1 && !call.contains("UnmarshalWarnings");
    let mut findings = Vec::new();
    for made in list.split("makeLintWarning(").skip(1) {
        let (keyword, line) = made[..made.find(')').unwrap()].split_once(", ").unwrap();
        findings.push(format!(
            "{line} MultipleInstructionsDisallowed Multiple {} instructions should not be used in the same stage because only the last one will be used",
            keyword.trim_matches('"')
        ));
    }
    for entry in list.split("RuleName:").skip(1) {
        let (rule, rest) = entry.trim_start().split_once(',').unwrap();
        let value = |name: &str| {
            let line = rest.lines().map(str::trim).find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().trim_end_matches(',').to_owned()
        };
        let detail = value("Detail:");
        let detail = match detail.strip_prefix('"') {
            Some(_) => serde_json::from_str(&detail).unwrap(),
            None => detail.trim_matches('`').to_owned(),
        };
        let line = if has_lines { value("Line:") } else { "?".to_owned() };
        findings.push(format!("{line} {} {detail}", rule.trim_matches('"')));
    }
    findings
}

#[test]
#[ignore = "needs a checkout of moby/buildkit: scripts/corpora"]
fn checks() {
    let go = std::fs::read_to_string(folder().join("dockerfile_check_test.go")).unwrap();
    let cases = cases(&go);
    let mut wrong = Vec::new();
    for case in &cases {
        let platform = oci::Platform::parse("linux/amd64").unwrap();
        let mut request = crate::Request::new(platform.clone(), platform);
        request.target.clone_from(&case.target);
        for arg in &case.build_args {
            request.build_arg(arg, |_| None).unwrap();
        }
        let image = |_: &oci::Reference, _: &oci::Platform| {
            Some(crate::Inherited { env: vec!["PATH=/bin".to_owned()], ..crate::Inherited::default() })
        };
        let facts =
            crate::lint::Facts { is_ignored: &|_| false, image: &image, all_stages: case.target.is_none() };
        let mut found: Vec<String> = match parse(case.dockerfile.as_bytes()) {
            Ok(file) => crate::check(&file, &request, &facts)
                .findings
                .iter()
                .map(|f| format!("{} {} {}", f.lines.first, f.rule, f.message))
                .collect(),
            Err(problem) => vec![problem.to_string()],
        };
        let mut expected = case.findings.clone();
        if expected.iter().any(|finding| finding.starts_with('?')) {
            for finding in &mut found {
                finding.replace_range(..finding.find(' ').unwrap_or(0), "?");
            }
        }
        found.sort();
        expected.sort();
        if found != expected {
            wrong.push(format!(
                "line {}: {}\nfound {found:#?}\nexpected {expected:#?}",
                case.line, case.dockerfile
            ));
        }
    }
    report("dockerfile_check_test.go", cases.len(), &wrong);
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
