use super::*;
use proptest::prelude::*;

fn environment() -> Vec<String> {
    [
        "HOME=/root",
        "EMPTY=",
        "PATHS=/usr/bin:/bin:/sbin",
        "NAME=file.tar.gz",
        "STAR=a*b",
        "SPACES=a b  c",
        "한=글",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn word(text: &str) -> Result<String, String> {
    Lex::new('\\').word(text, &environment()).map(|word| word.text).map_err(|problem| problem.what)
}

fn words(text: &str) -> Vec<String> {
    Lex::new('\\').words(text, &environment()).unwrap().0
}

#[test]
fn quotes_and_escapes() {
    for (text, expanded) in [
        ("plain", "plain"),
        ("a'b c'd", "ab cd"),
        ("a\"b 'c' d\"", "ab 'c' d"),
        ("'$HOME'", "$HOME"),
        ("\"$HOME\"", "/root"),
        (r"\$HOME", "$HOME"),
        (r"\\$HOME", r"\/root"),
        (r#""\$HOME""#, "$HOME"),
        (r#""a\nb""#, r"a\nb"),
        (r"a\nb", "anb"),
        (r#""\"""#, "\""),
        (r"'a\'", r"a\"),
        ("end\\", "end"),
        ("''", ""),
        ("$", "$"),
        ("a$.b", "a$.b"),
        ("<<EOF", "<<EOF"),
        ("< <", "< <"),
        ("$한", "글"),
    ] {
        assert_eq!(word(text).as_deref(), Ok(expanded), "{text}");
    }
    for open in ["'", "\"", "a'b", "\"a\\\"", "\"$HOME"] {
        assert!(word(open).is_err(), "{open}");
    }
}

#[test]
fn values_and_their_modifiers() {
    for (text, expanded) in [
        ("$HOME/x", "/root/x"),
        ("$HOMEx", ""),
        ("${HOME}x", "/rootx"),
        ("$UNSET.", "."),
        ("${UNSET:-a b}", "a b"),
        ("${EMPTY:-a}", "a"),
        ("${EMPTY-a}", ""),
        ("${UNSET-a}", "a"),
        ("${HOME:+a}", "a"),
        ("${EMPTY:+a}", ""),
        ("${EMPTY+a}", "a"),
        ("${UNSET+a}", ""),
        ("${HOME:?no}", "/root"),
        ("${EMPTY?no}", ""),
        ("${UNSET:-${HOME:+$NAME}}", "file.tar.gz"),
        ("${UNSET:-'}'}", "}"),
        ("${NAME#*.}", "tar.gz"),
        ("${NAME##*.}", "gz"),
        ("${NAME%.*}", "file.tar"),
        ("${NAME%%.*}", "file"),
        ("${NAME#?}", "ile.tar.gz"),
        ("${NAME#x}", "file.tar.gz"),
        ("${NAME%}", "file.tar.gz"),
        (r"${STAR#a\*}", "b"),
        (r"${STAR#*\*}", "b"),
        ("${PATHS/:/ }", "/usr/bin /bin:/sbin"),
        ("${PATHS//:/ }", "/usr/bin /bin /sbin"),
        (r"${PATHS//\/bin/}", "/usr::/sbin"),
        (r"${PATHS//?bin/X}", "/usrX:X:/X"),
        ("${PATHS/*:/}", "/sbin"),
        ("${UNSET/a/b}", ""),
        ("${NAME//x/}", "file.tar.gz"),
        ("$1${2}$@${#}$-$$", ""),
        ("${1:-one}", "one"),
    ] {
        assert_eq!(word(text).as_deref(), Ok(expanded), "{text}");
    }
}

#[test]
fn what_is_no_substitution() {
    for (text, part) in [
        ("${", "} is missing"),
        ("${HOME", "} is missing"),
        ("${}", "a name is missing"),
        ("${:-a}", "a name is missing"),
        ("${{a}", "a name is missing"),
        ("${HOME=a}", "no modifier"),
        ("${HOME:=a}", "no modifier"),
        ("${HOME:#a}", "no modifier"),
        ("${HOME^^}", "no modifier"),
        ("${HOME:-a", "missing"),
        ("${UNSET?}", "UNSET has to be set"),
        ("${EMPTY:?}", "EMPTY may not be empty"),
        ("${UNSET:?say $NAME}", "UNSET: say file.tar.gz"),
        ("${HOME/a}", "missing"),
        ("${HOME/a/b", "missing"),
        (r"${HOME#\x}", "escape that means nothing"),
    ] {
        let what = word(text).expect_err(text);
        assert!(what.contains(part), "{text}: {what}");
    }
}

#[test]
fn words_are_divided_after_expansion() {
    for (text, divided) in [
        ("a  b", &["a", "b"] as &[_]),
        ("$SPACES", &["a", "b", "c"]),
        ("x$SPACES", &["xa", "b", "c"]),
        ("\"$SPACES\"", &["a b  c"]),
        ("x${UNSET:-y z}w", &["xy", "zw"]),
        (r"a\ b", &["a b"]),
        ("'a b'c", &["a bc"]),
        ("", &[]),
        ("$UNSET", &[]),
    ] {
        assert_eq!(words(text), divided, "{text}");
    }
}

#[test]
fn other_ways_to_read() {
    let lex = Lex { raw_quotes: true, skip_unset: true, ..Lex::new('\\') };
    let text = r#"echo "$HOME" '$HOME' $x ${x} ${x:-1} ${x//a/b} \$HOME"#;
    assert_eq!(
        lex.word(text, &environment()).unwrap().text,
        r#"echo "/root" '$HOME' $x ${x} ${x:-1} ${x//a/b} $HOME"#
    );
    let heredoc = Lex { skip_quotes: true, ..Lex::new('\\') };
    assert_eq!(heredoc.word("it's \"$HOME\"", &environment()).unwrap().text, "it's \"/root\"");
    let backtick = Lex::new('`');
    assert_eq!(backtick.word(r"C:\`$x\$HOME", &environment()).unwrap().text, r"C:\$x\/root");
}

#[test]
fn tells_what_was_used() {
    let word =
        Lex::new('\\').word("$HOME ${EMPTY:-$NAME} ${UNSET:+$HOME} '$NO' $OTHER", &environment()).unwrap();
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&word.used), "EMPTY HOME NAME");
    assert_eq!(names(&word.unset), "OTHER UNSET");
}

#[test]
fn is_bounded() {
    let deep = "${a:-".repeat(200) + &"}".repeat(200);
    assert!(word(&deep).unwrap_err().contains("nested"));
    let bomb = vec![format!("A={}", "x".repeat(60_000))];
    let grown = Lex::new('\\').word(&"${A//x/yyyyyyyy}".repeat(20), &bomb).unwrap_err();
    assert!(grown.what.contains("grows beyond"), "{grown}");
    let many = Lex::new('\\').word(&"$A".repeat(1000), &bomb).unwrap_err();
    assert!(many.what.contains("grows beyond"), "{many}");
    // No start of a match is its end, and every one is looked at to the end.
    let slow = Lex::new('\\').word("${A//?*y/}", &bomb).unwrap_err();
    assert!(slow.what.contains("too long"), "{slow}");
}

/// Patterns the slow way: a star is tried as nothing, then as one more.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|length| matches(rest, &text[length..])),
        Some((c, rest)) => {
            text.split_first().is_some_and(|(t, more)| (*c == '?' || c == t) && matches(rest, more))
        }
    }
}

proptest! {
    #[test]
    fn prefixes_and_suffixes_are_those_that_match(pattern in "[ab*?]{0,6}", value in "[ab]{0,8}") {
        let environment = vec![format!("V={value}")];
        let expand = |operator: &str| {
            Lex::new('\\').word(&format!("${{V{operator}{pattern}}}"), &environment).unwrap().text
        };
        let (pattern_chars, letters): (Vec<char>, Vec<char>) = (pattern.chars().collect(), value.chars().collect());
        let fits = |part: &[char]| matches(&pattern_chars, part);
        let ends: Vec<usize> = (0..=letters.len()).filter(|end| fits(&letters[..*end])).collect();
        let starts: Vec<usize> = (0..=letters.len()).filter(|start| fits(&letters[*start..])).collect();
        prop_assert_eq!(expand("#"), &value[ends.first().copied().unwrap_or(0)..]);
        prop_assert_eq!(expand("%"), &value[..starts.last().copied().unwrap_or(letters.len())]);
        // Doubled, and the pattern's first letter is not taken for the doubling.
        prop_assert_eq!(expand("##"), &value[ends.last().copied().unwrap_or(0)..]);
        prop_assert_eq!(expand("%%"), &value[..starts.first().copied().unwrap_or(letters.len())]);
    }

    #[test]
    fn replacing_letters_is_replacing_letters(value in "[abc]{0,12}", with in "[xy]{0,2}") {
        let environment = vec![format!("V={value}")];
        let all = Lex::new('\\').word(&format!("${{V//b/{with}}}"), &environment).unwrap().text;
        let first = Lex::new('\\').word(&format!("${{V/b/{with}}}"), &environment).unwrap().text;
        prop_assert_eq!(all, value.replace('b', &with));
        prop_assert_eq!(first, value.replacen('b', &with, 1));
    }

    #[test]
    fn no_word_is_too_odd(text in "[\\\\`'\"${}:?+\\-#%/*a <é\n]{0,40}") {
        for lex in [Lex::new('\\'), Lex::new('`'), Lex { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lex::new('\\') }] {
            let _ = lex.word(&text, &environment());
            let _ = lex.words(&text, &environment());
        }
    }

    #[test]
    fn what_is_quoted_stays(text in "[^']{0,30}") {
        prop_assert_eq!(word(&format!("'{text}'")), Ok(text));
    }
}
