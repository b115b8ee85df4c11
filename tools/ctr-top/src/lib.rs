//! Print the processes of containers.
#![forbid(unsafe_code)]

mod column;
mod process;

use cgroup::Cgroup;
use cli::{Common, Context, Fault, Kind, OutputMode, Result, Table};
use column::Column;
use process::{Machine, Process};
use record::{Container, Record};
use serde_json::{Map, Value};
use store::{ContainerDir, Status, Store, Subject};

/// Print the processes of containers
///
/// Read from the host's /proc, so nothing has to be in the image. On a terminal docker's columns; otherwise the record
/// with a section "processes", an object for each with every column as a member: bytes, seconds and numbers as such.
///
/// Columns:
///   user uid group gid           as in the container's own /etc/passwd and /etc/group
///   pid ppid                     in the container; 0 is outside
///   hpid hppid                   on the host
///   pcpu c                       percent of one CPU since it began
///   vsz rss                      bytes of address space, of memory (in tables KiB)
///   tty state nice threads
///   start stime etime time       when it began, seconds since, seconds of CPU time
///   comm args                    its name, its command line
///   capinh capprm capeff capbnd capamb   capabilities
///   seccomp label                disabled, strict or filter; security label
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-top",
    version,
    verbatim_doc_comment,
    after_help = "Examples:\n  ctr-top web\n  ctr-top -o pid,hpid,user,rss,args web\n  ctr-ls | ctr-top | jq -r '.container.name as $n | .processes[] | [$n, .hpid, .rss] | @tsv'"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Columns to print, or members of the objects
    #[arg(short = 'o', long, value_name = "COLUMN", value_delimiter = ',')]
    pub columns: Vec<String>,

    /// Every container that runs
    #[arg(short, long, conflicts_with = "containers")]
    pub all: bool,

    /// Print process ids of the host only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-top", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let columns = args.columns.iter().map(|name| column::named(name)).collect::<Result<Vec<&Column>>>()?;
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = if args.all {
        chosen::every(context, &store, |status| matches!(status, Status::Running | Status::Paused))?
    } else {
        context.input(&args.containers)?.into_subjects()
    };
    let machine = Machine::now()?;
    let several = subjects.len() > 1;
    let mut first = true;
    context.each(subjects, |context, subject| {
        // Removed, or ended, since they were listed.
        let passed = |fault: &Fault| args.all && matches!(fault.kind(), Kind::NotFound | Kind::Conflict);
        let dir = match subject.find(&store) {
            Err(fault) if passed(&fault) => return Ok(()),
            found => found?,
        };
        let processes = match processes(&dir) {
            Err(fault) if passed(&fault) => return Ok(()),
            found => found.map_err(|fault| fault.on(dir.id.as_str()))?,
        };
        match context.mode() {
            OutputMode::Json => {
                context.print_record(&with_section(&dir, &subject, &processes, &machine, &columns)?)
            }
            OutputMode::Quiet => {
                let lines = processes.iter().map(|process| format!("{}\n", process.host_pid));
                context.print(&lines.collect::<String>())
            }
            OutputMode::Table => {
                if several {
                    let name = dir.load()?.require::<Container>("container")?.name;
                    let gap = if std::mem::take(&mut first) { "" } else { "\n" };
                    context.print(&format!("{gap}{name}:\n"))?;
                }
                context.print_table(&table(&processes, &machine, &columns))
            }
        }
    });
    Ok(())
}

/// Those in the container's control group, by their numbers on the host.
fn processes(dir: &ContainerDir) -> Result<Vec<Process>> {
    let status = dir.status()?;
    let not_running =
        || Fault::conflict(format!("not running, but {}", status.name())).hint("ctr-start starts it");
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(not_running());
    }
    let state = dir.live_state()?.ok_or_else(not_running)?;
    let group = match state.cgroup.as_slice() {
        [] => Cgroup::of_process(state.pid)?,
        directories => Cgroup::open(directories)?,
    };
    let mut processes = process::read(state.pid, &group.all_processes()?);
    if processes.is_empty() {
        return Err(Fault::conflict("the container has just ended"));
    }
    process::name_users(&mut processes, state.pid);
    processes.sort_by_key(|process| (process.started_ticks, process.host_pid));
    Ok(processes)
}

fn with_section(
    dir: &ContainerDir,
    subject: &Subject,
    processes: &[Process],
    machine: &Machine,
    columns: &[&Column],
) -> Result<Record> {
    let all: Vec<&Column> = column::ALL.iter().filter(|column| !column.only_asked).collect();
    let columns = if columns.is_empty() { &all } else { columns };
    let object = |process: &Process| -> Map<String, Value> {
        columns.iter().map(|column| (column.name.to_owned(), (column.value)(process, machine))).collect()
    };
    let mut record = subject.current(dir)?;
    record.set("processes", &processes.iter().map(object).collect::<Vec<_>>())?;
    Ok(record)
}

fn table(processes: &[Process], machine: &Machine, columns: &[&Column]) -> Table {
    let (headings, columns): (Vec<&str>, Vec<&Column>) = if columns.is_empty() {
        column::docker()
    } else {
        (columns.iter().map(|column| column.heading).collect(), columns.to_vec())
    };
    let mut table = Table::new(&headings);
    for process in processes {
        table.row(columns.iter().map(|column| column.text(process, machine)));
    }
    table
}
