//! What every tool's `main` shares: the rules for arguments, stdin and stdout of the pipe contract, errors and
//! exit statuses, tables.
//!
//! A tool is a library with an `Args` type and a `run` function; its `main` is one call of [`main`].
#![forbid(unsafe_code)]

mod context;
pub mod moment;
pub mod progress;
pub mod screen;
mod table;
pub mod words;

pub use context::{Context, Input, Out, OutputMode};
pub use fault::{Explain, Fault, Kind, Result};
pub use progress::{Progress, ProgressArgs};
pub use table::Table;

use clap::{Args as ClapArgs, Parser, ValueEnum};
use std::ffi::OsString;
use std::process::ExitCode;

/// Flags every tool has. Flatten it: `#[command(flatten)] pub common: cli::Common`.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Common {
    /// Print records (json) or a table for people; by default a table on a terminal, records otherwise
    #[arg(long, value_enum, value_name = "FORMAT", global = true, help_heading = "Output")]
    pub output: Option<OutputFormat>,

    /// How errors are written to stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    pub error_format: ErrorFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Json,
    Table,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ErrorFormat {
    #[default]
    Text,
    Json,
}

/// The arguments of one tool.
pub trait Tool: Parser {
    /// Name of the program, `img-pull`.
    const NAME: &'static str;

    /// Exit status of arguments that are not understood: docker's 125 where another may be the container's.
    const USAGE_STATUS: u8 = 2;

    fn common(&self) -> &Common;

    /// `-q`: print only ids or names.
    fn quiet(&self) -> bool {
        false
    }

    /// Tools that stand in for a container's process (`ctr-run`, `ctr-exec` …) report their own failures with
    /// docker's 125 instead of the kind's status.
    fn own_failure_status(&self) -> Option<u8> {
        None
    }
}

/// Implements [`Tool`] for arguments of the usual shape: the program's name, where their [`Common`] is and, if they have it, `--quiet`.
#[macro_export]
macro_rules! tool {
    ($args:ty, $name:literal, $($common:ident).+ $(, $($quiet:ident).+)?) => {
        impl $crate::Tool for $args {
            const NAME: &'static str = $name;

            fn common(&self) -> &$crate::Common {
                &self.$($common).+
            }

            $(fn quiet(&self) -> bool {
                self.$($quiet).+
            })?
        }
    };
}

/// Runs a tool with the process's arguments.
pub fn main<T: Tool>(run: fn(&T, &mut Context) -> Result<()>) -> ExitCode {
    let status = run_with(std::env::args_os(), run);
    // The next stage waits for the end of this one's output, and need not wait for the kernel to take a process apart.
    let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
    ExitCode::from(status)
}

/// Runs a tool with the given arguments, the program's name first; returns the exit status.
pub fn run_with<T: Tool>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    run: fn(&T, &mut Context) -> Result<()>,
) -> u8 {
    let args = match T::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => return usage(T::NAME, T::USAGE_STATUS, &error),
    };
    let mut context = Context::new(T::NAME, args.common().clone(), args.quiet(), args.own_failure_status());
    if let Err(fault) = run(&args, &mut context) {
        context.report(&fault);
    }
    context.finish()
}

/// What to say of an option there is not, with the one that was probably meant.
fn unknown_option(tool: &str, error: &clap::Error) -> Option<Fault> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg).filter(|option| option.starts_with('-'))?;
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let way_out = match text(ContextKind::SuggestedArg) {
        Some(meant) => format!("{meant} is one; `{tool} --help` tells all"),
        None => format!("`{tool} --help` tells all; what belongs to a command goes after `--`"),
    };
    Some(Fault::usage(format!("unknown option {option}")).hint(way_out))
}

/// Help and version go to stdout with status 0; anything else is one line, clap's hints, and `status`.
fn usage(tool: &str, status: u8, error: &clap::Error) -> u8 {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that closed the pipe has seen enough.
        let _ = error.print();
        return 0;
    }
    let json = std::env::args_os().any(|a| a == "--error-format=json")
        || std::env::args_os()
            .zip(std::env::args_os().skip(1))
            .any(|(a, b)| a == "--error-format" && b == "json");
    let fault = unknown_option(tool, error).unwrap_or_else(|| {
        let text = error.to_string();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let what = lines.next().unwrap_or("wrong arguments").trim_start_matches("error: ").to_owned();
        let rest: Vec<&str> = lines.map(str::trim).collect();
        Fault::usage(what).hint(rest.join("; "))
    });
    context::print_fault(tool, &fault, if json { ErrorFormat::Json } else { ErrorFormat::Text });
    status
}
