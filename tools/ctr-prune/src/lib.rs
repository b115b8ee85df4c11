//! Remove containers that have ended, and what killed tools left behind.
#![forbid(unsafe_code)]

mod groups;
mod select;
mod sweep;

use cli::words::confirmed;
use cli::{Common, Context, Kind, OutputMode, Result};
use record::{Container, Record};
use select::{Filters, Verdict};
use std::time::{Duration, SystemTime};
use store::{ContainerDir, Store};

/// Remove containers that have ended, and what killed tools left behind
///
/// Removes containers that have ended, and of those never started the ones nobody waits with: their shim is gone,
/// or they were set up more than an hour ago. A younger one may belong to a pipeline that is running.
/// On a terminal it asks first.
///
/// Then it sweeps, whatever the filters: half-made bundles, run directories, names, addresses and control groups of
/// containers that are gone with the processes left in them, and unfinished work of processes that are no more.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-prune",
    version,
    after_help = "Examples:\n  ctr-prune -f\n  ctr-prune --filter until=24h --filter label!=keep | jq -s 'map(.reclaimed_bytes) | add'"
)]
pub struct Args {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,

    /// Remove only containers for which this holds: until=TIME (created before), label=KEY[=VALUE], label!=KEY[=VALUE];
    /// can be given several times
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    /// Remove all that were never started, even those of pipelines that are running
    #[arg(long)]
    pub created: bool,

    /// Remove anonymous volumes of the containers too
    #[arg(long)]
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

cli::tool!(Args, "ctr-prune", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let filters = Filters::parse(&args.filters)?;
    let store = Store::from_env()?;
    if !args.dry_run && !args.force && !confirmed("This will remove all containers that have ended.")? {
        return Ok(());
    }
    let mut pruner = Pruner { store: &store, args, reclaimed: 0, count: 0 };
    context.each(store.containers()?, |context, dir| pruner.container(context, &dir, &filters));
    for plan in [sweep::directories, sweep::holdings] {
        let steps = plan(&store)?;
        if args.dry_run {
            context.print(&steps.iter().map(sweep::Step::describe).collect::<String>())?;
            continue;
        }
        context.each(steps, |_, step| {
            pruner.reclaimed += step.apply(&store)?;
            Ok(())
        });
    }
    if args.dry_run {
        return Ok(());
    }
    // Last, because the sweep itself makes entries there.
    store.sweep_names();
    store.sweep_scratch()?;
    store.sweep_ids()?;
    cgroup::remove_parent(groups::PARENT)?;
    if context.mode() == OutputMode::Table {
        let space = bytes(pruner.reclaimed);
        let lead = if pruner.count > 0 { "\n" } else { "" };
        context.print(&format!("{lead}Total reclaimed space: {space}\n"))?;
    }
    Ok(())
}

struct Pruner<'a> {
    store: &'a Store,
    args: &'a Args,
    reclaimed: u64,
    count: usize,
}

impl Pruner<'_> {
    fn container(&mut self, context: &mut Context, dir: &ContainerDir, filters: &Filters) -> Result<()> {
        let record = match self.candidate(dir, filters) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            // Removed since the directory was read.
            Err(fault) if fault.kind() == Kind::NotFound => return Ok(()),
            // Whether it may go cannot be told; its owner can.
            Err(fault) => {
                context.warn(&dir.id, &format!("left alone: {fault}; remove it with ctr-rm"));
                return Ok(());
            }
        };
        if self.args.dry_run {
            return context.print(&format!(
                "{}\n",
                serde_json::json!({"step": "remove_container", "container": dir.id})
            ));
        }
        // Without force: one that was started meanwhile stays.
        let options = ctr_rm::Options { force: false, volumes: self.args.volumes };
        let freed = match ctr_rm::remove(self.store, dir, options) {
            Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Conflict) => return Ok(()),
            other => other?,
        };
        self.reclaimed += freed;
        if self.count == 0 && context.mode() == OutputMode::Table {
            context.print("Deleted Containers:\n")?;
        }
        self.count += 1;
        let record = removed(record, freed)?;
        context.print_result(&record, &dir.id, &dir.id)
    }

    fn candidate(&self, dir: &ContainerDir, filters: &Filters) -> Result<Option<Record>> {
        let verdict = select::verdict(dir, self.args.created)?;
        if verdict == Verdict::Keep {
            return Ok(None);
        }
        let record = dir.current()?;
        if !filters.hold(&record)? {
            return Ok(None);
        }
        if let Verdict::RemoveOnceOlderThan(age) = verdict {
            wait_for_age(&dir.bundle.join("container.json"), age);
            // Set up, started or removed meanwhile.
            if select::verdict(dir, self.args.created)? == Verdict::Keep {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }
}

fn removed(mut record: Record, freed: u64) -> Result<Record> {
    let mut container: Container = record.require("container")?;
    container.status = Some("removed".to_owned());
    container.pid = None;
    record.set("container", &container)?;
    record.set("reclaimed_bytes", &freed)?;
    Ok(record)
}

/// Waits until a file or directory has been left alone for so long. What is younger may belong to a tool that is between
/// making it and locking it.
fn wait_for_age(path: &std::path::Path, age: Duration) {
    if let Some(left) = age_of(path).and_then(|present| age.checked_sub(present)) {
        std::thread::sleep(left);
    }
}

/// `None` if it is gone. What comes from the future is new.
fn age_of(path: &std::path::Path) -> Option<Duration> {
    let modified = std::fs::symlink_metadata(path).and_then(|status| status.modified()).ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

/// Bytes in decimal units with four digits at most, as docker prints them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 || value >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words() {
        for (count, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (12_345, "12.35kB"),
            (100_000_000, "100MB"),
            (756_000_000_000, "756GB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
