//! Change limits and settings of containers.
#![forbid(unsafe_code)]

mod plan;

use chosen::Chosen;
use cli::{Context, Fault, Kind, Result};
use ctr_create::limits::{self, LimitFlags};
use plan::{Change, plan};
use record::{Config, Quantity, Record};
use shim::{Client, Request};
use std::time::Duration;
use store::{ContainerDir, Lock, Store, Subject};

/// Change limits and settings of containers
///
/// Limits and the restart policy of a container that runs change at once, and are kept for its next runs. Of one that does not run,
/// a record that was edited changes anything: environment, command, mounts, ports. Limits of 0 are none.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-update",
    version,
    after_help = "Examples:\n  ctr-update -m 512m --cpus 1.5 web\n  ctr-ls --filter label=batch | ctr-update --cpu-shares 128 -q\n  ctr-inspect web | jq -c '.config.env += [\"A=b\"]' | ctr-update"
)]
pub struct Args {
    #[command(flatten)]
    pub limits: LimitFlags,

    /// When to start it again: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,

    #[command(flatten)]
    pub unsupported: Unsupported,

    #[command(flatten)]
    pub chosen: Chosen,
}

/// docker has them; they are known here to be refused in words of their own.
#[derive(Debug, clap::Args)]
pub struct Unsupported {
    #[arg(long, hide = true)]
    pub kernel_memory: Option<String>,

    #[arg(long, hide = true)]
    pub kernel_memory_tcp: Option<String>,

    #[arg(long, hide = true)]
    pub cpu_rt_period: Option<String>,

    #[arg(long, hide = true)]
    pub cpu_rt_runtime: Option<String>,
}

cli::tool!(Args, "ctr-update", chosen.output.common, chosen.output.quiet);

/// For a shim that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Args {
    fn check(&self) -> Result<()> {
        let no = |flag: &str, why: &str| Err(Fault::usage(format!("{flag} is not supported: {why}")));
        let memory = "kernel memory counts as memory, and Linux has no limit for it alone any more";
        if self.unsupported.kernel_memory.is_some() {
            return no("--kernel-memory", memory);
        }
        if self.unsupported.kernel_memory_tcp.is_some() {
            return no("--kernel-memory-tcp", memory);
        }
        let realtime = "containers get no real-time CPU time";
        if self.unsupported.cpu_rt_period.is_some() {
            return no("--cpu-rt-period", realtime);
        }
        if self.unsupported.cpu_rt_runtime.is_some() {
            return no("--cpu-rt-runtime", realtime);
        }
        if !self.chosen.containers.is_empty()
            && self.restart.is_none()
            && self.limits == LimitFlags::default()
        {
            return Err(Fault::usage("nothing to change: no flag says what")
                .hint("a record that comes in on stdin says it by what was edited in it"));
        }
        Ok(())
    }

    /// Puts what the flags say over a container's configuration.
    fn apply(&self, config: &mut Config) {
        let asked = self.limits.asked();
        limits::merge(config, &asked);
        let none = |quantity: &Option<Quantity>| match quantity {
            Some(Quantity::Text(text)) => text.trim() == "0",
            _ => false,
        };
        // No limit is no member.
        if none(&asked.memory) {
            config.memory = None;
            if asked.memory_swap.is_none() {
                config.memory_swap = None;
            }
        }
        for member in [&mut config.memory_reservation, &mut config.memory_swap, &mut config.cpus] {
            if none(member) {
                *member = None;
            }
        }
        config.cpu_shares = config.cpu_shares.filter(|shares| *shares != 0);
        config.cpu_period = config.cpu_period.filter(|period| *period != 0);
        config.cpu_quota = config.cpu_quota.filter(|quota| *quota != 0);
        config.blkio_weight = config.blkio_weight.filter(|weight| *weight != 0);
        config.pids_limit = config.pids_limit.filter(|limit| !matches!(limit, -1 | 0));
        config.cpuset_cpus = config.cpuset_cpus.take().filter(|list| !list.is_empty());
        config.cpuset_mems = config.cpuset_mems.take().filter(|list| !list.is_empty());
        if let Some(policy) = &self.restart {
            config.restart = Some(policy.clone());
        }
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    args.check()?;
    let store = Store::from_env()?;
    let subjects = args.chosen.subjects(context)?;
    if args.chosen.output.dry_run {
        context.each(subjects, |context, subject| {
            let dir = subject.find(&store)?;
            let mut warnings = Vec::new();
            let steps = plan(&store, &dir, &subject, args)
                .and_then(|change| change.steps(&store, &dir, &mut |text| warnings.push(text.to_owned())))
                .map_err(|fault| fault.on(dir.id.as_str()))?;
            for warning in warnings {
                context.warn(&dir.id, &warning);
            }
            context.print_steps(Some(&dir.id), &steps)
        });
        return Ok(());
    }
    context.each(subjects, |context, subject| {
        let dir = subject.find(&store)?;
        let record = update(&store, &dir, &subject, args, &mut |text| context.warn(&dir.id, text))
            .map_err(|fault| fault.on(dir.id.as_str()))?;
        context.print_result(&record, &dir.id, chosen::for_people(&subject, &dir.id))
    });
    Ok(())
}

fn update(
    store: &Store,
    dir: &ContainerDir,
    subject: &Subject,
    args: &Args,
    warn: &mut dyn FnMut(&str),
) -> Result<Record> {
    // Nobody else changes the record meanwhile.
    let lock = Lock::directory(&dir.bundle)?;
    match plan(store, dir, subject, args).map_err(|fault| as_usage(fault, subject))? {
        Change::Nothing => {}
        Change::Live { resources, config } => {
            let Some(client) = Client::connect(dir)? else {
                return Err(if dir.survivor()?.is_some() {
                    Fault::conflict("its shim was killed, so nobody keeps its limits")
                        .hint("ctr-restart gives it another shim")
                } else {
                    Fault::conflict("the container has just ended")
                });
            };
            client.limit_patience(PATIENCE)?;
            client.request(&Request::Update { resources, config }, &[])?;
        }
        Change::Rewrite { record, config } => {
            drop(lock);
            ctr_create::update(store, dir, &record, *config, warn)?;
        }
    }
    let mut record = subject.current(dir)?;
    let stored = dir.load()?;
    for section in ["config", "spec"] {
        if let Some(text) = stored.raw(section).filter(|_| section == "config" || record.contains(section)) {
            record.set_raw(section, text.to_owned())?;
        }
    }
    Ok(record)
}

/// What is wrong with a flag is wrong with the command line.
fn as_usage(fault: Fault, subject: &Subject) -> Fault {
    match subject {
        Subject::Name(_) if fault.kind() == Kind::Input => fault.as_kind(Kind::Usage),
        _ => fault,
    }
}
