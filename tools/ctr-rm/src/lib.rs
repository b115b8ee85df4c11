//! Remove containers.
#![forbid(unsafe_code)]

mod remove;

pub use remove::{Options, Remains, Step, detach, discard, plan, remove, take_apart, take_away};

use cli::{Common, Context, Kind, Result};
use record::{Container, Record};
use store::{ContainerDir, Store, Subject};

/// Remove containers
///
/// A container that waits to be started is removed, too; one that runs only with --force.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-rm",
    version,
    after_help = "Examples:\n  ctr-rm -f web\n  ctr-ls --filter status=exited | ctr-rm\n  ctr-stop web | ctr-rm -v"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Kill those that run; a container that does not exist is no failure
    #[arg(short, long)]
    pub force: bool,

    /// Remove their anonymous volumes too
    #[arg(short, long)]
    pub volumes: bool,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-rm", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let options = Options { force: args.force, volumes: args.volumes };
    let subjects: Vec<Subject> = context.input(&args.containers)?.into_subjects();
    if args.dry_run {
        context.each(subjects, |context, subject| {
            let dir = subject.find(&store)?;
            context.print(&describe(&dir.id, &plan(&store, &dir, options)?)?)
        });
        return Ok(());
    }
    // The end of a container's namespaces is mostly waiting for the kernel, so several go at once.
    let work = |subject: Subject| match remove_one(&store, &subject, options) {
        // Gone is what --force wants; saying so helps against a mistyped name.
        Err(fault) if args.force && fault.kind() == Kind::NotFound => Ok(Removed::Absent(subject)),
        other => other.map(|(dir, record)| Removed::Done(dir, subject, Box::new(record))),
    };
    context.each_at_once(subjects, 8, work, |context, removed| match removed {
        Removed::Absent(subject) => {
            context.warn(&name_of(&subject), "no such container");
            Ok(())
        }
        Removed::Done(dir, subject, record) => {
            let for_people = match &subject {
                Subject::Name(name) => name.as_str(),
                Subject::Record(_) => dir.id.as_str(),
            };
            context.print_result(&record, &dir.id, for_people)
        }
    });
    Ok(())
}

enum Removed {
    Done(ContainerDir, Subject, Box<Record>),
    Absent(Subject),
}

fn remove_one(store: &Store, subject: &Subject, options: Options) -> Result<(ContainerDir, Record)> {
    let dir = subject.find(store)?;
    let mut record = last_words(subject, &dir);
    remove(store, &dir, options)?;
    if let Some(mut container) = record.container().ok().flatten() {
        container.status = Some("removed".to_owned());
        container.pid = None;
        record.set("container", &container)?;
    }
    Ok((dir, record))
}

/// The record to print in the end. One that nobody can read does not keep its container from being removed.
fn last_words(subject: &Subject, dir: &ContainerDir) -> Record {
    subject.current(dir).unwrap_or_else(|_| match subject {
        Subject::Record(record) => (**record).clone(),
        Subject::Name(_) => {
            let mut record = Record::new();
            // A string and a name are always JSON.
            let _ = record.set("container", &Container { id: dir.id.clone(), ..Container::default() });
            record
        }
    })
}

fn name_of(subject: &Subject) -> String {
    match subject {
        Subject::Name(name) => name.clone(),
        Subject::Record(record) => record.container().ok().flatten().map(|c| c.id).unwrap_or_default(),
    }
}

fn describe(id: &str, steps: &[Step]) -> Result<String> {
    let mut text = String::new();
    for step in steps {
        let mut line = serde_json::to_value(step)
            .map_err(|error| cli::Fault::failed("print the plan").because(error))?;
        line["container"] = id.into();
        text += &line.to_string();
        text.push('\n');
    }
    Ok(text)
}
