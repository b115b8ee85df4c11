//! List what containers changed in their files.
#![forbid(unsafe_code)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cli::{Common, Context, OutputMode, Result};
use layer::ItemKind;
use layer::pack::Member;
use rootfs::{Change, Changes, Content, Visitor};
use serde::Serialize;
use store::{Store, Subject};

/// List what containers changed in their files
///
/// What was added (A), changed (C) and deleted (D) against the image, a line each, a directory before what is in it. Volumes and whatever
/// else is mounted in a container is not the container's, so it is not listed, nor is what was made to mount it on. Running containers and ended
/// ones alike; nothing is read but the read-write layer and what it is compared with.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-diff",
    version,
    after_help = "Examples:\n  ctr-diff web\n  ctr-diff web | jq -r 'select(.change == \"added\" and .size > 1e6) | .path'\n  ctr-ls --all | ctr-diff | jq -r '[.container, .path] | @tsv'"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Print paths only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-diff", common, quiet);

/// Lines are printed in pieces of this size, in bytes.
const PIECE: usize = 64 << 10;

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.containers)?.into_subjects();
    rootfs::allow_many_files();
    context.each(subjects, |context, subject| {
        let dir = subject.find(&store)?;
        let mut printer = Printer { mode: context.mode(), container: &dir.id, context, text: String::new() };
        Changes::of(&dir)
            .and_then(|changes| changes.visit(&mut printer))
            .map_err(|fault| fault.on(dir.id.as_str()))?;
        printer.flush()
    });
    Ok(())
}

struct Printer<'a> {
    context: &'a mut Context,
    mode: OutputMode,
    container: &'a str,
    text: String,
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line<'a> {
    container: &'a str,
    /// `added`, `changed` or `deleted`.
    change: &'a str,
    /// Absolute.
    path: String,
    /// The path's bytes in base64, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// What it is; absent for what was deleted.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Bytes of content, of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

impl Printer<'_> {
    fn line(&mut self, change: &str, path: &[u8], member: Option<&Member<'_>>) -> Result<()> {
        let shown = format!("/{}", String::from_utf8_lossy(path));
        match self.mode {
            OutputMode::Json => {
                let is_text = std::str::from_utf8(path).is_ok();
                let line = Line {
                    container: self.container,
                    change,
                    path_base64: (!is_text).then(|| STANDARD.encode([b"/", path].concat())),
                    path: shown,
                    kind: member.map(|member| member.kind.name()),
                    size: member.filter(|member| member.kind == ItemKind::File).map(|member| member.size),
                };
                let line = serde_json::to_string(&line)
                    .map_err(|error| cli::Fault::failed("print a change").because(error))?;
                self.text.push_str(&line);
            }
            OutputMode::Quiet => self.text.push_str(&one_line(&shown)),
            OutputMode::Table => {
                self.text.push_str(match change {
                    "added" => "A ",
                    "deleted" => "D ",
                    _ => "C ",
                });
                self.text.push_str(&one_line(&shown));
            }
        }
        self.text.push('\n');
        if self.text.len() > PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() || self.context.stdout_closed() { Ok(()) } else { self.context.print(&text) }
    }
}

impl Visitor for Printer<'_> {
    fn there(&mut self, change: Change, member: &Member<'_>, _: Content<'_>) -> Result<()> {
        let word = match change {
            Change::Added => "added",
            Change::Modified => "changed",
            Change::Kept => return Ok(()),
        };
        self.line(word, member.path, Some(member))
    }

    fn deleted(&mut self, path: &[u8], _: bool) -> Result<()> {
        self.line("deleted", path, None)
    }

    fn opaque(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Names in a container are anybody's: no control character of them reaches a terminal, and none ends a line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
