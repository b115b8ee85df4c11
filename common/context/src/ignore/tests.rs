use super::pattern::{Pattern, Syntax};
use super::rules::{Above, Rules, clean};
use super::*;
use proptest::prelude::*;

fn rules(patterns: &[&str]) -> Rules {
    Rules::new(patterns).unwrap()
}

fn ignored(patterns: &[&str], path: &str) -> bool {
    rules(patterns).find(path.as_bytes()).is_some()
}

#[test]
fn patterns_fit_what_docker_says() {
    for (pattern, path, fits) in [
        ("readme", "readme", true),
        ("readme", "docs/readme", false),
        ("docs", "docs/readme", true),
        ("docs/", "docs/a/b", true),
        ("docs", "docsx", false),
        ("*", "a", true),
        ("*", "a/b", true),
        ("*.md", "readme.md", true),
        ("*.md", "docs/readme.md", false),
        ("*/*.md", "docs/readme.md", true),
        ("*/*.md", "docs/a/readme.md", false),
        ("**", "a/b/c", true),
        ("**/", "a", true),
        ("**/*.md", "readme.md", true),
        ("**/*.md", "a/b/readme.md", true),
        ("**/tmp", "tmp", true),
        ("**/tmp", "a/tmp", true),
        ("**/tmp", "a/tmp/b", true),
        ("**/tmp", "a/xtmp", false),
        ("**tmp", "a/xtmp", true),
        ("**tmp*", "xtmp", false),
        ("**tmp*", "a/tmp1", true),
        ("a/**", "a", false),
        ("a/**", "a/b", true),
        ("a/**", "ab", false),
        ("a**", "ab/c", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("a**/*.txt", "a/x/y.txt", true),
        ("a/*.txt**", "a/b.txt", true),
        ("**/a/**/c", "x/a/y/z/c", true),
        ("**/a/**/c", "x/a/y/z/d", false),
        ("**/**/**/x", "x", true),
        ("?", "a", true),
        ("?", "é", true),
        ("?", "ab", false),
        ("a?b", "a/b", false),
        ("[a-c]x", "bx", true),
        ("[a-c]x", "dx", false),
        ("[^a-c]x", "dx", true),
        ("[^a-c]x", "ax", false),
        ("[α-ω]", "β", true),
        ("[\\]x]", "]", true),
        ("[\\-x]", "-", true),
        ("[*]", "*", true),
        ("[*]", "a", false),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("a\\\\", "a\\", true),
        ("\\!a", "!a", true),
        (".foo", ".foo", true),
        ("*.foo", ".foo", true),
        ("a.b", "axb", false),
        ("a(b)+{c}|$", "a(b)+{c}|$", true),
        ("a//b/./c/../d", "a/b/d", true),
        (".", "a", false),
        ("/", "a", false),
    ] {
        assert_eq!(ignored(&[pattern], path), fits, "{pattern} {path}");
    }
}

#[test]
fn the_last_that_says_something_counts() {
    for (patterns, path, is_ignored) in [
        (&["*.md", "!readme.md"][..], "readme.md", false),
        (&["!readme.md", "*.md"], "readme.md", true),
        (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
        (&["docs", "!docs/readme"], "docs/readme", false),
        (&["docs", "!docs/readme"], "docs/other", true),
        (&["docs", "!docs/a"], "docs/a/b/c", false),
        (&["**", "!a/b"], "a/b/c", false),
        (&["**", "!a/b", "a/b/c"], "a/b/c", true),
        (&["**", "!*.go"], "main.go", false),
        (&["**", "!*.go"], "cmd/main.go", true),
        (&["**", "!**/*.go"], "cmd/main.go", false),
        (&["a", "!a"], "a/b", false),
        (&["a", "!a", "a/b"], "a/b", true),
        (&["", "  ", "a "], "a", true),
        (&["dir/*", "!dir/sub"], "dir/sub/file", false),
    ] {
        assert_eq!(ignored(patterns, path), is_ignored, "{patterns:?} {path}");
    }
}

#[test]
fn what_is_malformed_is_refused() {
    for bad in [
        "[", "[]", "[]a]", "[^", "[^]", "[a", "[a-", "[a-]", "[-a]", "[a-b-c]", "[z-a]", "a\\", "a[", "!",
        "![", "[",
    ] {
        assert!(Rules::new(&[bad]).is_err(), "{bad}");
    }
    assert!(Rules::new(&["x".repeat(4097)]).is_err());
    assert!(Rules::new(&vec!["x"; 10_001]).is_err());
    let fault = Ignore::parse(b"ok\n[", ".dockerignore").unwrap_err();
    assert!(fault.to_string().contains(".dockerignore") && fault.to_string().contains("\"[\""), "{fault}");
}

#[test]
fn a_file_is_read_line_by_line() {
    let text = b"\xef\xbb\xbf# no\n #yes\n/abs\n! /inverted/abs/path\r\n\n  spaced  \na/./b/../c/\n!!x\n";
    let lines: Vec<String> = text[3..]
        .split(|b| *b == b'\n')
        .filter_map(line)
        .map(|line| String::from_utf8(line).unwrap())
        .collect();
    assert_eq!(lines, ["#yes", "abs", "!inverted/abs/path", "spaced", "a/c", "!!x"]);
    let ignore = Ignore::parse(text, "x").unwrap();
    assert!(ignore.pattern_for(b"#yes").is_some() && ignore.pattern_for(b"/abs/y").is_some());
    assert_eq!(ignore.pattern_for(b"a/c/d"), Some(b"a/c".as_slice()));
    assert!(Ignore::parse(b"!", "x").is_err() && Ignore::parse(b"! ", "x").is_err());
}

#[test]
fn the_nearest_file_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str| std::fs::write(dir.path().join(name), format!("of-{name}")).unwrap();
    let name = |dockerfile: &str| {
        let ignore = Ignore::find(dir.path(), Some(&dir.path().join(dockerfile))).unwrap();
        assert!(
            ignore.name().is_empty()
                || ignore.pattern_for(format!("of-{}", ignore.name()).as_bytes()).is_some()
        );
        ignore.name().to_owned()
    };
    assert_eq!(name("Dockerfile"), "");
    write(".dockerignore");
    assert_eq!(name("Dockerfile"), ".dockerignore");
    write(".containerignore");
    assert_eq!(name("Dockerfile"), ".containerignore");
    write("Dockerfile.dockerignore");
    assert_eq!(name("Dockerfile"), "Dockerfile.dockerignore");
    write("Dockerfile.containerignore");
    assert_eq!(name("Dockerfile"), "Dockerfile.containerignore");
    assert_eq!(name("other"), ".containerignore");
    std::fs::write(dir.path().join("other.dockerignore"), vec![b'#'; 2 << 20]).unwrap();
    assert!(Ignore::find(dir.path(), Some(&dir.path().join("other"))).is_err());
}

#[test]
fn directories_nothing_is_excepted_in_need_not_be_read() {
    for (patterns, dir, worth) in [
        (&["node_modules"][..], "node_modules", false),
        (&["node_modules", "!src/a"], "node_modules", false),
        (&["docs", "!docs/readme"], "docs", true),
        (&["docs", "!docs/a/readme"], "docs/a", true),
        (&["docs", "!docs/a/readme"], "docs/b", false),
        (&["**", "!*.go"], "cmd", false),
        (&["**", "!*/*.go"], "cmd", true),
        (&["**", "!*/*.go"], "cmd/a", false),
        (&["**", "!**/*.go"], "cmd/a/b", true),
        (&["**", "!**/go"], "cmd/a/b", true),
        (&["**", "!c*/[a-z]/x"], "cmd/a", true),
        (&["**", "!c*/[a-z]/x"], "dmd", false),
    ] {
        assert_eq!(rules(patterns).excepts_below(dir.as_bytes()), worth, "{patterns:?} {dir}");
    }
}

#[test]
fn hostile_patterns_take_no_time() {
    let begun = std::time::Instant::now();
    let pattern = "*a".repeat(200) + "**/" + &"[^b]*".repeat(100) + "x";
    let path = "a".repeat(3000);
    assert!(!ignored(&[&pattern], &path));
    assert!(!ignored(&[&("**/*a".repeat(300) + "b")], &"a/".repeat(1000)));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// docker's translation into a regular expression, run on every directory of the path and on the path itself.
mod reference {
    use regex_lite::Regex;

    pub fn fits(pattern: &str, path: &str) -> bool {
        let special = pattern.contains(['*', '?', '[', ']', '\\']);
        if !special {
            return path == pattern;
        }
        if let Some(rest) = pattern.strip_prefix("**")
            && !rest.contains(['*', '?', '[', ']', '\\'])
        {
            return path.ends_with(rest) || rest.strip_prefix('/').is_some_and(|rest| rest == path);
        }
        let mut out = String::from("(?s)^");
        let mut rest = pattern;
        while let Some(next) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("**") {
                rest = after.strip_prefix('/').unwrap_or(after);
                out.push_str(if rest.is_empty() { ".*" } else { "(.*/)?" });
                continue;
            }
            rest = &rest[next.len_utf8()..];
            match next {
                '*' => out.push_str("[^/]*"),
                '?' => out.push_str("[^/]"),
                '[' => {
                    let end = rest.find(']').unwrap();
                    out.push('[');
                    out.push_str(&rest[..=end]);
                    rest = &rest[end + 1..];
                }
                '\\' => {
                    let escaped = rest.chars().next().unwrap();
                    out.push_str(&regex_lite::escape(&escaped.to_string()));
                    rest = &rest[escaped.len_utf8()..];
                }
                other => out.push_str(&regex_lite::escape(&other.to_string())),
            }
        }
        out.push('$');
        Regex::new(&out).unwrap().is_match(path)
    }

    /// From the outermost directory on; what one of them fits, all below it fit. A pattern that could change nothing is not compared, not even
    /// for what is below: so says docker's matcher, and so does docker.
    pub fn ignored(patterns: &[String], path: &str) -> bool {
        let mut above = vec![false; patterns.len()];
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut whole = false;
        for end in ends {
            whole = false;
            let mut here = vec![false; patterns.len()];
            for (at, pattern) in patterns.iter().enumerate() {
                let (text, exception) =
                    pattern.strip_prefix('!').map_or((pattern.as_str(), false), |rest| (rest, true));
                here[at] = above[at] || exception == whole && fits(text, &path[..end]);
                if here[at] {
                    whole = !exception;
                }
            }
            above = here;
        }
        whole
    }
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[abc.]",
        2 => Just("/".to_owned()),
        2 => Just("*".to_owned()),
        2 => Just("**".to_owned()),
        2 => Just("**/".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("[a-b]".to_owned()),
        1 => Just("[^a]".to_owned()),
        1 => Just("\\a".to_owned()),
    ];
    (any::<bool>(), prop::collection::vec(piece, 1..7)).prop_filter_map(
        "no pattern",
        |(exception, pieces)| {
            let text = String::from_utf8(clean(pieces.concat().as_bytes())).unwrap();
            let text = text.trim_start_matches('/').to_owned();
            // Three stars are two and one, by where the reading begins.
            (!text.is_empty() && !text.starts_with("..") && !text.contains("***"))
                .then(|| if exception { format!("!{text}") } else { text })
        },
    )
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc.]{1,3}", 1..5).prop_filter_map("no path", |parts| {
        (!parts.iter().any(|part| part == "." || part == "..")).then(|| parts.join("/"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn one_pattern_is_what_the_reference_says(pattern in pattern(), path in path()) {
        let text = pattern.trim_start_matches('!');
        let ours = Pattern::new(text.as_bytes(), Syntax::Ignore).unwrap().fits(path.as_bytes());
        prop_assert_eq!(ours, reference::fits(text, &path), "{} {}", text, path);
    }

    #[test]
    fn several_are_what_the_reference_says(patterns in prop::collection::vec(pattern(), 1..6), path in path()) {
        let rules = Rules::new(&patterns).unwrap();
        let ours = rules.find(path.as_bytes()).is_some();
        prop_assert_eq!(ours, reference::ignored(&patterns, &path), "{:?} {}", &patterns, &path);
        // What is not read because nothing in it is excepted has nothing in it that is not ignored.
        let mut above = Above::default();
        for (at, _) in path.match_indices('/') {
            let dir = &path.as_bytes()[..at];
            let (ignored, below) = rules.below(dir, &above);
            if ignored.is_some() && !rules.excepts_below(dir) {
                prop_assert!(ours, "{:?} {} in {:?}", &patterns, &path, String::from_utf8_lossy(dir));
            }
            if ignored.is_none() && !rules.matches_below(dir) {
                prop_assert!(!ours, "{:?} {} in {:?}", &patterns, &path, String::from_utf8_lossy(dir));
            }
            above = below;
        }
    }

    #[test]
    fn nothing_panics(text: Vec<u8>, path: Vec<u8>) {
        if let Ok(ignore) = Ignore::parse(&text, "x") {
            ignore.pattern_for(&path);
            ignore.rules.excepts_below(&path);
        }
    }
}
