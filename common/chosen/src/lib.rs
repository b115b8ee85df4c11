//! What the tools on containers that exist share: which ones are meant, how several are worked on, what is printed.
#![forbid(unsafe_code)]

use cli::{Common, Context, Result};
use record::Record;
use store::{ContainerDir, Status, Store, Subject};

/// The arguments such a tool has.
#[derive(Clone, Debug, clap::Args)]
pub struct Chosen {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    #[command(flatten)]
    pub output: Output,
}

/// How its results are printed, and whether anything is done.
#[derive(Clone, Debug, clap::Args)]
pub struct Output {
    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

impl Chosen {
    /// Those named, else those of the records on stdin.
    pub fn subjects(&self, context: &mut Context) -> Result<Vec<Subject>> {
        Ok(context.input(&self.containers)?.into_subjects())
    }

    /// The same, or with `all` every container whose status is `wanted`.
    pub fn subjects_or_all(
        &self,
        context: &mut Context,
        store: &Store,
        all: bool,
        wanted: impl Fn(Status) -> bool,
    ) -> Result<Vec<Subject>> {
        if all { every(context, store, wanted) } else { self.subjects(context) }
    }
}

/// Every container whose status is `wanted`, by its id.
pub fn every(context: &Context, store: &Store, wanted: impl Fn(Status) -> bool) -> Result<Vec<Subject>> {
    let mut ids = Vec::new();
    for dir in store.containers()? {
        match dir.status() {
            Ok(status) if wanted(status) => ids.push(dir.id),
            Ok(_) => {}
            // One that is broken must not keep the others from it.
            Err(fault) => context.warn(&dir.id, &fault.to_string()),
        }
    }
    ids.sort_unstable();
    Ok(ids.into_iter().map(Subject::from).collect())
}

/// Works on each, up to `at_most` at a time, and prints its record. Failures name the container.
pub fn act(
    context: &mut Context,
    store: &Store,
    subjects: Vec<Subject>,
    at_most: usize,
    act: impl Fn(&ContainerDir, &Subject) -> Result<Record> + Sync,
) {
    let work = |subject: Subject| {
        let dir = subject.find(store)?;
        let record = act(&dir, &subject).map_err(|fault| fault.on(dir.id.as_str()))?;
        Ok((dir.id, subject, record))
    };
    context.each_at_once(subjects, at_most, work, |context, (id, subject, record)| {
        context.print_result(&record, &id, for_people(&subject, &id))
    });
}

/// What people called a container, or its id.
pub fn for_people<'a>(subject: &'a Subject, id: &'a str) -> &'a str {
    match subject {
        Subject::Name(name) => name,
        Subject::Record(_) => id,
    }
}
