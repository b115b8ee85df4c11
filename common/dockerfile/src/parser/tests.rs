use super::*;
use proptest::prelude::*;

fn file(text: &str) -> File {
    parse(text.as_bytes()).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

fn first(text: &str) -> Node {
    file(text).nodes.remove(0)
}

/// What is wrong, with the lines it is in.
fn problem(text: &str) -> String {
    parse(text.as_bytes()).expect_err(text).to_string()
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn lines_are_joined() {
    let file = file(
        "\u{feff}# comment\n\n  from scratch  \r\nRUN a \\\n  # in between\n  b \\ \t\n c\nCMD x\\\\\nUSER u \\",
    );
    let seen: Vec<_> = file.nodes.iter().map(|n| (n.text.as_str(), n.lines.first, n.lines.last)).collect();
    assert_eq!(
        seen,
        [("from scratch  ", 3, 3), ("RUN a   b  c", 4, 7), ("CMD x\\\\", 8, 8), ("USER u ", 9, 9)]
    );
    assert!(file.empty_continuations.is_empty());
}

#[test]
fn empty_lines_go_on_and_are_noted() {
    let file = file("RUN a \\\n\n  b \\\n\t\n  c\nUSER u\n");
    assert_eq!(file.nodes[0].text, "RUN a   b   c");
    assert_eq!(file.empty_continuations, [5]);
    assert_eq!(file.nodes.len(), 2);
}

#[test]
fn directives() {
    let parsed = file(
        "# Syntax = docker/dockerfile:1 and more\n#escape=`\n# check=skip=all;error=true\nRUN a `\n b\\\nUSER u",
    );
    assert_eq!(parsed.escape, '`');
    assert_eq!(parsed.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(parsed.check, Some(("skip=all;error=true".to_owned(), Lines::one(3))));
    assert_eq!(parsed.nodes[0].text, "RUN a  b\\");
    // After anything else a directive is a comment.
    for before in ["# words\n", "\n", "# unknown=1\n", "FROM a\n"] {
        assert_eq!(file(&format!("{before}# escape=`\nFROM b")).escape, '\\', "{before:?}");
    }
    assert_eq!(problem("# escape=x\nFROM a"), "line 1: the escape character \"x\" is neither \\ nor `");
    assert_eq!(problem("# escape=`\n# escape=`\nFROM a"), "line 2: there are two directives escape");
}

#[test]
fn comments_belong_to_what_follows() {
    let file = file("# check=skip=all\n# one\n# two\nFROM a\n# gone\n#\n#three\nARG b\nARG c\n");
    let comments: Vec<_> = file.nodes.iter().map(|node| node.comments.join("|")).collect();
    assert_eq!(comments, ["one|two", "three", ""]);
}

#[test]
fn flags_come_first() {
    for (text, flags, words) in [
        ("COPY --from=a --link b c", &["--from=a", "--link"] as &[_], &["b", "c"] as &[_]),
        ("COPY --chown='a b' x y", &["--chown=a b"], &["x", "y"]),
        ("COPY --a=\\\"b x y", &["--a=\"b"], &["x", "y"]),
        ("COPY -- --from=a b", &[], &["--from=a", "b"]),
        ("COPY a --from=b", &[], &["a", "--from=b"]),
        ("COPY - a", &[], &["-", "a"]),
        ("COPY --from=ä a b", &["--from=ä"], &["a", "b"]),
        ("COPY --from=a", &["--from=a"], &[]),
    ] {
        let node = first(text);
        assert_eq!(node.flags, flags, "{text}");
        assert_eq!(node.arguments, Arguments::Words(list(words)), "{text}");
    }
}

#[test]
fn json_or_words() {
    let json = |words: &[&str]| Arguments::Json(list(words));
    let words = |words: &[&str]| Arguments::Words(list(words));
    for (text, arguments) in [
        ("CMD [ \"a\", \"b c\" ]", json(&["a", "b c"])),
        ("CMD []", json(&[])),
        ("CMD [\"\\u00e9\\n\"]", json(&["é\n"])),
        ("CMD ['a']", words(&["['a']"])),
        ("CMD [\"a\",]", words(&["[\"a\",]"])),
        ("CMD [\"a\"] b", words(&["[\"a\"] b"])),
        ("CMD", words(&[])),
        ("RUN  a   b ", words(&["a   b"])),
        ("COPY [\"a b\", \"c\"]", json(&["a b", "c"])),
        ("COPY [a, c", words(&["[a,", "c"])),
        ("VOLUME /a /b", words(&["/a", "/b"])),
        ("HEALTHCHECK CMD [\"a\"]", json(&["CMD", "a"])),
        ("HEALTHCHECK CMD a  b", words(&["CMD", "a  b"])),
        ("WORKDIR /a b", words(&["/a b"])),
        ("ARG a b=c d='e f'", words(&["a", "b=c", "d='e f'"])),
    ] {
        assert_eq!(first(text).arguments, arguments, "{text}");
    }
    for text in ["CMD [\"a\", 1]", "COPY [\"a\", [\"b\"]]", "RUN [null]"] {
        assert!(problem(text).contains("not a string"), "{text}");
    }
}

#[test]
fn pairs() {
    let pairs = |text: &str| match first(text).arguments {
        Arguments::Pairs(pairs) => pairs.iter().map(|(n, v, e)| format!("{n}|{v}|{e}")).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(pairs("ENV a=b c=\"d e\" f=g\\ h"), ["a|b|true", "c|\"d e\"|true", "f|g\\ h|true"]);
    assert_eq!(pairs("ENV a b  c=d"), ["a|b  c=d|false"]);
    assert_eq!(pairs("LABEL a="), ["a||true"]);
    assert_eq!(pairs("ENV"), [""; 0]);
    assert_eq!(problem("FROM a\nENV b"), "line 2: ENV must have two arguments: ENV b");
    assert!(problem("LABEL a=b c").contains("there is no = in \"c\""));
}

#[test]
fn heredocs() {
    let node = first("RUN <<EOF cat <<-'E F' 3<<\"X\"\n$a\nEOF\n\tb\n\tE F\nc\nX\nUSER u");
    let seen: Vec<_> = node
        .heredocs
        .iter()
        .map(|h| (h.name.as_str(), h.descriptor, h.expand, h.chomp, h.content.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("EOF", None, true, false, "$a\n"),
            ("E F", None, false, true, "\tb\n"),
            ("X", Some(3), false, false, "c\n")
        ]
    );
    assert_eq!(node.heredocs[1].chomped(), "b\n");
    assert_eq!(node.lines, Lines { first: 1, last: 7 });
    // Where there are none.
    for text in [
        "RUN [\"<<EOF\"]",
        "ENV a=<<EOF",
        "RUN echo '<<EOF'",
        "RUN echo \\<\\<EOF",
        "RUN a <<< b",
        "RUN a <<",
    ] {
        assert!(first(text).heredocs.is_empty(), "{text}");
    }
    assert_eq!(first("ONBUILD COPY <<a /b\nx\na\n").heredocs[0].content, "x\n");
    assert_eq!(first("COPY <<a /b\r\nx\r\na\r\n").heredocs[0].content, "x\r\n");
    assert_eq!(problem("FROM a\nRUN <<EOF\nb\n"), "lines 2-3: the heredoc has no end: a line EOF: RUN <<EOF");
}

#[test]
fn files_that_are_none() {
    for text in ["", "\n\n", "# only\n# comments\n", "\u{feff}"] {
        assert_eq!(problem(text), "the Dockerfile has no instructions", "{text:?}");
    }
    let latin = |text: &[u8]| parse(text).map(|file| file.nodes.len());
    assert_eq!(latin(b"# J\xfcrgen\nFROM a\nMAINTAINER J\xfcrgen\nLABEL a=\xfc"), Ok(3));
    let refused = latin(b"FROM a\nRUN echo \\\n \xfc").unwrap_err().to_string();
    assert_eq!(refused, "lines 2-3: the instruction is not UTF-8: RUN echo  \u{fffd}");
}

#[test]
fn is_bounded() {
    let long = format!("FROM a\nRUN {}", "x".repeat(limits::LINE_BYTES - 4));
    assert!(parse(long.as_bytes()).is_ok());
    assert!(problem(&(long + "x\n")).starts_with("line 2: the line is longer"));
    assert!(problem(&"#\n".repeat(limits::FILE_BYTES)).contains("larger than"));
    assert!(problem(&"A\n".repeat(limits::INSTRUCTIONS + 1)).contains("more than"));
    assert!(problem(&("ONBUILD ".repeat(1000) + "RUN a")).contains("nested too deep"));
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
    }

    #[test]
    fn no_lines_are_too_odd(lines in proptest::collection::vec(
        "(# ?(escape|check|syntax)=.?|(FROM|RUN|COPY|ONBUILD|ENV|CMD|HEALTHCHECK) [<\\-'\"\\[\\],a=\\\\ ]{0,12}|EOF|.{0,8})[\\\\`]?\r?", 0..8
    )) {
        let text = lines.join("\n");
        let Ok(file) = parse(text.as_bytes()) else { return Ok(()) };
        let mut before = 0;
        for node in &file.nodes {
            prop_assert!(node.lines.first > before && node.lines.last >= node.lines.first);
            before = node.lines.last;
        }
        prop_assert!(before as usize <= text.lines().count() + 1);
    }
}
