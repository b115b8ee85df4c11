//! Help, in the form of the other tools', and clap's form of the command line for manual pages and completions.

use crate::options::{Flag, Takes};
use crate::verbs::{GLOBAL, VERBS, Verb};
use clap::builder::StyledStr;
use std::fmt::Write as _;
use std::io::Write as _;

const ABOUT: &str = "Make and run containers from OCI bundles";
const DETAILS: &str = "What the OCI runtime specification has, with runc's command line: podman, containerd, CRI-O and docker call it. \
                       Its output is theirs; it reads and writes no records.";
const EXAMPLES: &str = "podman --runtime \"$(command -v oci-runtime)\" run --rm busybox true
mkdir -p b/rootfs && oci-runtime spec --bundle b
oci-runtime run --bundle b demo
oci-runtime list --format json | jq -r '.[].id'
oci-runtime kill demo KILL && oci-runtime delete demo";

/// Where lines are broken, as clap does for the other tools.
const WIDTH: usize = 100;

/// Of the whole program, or of a verb.
pub fn print(program: &str, verb: Option<&'static Verb>) -> u8 {
    let text = match verb {
        None => of_program(program),
        Some(verb) => of_verb(program, verb),
    };
    // A reader that closed the pipe has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

/// Where a verb was used wrongly.
pub fn print_usage(program: &str, verb: &'static Verb) -> std::io::Result<()> {
    std::io::stdout().write_all(format!("Incorrect Usage.\n\n{}", of_verb(program, verb)).as_bytes())
}

/// `NAME version X`, which engines look for.
pub fn print_version(program: &str) -> u8 {
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("{program} version {version}\nspec: {}\n", runtime::spec::OCI_VERSION);
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

fn of_program(program: &str) -> String {
    let mut text = format!("{ABOUT}\n\n");
    wrap(&mut text, 0, DETAILS);
    let _ = write!(text, "\nUsage: {program} [OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]\n\nCommands:\n");
    let width = VERBS.iter().map(|verb| verb.name.len()).max().unwrap_or(0);
    for verb in VERBS {
        let _ = writeln!(text, "  {:width$}  {}", verb.name, verb.about);
    }
    options(&mut text, GLOBAL);
    examples(&mut text, EXAMPLES);
    let _ = writeln!(text, "\n{program} COMMAND --help tells what a command takes.");
    text
}

fn of_verb(program: &str, verb: &Verb) -> String {
    let mut text = format!("{}\n", capitalised(verb.about));
    if !verb.details.is_empty() {
        text.push('\n');
        wrap(&mut text, 0, verb.details);
    }
    let mut usage = format!("\nUsage: {program} {} [OPTIONS] {}", verb.name, verb.operands);
    usage.truncate(usage.trim_end().len());
    let _ = writeln!(text, "{usage}");
    if !verb.flags.is_empty() {
        options(&mut text, verb.flags);
    }
    let _ = writeln!(text, "\nOptions of {program} itself may stand here too; --help is one of them.");
    examples(&mut text, verb.examples);
    text
}

fn options(text: &mut String, flags: &[Flag]) {
    text.push_str("\nOptions:\n");
    for flag in flags {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let _ = writeln!(text, "  {short}{}", name(flag));
        wrap(text, 10, flag.help);
    }
}

fn examples(text: &mut String, lines: &str) {
    text.push_str("\nExamples:\n");
    for line in lines.lines() {
        let _ = writeln!(text, "  {line}");
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Words in lines of bearable length.
fn wrap(text: &mut String, indent: usize, words: &str) {
    let mut length = 0;
    for word in words.split_whitespace() {
        if length > 0 && length + 1 + word.chars().count() > WIDTH {
            text.push('\n');
            length = 0;
        }
        if length == 0 {
            text.extend(std::iter::repeat_n(' ', indent));
            length = indent;
        } else {
            text.push(' ');
            length += 1;
        }
        text.push_str(word);
        length += word.chars().count();
    }
    text.push('\n');
}

fn name(flag: &Flag) -> String {
    match flag.takes {
        Takes::Nothing => format!("--{}", flag.long),
        Takes::Value(name) | Takes::Values(name) => format!("--{} <{name}>", flag.long),
    }
}

/// The same command line for clap, from which manual pages and completions are made.
pub fn command() -> clap::Command {
    let global = GLOBAL.iter().filter(|flag| !matches!(flag.long, "help" | "version"));
    let mut command = clap::Command::new("oci-runtime")
        .about(ABOUT)
        .long_about(DETAILS)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(examples_of(EXAMPLES))
        .subcommand_required(true)
        .args(global.map(argument));
    for verb in VERBS {
        let operands = clap::Arg::new("operands").value_name(verb.operands).num_args(0..);
        let mut sub = clap::Command::new(verb.name)
            .about(capitalised(verb.about))
            .after_help(examples_of(verb.examples))
            .args(verb.flags.iter().map(argument));
        if !verb.details.is_empty() {
            sub = sub.long_about(StyledStr::from(verb.details));
        }
        if !verb.operands.is_empty() {
            sub = sub.arg(operands);
        }
        command = command.subcommand(sub);
    }
    command
}

fn examples_of(lines: &str) -> String {
    let mut text = String::new();
    examples(&mut text, lines);
    text.trim_start().to_owned()
}

fn argument(flag: &Flag) -> clap::Arg {
    let mut argument = clap::Arg::new(flag.long).long(flag.long).help(flag.help);
    if let Some(short) = flag.short {
        argument = argument.short(short);
    }
    match flag.takes {
        Takes::Nothing => argument.action(clap::ArgAction::SetTrue),
        Takes::Value(name) => argument.value_name(name),
        Takes::Values(name) => argument.value_name(name).action(clap::ArgAction::Append),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claps_form_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn an_option_is_one_thing_in_a_verb() {
        for verb in VERBS {
            let mut seen = Vec::new();
            for flag in verb.flags {
                let names = (flag.long, flag.short.unwrap_or('-'));
                assert!(
                    !seen
                        .iter()
                        .any(|(long, short)| *long == names.0 || (*short == names.1 && *short != '-'))
                );
                seen.push(names);
            }
        }
    }

    #[test]
    fn everything_has_the_form_of_the_other_tools() {
        let texts =
            VERBS.iter().map(|verb| (format!("Usage: x {} [OPTIONS]", verb.name), of_verb("x", verb)));
        for (usage, text) in texts.chain([("Usage: x [OPTIONS] COMMAND".to_owned(), of_program("x"))]) {
            let first = text.lines().next().unwrap();
            assert!(first.starts_with(char::is_uppercase) && !first.ends_with('.'), "{first}");
            assert!(text.contains(&format!("\n{usage}")), "{text}");
            assert!(text.contains("\nExamples:\n  ") && !text.contains("\n\n\n"), "{text}");
            let of_examples = text.rsplit_once("Examples:").unwrap().1;
            assert!(of_examples.contains("oci-runtime"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        }
    }

    #[test]
    fn words_are_wrapped() {
        let mut text = String::new();
        wrap(&mut text, 2, &"word ".repeat(40));
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.starts_with("  word") && line.len() <= WIDTH), "{text}");
    }
}
