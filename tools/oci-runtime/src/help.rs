//! Help, in the form of runc's (urfave/cli), and clap's form of the command line for manual pages and completions.

use crate::options::{Flag, Takes};
use crate::verbs::{GLOBAL, VERBS, Verb};
use clap::builder::StyledStr;
use std::fmt::Write as _;
use std::io::Write as _;

const ABOUT: &str = "Open Container Initiative runtime";
const DETAILS: &str = "Makes and runs containers from bundles, as the OCI runtime specification has it, with runc's command line: \
                       podman, containerd, CRI-O and docker call it. Its output is theirs; it reads and writes no records.";
const EXAMPLES: &str = "Examples:
  podman --runtime \"$(command -v oci-runtime)\" run --rm busybox true
  mkdir -p b/rootfs && oci-runtime spec --bundle b
  oci-runtime run --bundle b demo
  oci-runtime list --format json | jq -r '.[].id'
  oci-runtime kill demo KILL && oci-runtime delete demo";

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
    let mut text = format!(
        "NAME:\n   {program} - {ABOUT}\n\nUSAGE:\n   {program} [global options] command [command options] [arguments...]\n\n\
         DESCRIPTION:\n   {DETAILS}\n\nCOMMANDS:\n"
    );
    for verb in VERBS {
        let _ = writeln!(text, "   {:10} {}", verb.name, verb.about);
    }
    text += "\nGLOBAL OPTIONS:\n";
    options(&mut text, GLOBAL);
    let _ = writeln!(text, "\n{EXAMPLES}");
    text
}

fn of_verb(program: &str, verb: &Verb) -> String {
    let mut text = format!(
        "NAME:\n   {program} {} - {}\n\nUSAGE:\n   {program} {} [command options] {}\n",
        verb.name, verb.about, verb.name, verb.operands
    );
    if !verb.details.is_empty() {
        let _ = write!(text, "\nDESCRIPTION:\n   {}\n", verb.details);
    }
    if !verb.flags.is_empty() {
        text += "\nOPTIONS:\n";
        options(&mut text, verb.flags);
    }
    text
}

fn options(text: &mut String, flags: &[Flag]) {
    let names: Vec<String> = flags.iter().map(names).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for (flag, names) in flags.iter().zip(names) {
        let _ = writeln!(text, "   {names:width$}  {}", flag.help);
    }
}

fn names(flag: &Flag) -> String {
    let value = match flag.takes {
        Takes::Nothing => String::new(),
        Takes::Value(name) | Takes::Values(name) => format!(" {name}"),
    };
    match flag.short {
        Some(short) => format!("--{}, -{short}{value}", flag.long),
        None => format!("--{}{value}", flag.long),
    }
}

/// The same command line for clap, from which manual pages and completions are made.
pub fn command() -> clap::Command {
    let global = GLOBAL.iter().filter(|flag| !matches!(flag.long, "help" | "version"));
    let mut command = clap::Command::new("oci-runtime")
        .about(ABOUT)
        .long_about(DETAILS)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .args(global.map(argument));
    for verb in VERBS {
        let operands = clap::Arg::new("operands").value_name(verb.operands).num_args(0..);
        let mut sub = clap::Command::new(verb.name).about(verb.about).args(verb.flags.iter().map(argument));
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
            assert!(of_verb("x", verb).starts_with(&format!("NAME:\n   x {}", verb.name)));
        }
        assert!(of_program("runc").starts_with("NAME:\n   runc - Open Container Initiative runtime\n"));
    }
}
