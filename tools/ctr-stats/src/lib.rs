//! Show what containers use.
#![forbid(unsafe_code)]

mod sample;
mod show;

use cli::{Common, Context, Fault, Kind, OutputMode, Result};
use record::{Container, Record};
use sample::{Known, Sample};
use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use store::{ContainerDir, Status, Store, Subject};

/// Show what containers use
///
/// Of those that run, or of those that are named: processor time, memory without the cache that could be dropped, bytes over the
/// network and to disks, processes. Goes on until it is ended, on a terminal as a table that is drawn again and again. In records
/// counters are whole numbers (nanoseconds, bytes) since the start; "percent" is of one processor, since the sample before.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-stats",
    version,
    after_help = "Examples:
  ctr-stats
  ctr-stats --no-stream web db
  ctr-stats --no-stream | jq -s 'sort_by(-.stats.memory.usage)[:5][] | [.container.name, .stats.memory.usage]'
  ctr-stats --interval 10s | jq -c 'select(.stats.cpu.percent > 90) | .container.name'"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; `-` reads records from stdin; without any, all that run
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Those that do not run, too
    #[arg(short, long)]
    pub all: bool,

    /// Print once and end
    #[arg(long)]
    pub no_stream: bool,

    /// Time between samples: 1s, 500ms [default: 1s; 100ms with --no-stream]
    #[arg(long, value_name = "TIME")]
    pub interval: Option<String>,

    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-stats", common, quiet);

/// Shorter would measure this tool.
const SHORTEST: Duration = Duration::from_millis(10);

/// One container in one round.
pub(crate) struct Row {
    id: String,
    name: String,
    status: Status,
    /// Of one that runs.
    sample: Option<Sample>,
    /// Of one processor, since the round before.
    cpu_percent: Option<f64>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let interval = match &args.interval {
        Some(text) => oci::wishes::health::duration(text)
            .map_err(|fault| fault.as_kind(Kind::Usage).within("--interval"))?,
        // Counted in nanoseconds, a tenth of a second tells as much as a whole one, to somebody who waits for it.
        None => Duration::from_millis(if args.no_stream { 100 } else { 1000 }),
    };
    if interval < SHORTEST {
        return Err(Fault::usage("--interval: shorter than 10 ms"));
    }
    let store = Store::from_env()?;
    let mut rounds = Rounds {
        named: named(args, context, &store)?,
        store,
        all: args.all,
        known: HashMap::new(),
        before: HashMap::new(),
    };
    if rounds.named.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let live = context.mode() == OutputMode::Table && !args.no_stream && std::io::stdout().is_terminal();
    // From beginning to beginning: of many containers looking at them takes its time, too.
    let mut next = Instant::now();
    // A share of the time takes two samples.
    let first = rounds.take()?;
    if context.mode() == OutputMode::Quiet || first.iter().all(|row| row.sample.is_none()) && args.no_stream {
        return print(args, context, &first, live);
    }
    loop {
        next += interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let rows = rounds.take()?;
        print(args, context, &rows, live)?;
        let over = rounds.named.is_some() && rows.iter().all(|row| row.sample.is_none());
        if args.no_stream || over || context.stdout_closed() {
            return Ok(());
        }
    }
}

/// The containers asked for; `None`: all there are.
fn named(args: &Args, context: &mut Context, store: &Store) -> Result<Option<Vec<ContainerDir>>> {
    let subjects: Vec<Subject> = match args.containers.as_slice() {
        [] => return Ok(None),
        [dash] if dash == "-" => context.read_records()?.into_iter().map(Subject::from).collect(),
        names => names.iter().cloned().map(Subject::from).collect(),
    };
    let mut found = Vec::new();
    context.each(subjects, |_, subject| {
        found.push(subject.find(store)?);
        Ok(())
    });
    Ok(Some(found))
}

struct Rounds {
    store: Store,
    named: Option<Vec<ContainerDir>>,
    all: bool,
    /// What does not change while a container is there.
    known: HashMap<String, Known>,
    /// When and how much processor time each had used in the round before.
    before: HashMap<String, (Instant, u64)>,
}

impl Rounds {
    fn take(&mut self) -> Result<Vec<Row>> {
        let dirs = match &self.named {
            Some(dirs) => dirs.clone(),
            None => self.store.containers()?,
        };
        let mut rows = Vec::new();
        for dir in &dirs {
            match self.row(dir) {
                Ok(row) => rows.extend(row),
                // Removed since the directory was read.
                Err(fault) if fault.kind() == Kind::NotFound => {}
                Err(fault) => return Err(fault.on(dir.id.as_str())),
            }
        }
        let there: HashSet<&String> = dirs.iter().map(|dir| &dir.id).collect();
        self.known.retain(|id, _| there.contains(id));
        self.before.retain(|id, _| there.contains(id));
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    fn row(&mut self, dir: &ContainerDir) -> Result<Option<Row>> {
        let status = dir.status()?;
        let runs = matches!(status, Status::Running | Status::Paused);
        if !runs && !self.all && self.named.is_none() {
            return Ok(None);
        }
        let known = match self.known.get(&dir.id) {
            Some(known) => known,
            None => self.known.entry(dir.id.clone()).or_insert(Known::of(dir)?),
        };
        let state = if runs { dir.live_state()? } else { None };
        let now = Instant::now();
        let sample = state.and_then(|state| sample::take(&state, known));
        let mut cpu_percent = None;
        match &sample {
            Some(sample) => {
                if let Some((then, used)) = self.before.insert(dir.id.clone(), (now, sample.usage.cpu)) {
                    let passed = now.duration_since(then).as_nanos() as f64;
                    // Less than before: it was started again.
                    let used = sample.usage.cpu.saturating_sub(used) as f64;
                    cpu_percent = (passed > 0.0).then(|| (used / passed * 10_000.0).round() / 100.0);
                }
            }
            None => drop(self.before.remove(&dir.id)),
        }
        Ok(Some(Row { id: dir.id.clone(), name: known.name.clone(), status, sample, cpu_percent }))
    }
}

fn print(args: &Args, context: &mut Context, rows: &[Row], live: bool) -> Result<()> {
    match context.mode() {
        OutputMode::Quiet => {
            let ids: Vec<&str> = rows.iter().flat_map(|row| [row.id.as_str(), "\n"]).collect();
            context.print(&ids.concat())
        }
        OutputMode::Table => {
            let table = show::table(rows, args.no_trunc);
            if live { context.print(&show::redrawn(&table)) } else { context.print_table(&table) }
        }
        OutputMode::Json => {
            let now = jiff::Timestamp::now().to_string();
            let mut lines = String::new();
            for row in rows {
                let mut record = Record::new();
                let container = Container {
                    id: row.id.clone(),
                    name: row.name.clone(),
                    status: Some(row.status.name().to_owned()),
                    ..Container::default()
                };
                record.set("container", &container)?;
                record.set("stats", &show::json(row, &now))?;
                lines += &record.to_line();
                lines.push('\n');
            }
            context.print(&lines)
        }
    }
}
