//! Detach containers from their networks.
#![forbid(unsafe_code)]

use cli::{Common, Context, Input, Kind, Result};
use network::Host;
use record::{Config, Container};
use store::{ContainerDir, Store, Subject, is_id};

/// Detach containers from their networks
///
/// Removes the interface, the published ports and the address. Works in any state of the container; what is not
/// there is not missed. A container that is gone can be named by its full id, or by its record.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-detach",
    version,
    after_help = "Examples:
  net-detach web
  net-detach --network db web
  ctr-inspect web | net-detach | net-attach -p 9090:80
  ctr-ls --all --filter status=exited | net-detach -q"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Names or ids of containers; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Only from this network; the others stay. May be given several times
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ended", "dry_run"])]
    pub network: Vec<String>,

    /// Leave the attachments in the records of containers that have ended, by which their next start attaches them again
    #[arg(long, conflicts_with = "dry_run")]
    pub ended: bool,

    /// The network namespace the container had, for CNI plugins to undo there what they did; whoever gives it holds it open
    #[arg(long, value_name = "PATH", requires = "ended")]
    pub netns: Option<String>,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print only ids
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

cli::tool!(Args, "net-detach", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let subjects: Vec<Subject> = match context.input(&args.containers)? {
        Input::Records(records) => records.into_iter().map(Subject::from).collect(),
        Input::Names(names) => names.into_iter().map(Subject::from).collect(),
    };
    let store = Store::from_env()?;
    let host = Host::new(&store)?.holding(args.netns.clone());
    context.each(subjects, |context, subject| detach(args, context, &host, &subject));
    Ok(())
}

fn detach(args: &Args, context: &mut Context, host: &Host<'_>, subject: &Subject) -> Result<()> {
    let container = find(host.store, subject)?;
    let on = |fault: cli::Fault| fault.on(container.id.as_str());
    let mut record = match subject {
        Subject::Record(record) => (**record).clone(),
        Subject::Name(_) if container.exists() => container.load().map_err(on)?,
        Subject::Name(_) => record::Record::new(),
    };
    let told = record.networks().map_err(on)?;
    if args.dry_run {
        let steps = network::plan_detach(host, &container, &told).map_err(on)?;
        return context.print_steps(Some(&container.id), &steps);
    }
    let mut left = Vec::new();
    if args.ended {
        network::release(host, &container).map_err(on)?;
    } else if args.network.is_empty() {
        network::detach(host, &container, &told).map_err(on)?;
    } else {
        let before = container.load().map_err(on)?.config().map_err(on)?.ports;
        left = network::detach_from(host, &container, &args.network).map_err(on)?;
        // A later stage must not attach it again.
        if let Subject::Record(_) = subject {
            let kept = container.load().map_err(on)?.config().map_err(on)?;
            let mut config = record.config().map_err(on)?;
            // Those that no network leads to any more.
            config.ports.retain(|port| kept.ports.contains(port) || !before.contains(port));
            record.set("config", &Config { network: kept.network, networks: kept.networks, ..config })?;
        }
    }
    for note in host.take_notes() {
        context.warn("", &note);
    }
    for fault in network::dns::heal(host, told.iter().map(|attachment| attachment.name.as_str())) {
        context.warn("", &fault.to_string());
    }
    for attachment in told.iter().filter(|one| left.iter().all(|other| other.name != one.name)) {
        let who = store::Who::network(&attachment.name);
        host.store.event(&who, "disconnect", serde_json::json!({"container": container.id}));
    }
    if let Subject::Name(_) = subject
        && container.exists()
    {
        record = container.current().map_err(on)?;
    }
    if !record.contains("container") {
        record.set("container", &Container { id: container.id.clone(), ..Container::default() })?;
    }
    if !args.ended {
        record.set("networks", &left)?;
    }
    let name = record.container()?.map(|told| told.name).filter(|name| !name.is_empty());
    context.print_result(&record, &container.id, name.as_deref().unwrap_or(&container.id))
}

/// A container that is gone may have left something behind, so its id is enough.
fn find(store: &Store, subject: &Subject) -> Result<ContainerDir> {
    let gone = match subject {
        Subject::Name(name) => Some(name.clone()),
        Subject::Record(record) => record.container()?.map(|container| container.id),
    };
    match (subject.find(store), gone) {
        (Err(fault), Some(id)) if fault.kind() == Kind::NotFound && is_id(&id) => {
            Ok(store.container_dir(&id))
        }
        (found, _) => found,
    }
}
