//! Print systemd units of containers, and read quadlets.
#![forbid(unsafe_code)]
// One record with everything in it.
#![cfg_attr(test, recursion_limit = "256")]

mod compare;
mod keys;
mod mounts;
pub mod read;
pub mod section;
pub mod service;
mod specifier;
mod syntax;
pub mod write;

use cli::{Common, Context, Explain, Fault, Kind, OutputFormat, Result};
use read::Origin;
use record::Record;
use service::{File, Machine, Wishes};
use specifier::Specifiers;
use std::io::Read;
use std::path::{Path, PathBuf};
use store::{Store, Subject};

/// Print systemd units of containers, and read quadlets
///
/// For a container that exists, the unit starts and stops it. For a record without a container, or with --new, it makes a
/// container at each start and removes it at the end. With --read, podman's quadlets become records.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-unit",
    version,
    after_help = "Examples:
  ctr-unit web >/etc/systemd/system/web.service
  ctr-inspect web | ctr-unit --new --name --files --directory /etc/systemd/system
  ctr-unit --format quadlet web >web.container
  ctr-unit --read web.container | img-pull | img-unpack | ctr-create | net-attach | ctr-start
  ctr-unit --read web.container | jq -c '.unit.service += [\"Nice=5\"]' | ctr-unit >web.service"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER", conflicts_with = "read")]
    pub containers: Vec<String>,

    /// Read a quadlet (.container) as a record; -: from stdin
    #[arg(long, value_name = "FILE")]
    pub read: Vec<PathBuf>,

    /// What to print: record (of what --read has read: the default there), service (the default else), quadlet
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// Make a container at each start and remove it at the end
    #[arg(long)]
    pub new: bool,

    /// Call the container, and the unit after it, by its name and not by its id
    #[arg(short, long)]
    pub name: bool,

    /// Write files instead of printing, and print their paths
    #[arg(short, long)]
    pub files: bool,

    /// Where --files writes [default: here]
    #[arg(long, value_name = "DIR", requires = "files")]
    pub directory: Option<PathBuf>,

    /// What the unit's name begins with, unless a quadlet says another
    #[arg(long, value_name = "PREFIX", default_value = "container")]
    pub container_prefix: String,

    /// What stands between that and the name or id
    #[arg(long, value_name = "SEPARATOR", default_value = "-")]
    pub separator: String,

    /// When systemd starts it again [default: as the restart policy says, else on-failure]
    #[arg(long, value_name = "POLICY", value_parser = RESTART)]
    pub restart_policy: Option<String>,

    /// Seconds before it is started again
    #[arg(long, value_name = "SECONDS")]
    pub restart_sec: Option<u64>,

    /// Seconds starting may take
    #[arg(long, value_name = "SECONDS")]
    pub start_timeout: Option<u64>,

    /// Seconds between the stop signal and KILL; -1: never [default: the container's]
    #[arg(short = 't', long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pub stop_timeout: Option<i64>,

    /// Start it after this unit
    #[arg(long, value_name = "UNIT")]
    pub after: Vec<String>,

    /// Start this unit with it, and do not go without
    #[arg(long, value_name = "UNIT")]
    pub requires: Vec<String>,

    /// Start this unit with it
    #[arg(long, value_name = "UNIT")]
    pub wants: Vec<String>,

    /// Set a variable of the service's own processes; without a value it is taken from here, NAME* takes all that begin so
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// Leave out the comment with the name and where it comes from
    #[arg(long)]
    pub no_header: bool,

    /// With --files, print what would be written, and write nothing
    #[arg(long, requires = "files")]
    pub dry_run: bool,

    /// Print names of unit files only
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

/// systemd's own.
const RESTART: [&str; 7] =
    ["no", "always", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As --read has read it
    Record,
    /// A service of systemd
    Service,
    /// podman's .container
    Quadlet,
}

cli::tool!(Args, "ctr-unit", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects: Vec<Source> = if args.read.is_empty() {
        if args.containers.is_empty() {
            context.require_records()?.into_iter().map(|record| Source::Subject(record.into())).collect()
        } else {
            args.containers.iter().cloned().map(|name| Source::Subject(name.into())).collect()
        }
    } else {
        args.read.iter().cloned().map(Source::Quadlet).collect()
    };
    let format = match args.format {
        Some(Format::Record) if args.read.is_empty() => {
            return Err(Fault::usage("--format record goes with --read")
                .hint("ctr-inspect prints a container's record"));
        }
        Some(format) => format,
        None if args.read.is_empty() => Format::Service,
        None => Format::Record,
    };
    let as_text = format != Format::Record
        && !args.files
        && !args.quiet
        && args.common.output != Some(OutputFormat::Json);
    if as_text && subjects.len() > 1 {
        return Err(
            Fault::usage("several units on one stdout would be one").hint("--files, or --output json")
        );
    }
    let machine = machine(&store)?;
    let wishes = wishes(args, &store)?;
    context.each(subjects, |context, source| {
        let called = source.called();
        let mut act = || {
            let record = source.record(&store)?;
            if format == Format::Record {
                return context.print_record(&record);
            }
            let file = unit(args, format, &record, &wishes, &machine)?;
            emit(args, context, record, &file)
        };
        act().map_err(|fault| match called {
            Some(called) if fault.subject().is_none() => fault.on(called),
            _ => fault,
        })
    });
    Ok(())
}

enum Source {
    Subject(Subject),
    Quadlet(PathBuf),
}

impl Source {
    fn called(&self) -> Option<String> {
        match self {
            Source::Subject(Subject::Name(name)) => Some(name.clone()),
            Source::Subject(Subject::Record(record)) => {
                let name = record.container().ok().flatten().map(|container| container.name);
                name.or_else(|| record.config().ok().and_then(|config| config.name))
            }
            Source::Quadlet(path) => Some(path.display().to_string()),
        }
    }

    fn record(&self, store: &Store) -> Result<Record> {
        match self {
            Source::Subject(Subject::Name(name)) => store.find_container(name)?.current(),
            Source::Subject(Subject::Record(record)) => Ok((**record).clone()),
            Source::Quadlet(path) => read_quadlet(path),
        }
    }
}

/// A file, or stdin, as a record.
fn read_quadlet(path: &Path) -> Result<Record> {
    let of_stdin = path == Path::new("-");
    let open = || -> Result<Box<dyn Read>> {
        if of_stdin {
            return Ok(Box::new(std::io::stdin()));
        }
        let file = std::fs::File::open(path).map_err(|error| {
            let kind = if error.kind() == std::io::ErrorKind::NotFound {
                Kind::NotFound
            } else {
                Kind::of_io(&error)
            };
            Fault::new(kind, "open the quadlet").because(error)
        })?;
        Ok(Box::new(file))
    };
    let mut content = Vec::new();
    open()?
        .take(syntax::MAX_FILE as u64 + 1)
        .read_to_end(&mut content)
        .explain(|| "read the quadlet".into())?;
    let text = String::from_utf8(content).map_err(|_| Fault::input("it is not UTF-8"))?;
    let absolute = std::path::absolute(path).explain(|| "find the quadlet".into())?;
    let directory =
        if of_stdin { std::env::current_dir().ok() } else { absolute.parent().map(Path::to_owned) };
    let name = if of_stdin { None } else { Some(unit_name(path)?) };
    read::quadlet(
        &text,
        &Origin { specifiers: Specifiers { name }, directory: directory.unwrap_or_default() },
    )
}

/// `web.container` is `web`.
fn unit_name(path: &Path) -> Result<String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    section::check_name(stem)?;
    if stem.ends_with('@') {
        return Err(Fault::input(
            "it is a template, and what its instance is called is known only when that is started",
        )
        .hint("link it under the instance's name: web@a.container"));
    }
    Ok(stem.to_owned())
}

fn machine(store: &Store) -> Result<Machine> {
    let own = std::env::current_exe().explain(|| "find this executable".into())?;
    let start = shim::sibling("ctr-start").unwrap_or_else(|_| own.with_file_name("ctr-start"));
    let text = |path: &Path| {
        let text = path.to_str().filter(|text| !syntax::has_control(text)).map(str::to_owned);
        text.ok_or_else(|| Fault::failed(format!("the path {} cannot be in a unit", path.display())))
    };
    Ok(Machine {
        tools: text(start.parent().unwrap_or(Path::new("/")))?,
        directories: vec![text(store.root())?, text(store.run())?],
    })
}

fn wishes(args: &Args, store: &Store) -> Result<Wishes> {
    let mut env = Vec::new();
    // Without these the unit's tools would look elsewhere.
    for (name, path) in [("STAVES_ROOT", store.root()), ("STAVES_RUN", store.run())] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            env.push(format!("{name}={}", path.display()));
        }
    }
    for text in &args.env {
        env.extend(variables(text)?);
    }
    Ok(Wishes {
        new: args.new,
        by_name: args.name,
        prefix: args.container_prefix.clone(),
        separator: args.separator.clone(),
        restart_policy: args.restart_policy.clone(),
        restart_sec: args.restart_sec,
        start_timeout: args.start_timeout,
        stop_timeout: args.stop_timeout,
        after: args.after.clone(),
        requires: args.requires.clone(),
        wants: args.wants.clone(),
        env,
    })
}

/// podman's: `NAME=value`, `NAME` of this environment, `NAME*`.
fn variables(text: &str) -> Result<Vec<String>> {
    if text.contains('=') {
        if syntax::has_control(text) || text.starts_with('=') {
            return Err(Fault::usage(format!("{text:?} is not a variable for a unit")));
        }
        return Ok(vec![text.to_owned()]);
    }
    let wanted = |name: &str| match text.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == text,
    };
    let mut found: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| wanted(name) && !syntax::has_control(value))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    found.sort();
    Ok(found)
}

fn unit(args: &Args, format: Format, record: &Record, wishes: &Wishes, machine: &Machine) -> Result<File> {
    if format == Format::Service {
        return service::service(record, wishes, machine, !args.no_header);
    }
    let name = service::file_name(record, wishes, "container")?;
    let header = if args.no_header {
        String::new()
    } else {
        format!("# {name}\n# made by ctr-unit {}\n", env!("CARGO_PKG_VERSION"))
    };
    Ok(File { text: write::text(record, &header)?, name })
}

fn emit(args: &Args, context: &mut Context, mut record: Record, file: &File) -> Result<()> {
    let mut made = serde_json::json!({"name": file.name, "content": file.text});
    let mut shown = file.name.clone();
    if args.files {
        let path = args.directory.clone().unwrap_or_default().join(&file.name);
        let path = std::path::absolute(&path).explain(|| format!("find {}", path.display()))?;
        shown = path.display().to_string();
        made["path"] = shown.clone().into();
        if args.dry_run {
            return context.print(&format!("{}\n", serde_json::json!({"step": "write", "path": shown})));
        }
        store::atomic::write(&path, file.text.as_bytes(), 0o644)?;
    }
    if args.common.output == Some(OutputFormat::Json) {
        record.set("unit_file", &made)?;
        return context.print_record(&record);
    }
    context.print(&if args.files || args.quiet { format!("{shown}\n") } else { file.text.clone() })
}

#[cfg(test)]
mod tests;
