//! Tell what this machine offers for containers, and lacks.
#![forbid(unsafe_code)]

mod files;
mod kernel;
mod network;
mod user;

use cli::{Common, Context, OutputMode, Result, Table};
use record::Record;
use store::Store;

/// Tell what this machine offers for containers, and lacks
///
/// Looks and tries, and changes nothing that lasts. One row per thing: `ok`, `warn` (works, but less well or
/// not everything), or `missing` (containers need it). What to do stands in each row that is not `ok`. Fails with
/// status 1 when something is missing.
#[derive(Debug, clap::Parser)]
#[command(
    name = "sys-check",
    version,
    after_help = "Examples:\n  sys-check\n  sys-check | jq -r 'select(.status != \"ok\") | \"\\(.name): \\(.hint)\"'\n  sys-check -q"
)]
pub struct Args {
    /// Print only the names of what is not ok
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "sys-check", common, quiet);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Warn,
    Missing,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Missing => "missing",
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    name: &'static str,
    status: Status,
    detail: String,
    /// What to do; empty when there is nothing to do.
    hint: String,
}

impl Row {
    fn ok(name: &'static str, detail: impl Into<String>) -> Row {
        Row { name, status: Status::Ok, detail: detail.into(), hint: String::new() }
    }

    fn warn(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Row {
        Row { name, status: Status::Warn, detail: detail.into(), hint: hint.into() }
    }

    fn missing(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Row {
        Row { name, status: Status::Missing, detail: detail.into(), hint: hint.into() }
    }

    fn record(&self) -> Result<Record> {
        let mut record = Record::new();
        record.set("name", &self.name)?;
        record.set("status", &self.status.name())?;
        record.set("detail", &self.detail)?;
        record.set("hint", &self.hint)?;
        Ok(record)
    }
}

pub fn run(_args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let mut rows = kernel::rows();
    rows.extend(network::rows());
    rows.extend(user::rows());
    rows.extend(files::rows(&store));
    print(&rows, context)?;
    if rows.iter().any(|row| row.status == Status::Missing) {
        context.exit_with(1);
    }
    Ok(())
}

fn print(rows: &[Row], context: &mut Context) -> Result<()> {
    match context.mode() {
        OutputMode::Json => {
            for row in rows {
                context.print_record(&row.record()?)?;
            }
            Ok(())
        }
        OutputMode::Quiet => {
            let names: Vec<&str> =
                rows.iter().filter(|row| row.status != Status::Ok).map(|row| row.name).collect();
            names.iter().try_for_each(|name| context.print(&format!("{name}\n")))
        }
        OutputMode::Table => {
            let mut table = Table::new(&["NAME", "STATUS", "DETAIL"]);
            for row in rows {
                table.row([row.name, row.status.name(), &row.detail]);
            }
            context.print_table(&table)?;
            // A table cuts its last column at the terminal's width, and advice must be readable to its end.
            let advice: Vec<String> = rows
                .iter()
                .filter(|row| !row.hint.is_empty())
                .map(|row| format!("{}: {}\n", row.name, row.hint))
                .collect();
            if advice.is_empty() { Ok(()) } else { context.print(&format!("\n{}", advice.concat())) }
        }
    }
}

/// A file's text without the white space around it; `None` when it cannot be read.
fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
