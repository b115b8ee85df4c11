//! BuildKit's tests of its checks, out of the Go they are written in.

use super::{folder, report};
use crate::parse;

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
