//! Attach containers to a network.
#![forbid(unsafe_code)]

mod plugin;

use cli::{Common, Context, Result};
use network::{Host, Request};
use oci::wishes;
use record::{Attachment, Config, NetworkWish, Port, Record};
use shim::Client;
use store::{ContainerDir, Store, Subject};

/// Attach containers to a network
///
/// Gives each container an interface with an address, a way out and, with -p, a way in. The container must be set
/// up (ctr-create does that) or running. Attaching again changes nothing, except that ports asked for in addition
/// are published.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-attach",
    version,
    after_help = "Examples:
  img-pull nginx | img-unpack | ctr-create | net-attach -p 8080:80 | ctr-start
  ctr-inspect web | jq -c '.config.ports += [\"127.0.0.1:5353:53/udp\"]' | net-attach
  net-attach -p 8443:443 web
  net-attach --network db:alias=cache,ip=10.90.0.9 web"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Names or ids of containers; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Publish a port of the container on the host, in addition to the record's
    ///
    /// [[IP:][HOST[-HOST]]:]PORT[-PORT][/tcp|udp|sctp]. Without HOST a free port is chosen; a range of HOST for one PORT
    /// takes a free one of it. 8080:80 is reachable from everywhere, 127.0.0.1:8080:80 from this host only.
    #[arg(short, long, value_name = "PORTS")]
    pub publish: Vec<String>,

    /// Network to attach to instead of the record's: NAME[:alias=A,ip=…,ip6=…,mac=…,ifname=…,gw-priority=N,…]
    ///
    /// May be given several times. What the container is attached to already stays.
    #[arg(long, value_name = "NETWORK")]
    pub network: Vec<String>,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print only ids
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

cli::tool!(Args, "net-attach", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if plugin::is_asked(args) {
        return plugin::run(context);
    }
    let subjects: Vec<Subject> = match args.containers.as_slice() {
        [] => context.require_records()?.into_iter().map(Subject::from).collect(),
        names => names.iter().cloned().map(Subject::from).collect(),
    };
    let usage = |fault: cli::Fault| fault.as_kind(cli::Kind::Usage);
    let networks: Vec<NetworkWish> =
        args.network.iter().map(|text| wishes::network(text).map_err(usage)).collect::<Result<_>>()?;
    let store = Store::from_env()?;
    let host = Host::new(&store)?;
    context.each(subjects, |context, subject| attach(args, &networks, context, &host, &subject));
    Ok(())
}

fn attach(
    args: &Args,
    networks: &[NetworkWish],
    context: &mut Context,
    host: &Host<'_>,
    subject: &Subject,
) -> Result<()> {
    let container = subject.find(host.store)?;
    let on = |fault: cli::Fault| fault.on(container.id.as_str());
    let mut record = match subject {
        Subject::Record(record) => (**record).clone(),
        Subject::Name(_) => container.load().map_err(on)?,
    };
    // A record that says nothing of what is asked for leaves it as it is.
    let config = if record.contains("config") {
        record.config()
    } else {
        container.load().and_then(|kept| kept.config())
    };
    let config = config.map_err(on)?;
    let told = match subject {
        Subject::Record(_) => record.networks().map_err(on)?,
        Subject::Name(_) => Vec::new(),
    };
    let request =
        Request { container: &container, config: &config, networks, publish: &args.publish, told: &told };
    if args.dry_run {
        let steps = network::plan(host, &request, needs_set_up(&container)).map_err(on)?;
        return context.print_steps(Some(&container.id), &steps);
    }
    set_up(&container).map_err(on)?;
    let attached = network::attach(host, &request);
    for note in host.take_notes() {
        context.warn("", &note);
    }
    let attachments = attached.map_err(|fault| not_set_up(&container).unwrap_or(fault)).map_err(on)?;
    match subject {
        Subject::Name(_) => record = container.current().map_err(on)?,
        // As kept with the container: a later stage would take a record without them for an edited one.
        Subject::Record(_) if !attachments.is_empty() => {
            let kept = container.load().map_err(on)?.config().map_err(on)?;
            let asked = Config {
                ports: kept.ports,
                network: kept.network,
                networks: kept.networks,
                ..config.clone()
            };
            if asked != config {
                record.set("config", &asked)?;
            }
        }
        Subject::Record(_) => {}
    }
    for attachment in &attachments {
        let who = store::Who::network(&attachment.name);
        host.store.event(&who, "connect", serde_json::json!({"container": container.id}));
    }
    record.set("networks", &attachments)?;
    context.print_result(&record, &container.id, &line(&record, &attachments))
}

/// A container that has ended, or whose machine was started anew, has no network namespace; its record piped in again
/// brings it back to where ctr-create left it.
fn set_up(container: &ContainerDir) -> Result<()> {
    if needs_set_up(container) { shim::start_shim(container).map(|_| ()) } else { Ok(()) }
}

fn needs_set_up(container: &ContainerDir) -> bool {
    !container.is_alive() && container.bundle.join("config.json").exists()
}

/// Why the container could not be set up, if that is so: it explains whatever failed after it.
fn not_set_up(container: &ContainerDir) -> Option<cli::Fault> {
    let client = Client::connect(container).ok().flatten()?;
    client.request(&shim::Request::Ready, &[]).err()
}

/// `brisk_cooper   bridge   10.89.0.2   0.0.0.0:8080->80/tcp`
fn line(record: &Record, attachments: &[Attachment]) -> String {
    let name = record.container().ok().flatten().map(|container| container.name).unwrap_or_default();
    let mut parts = vec![name];
    for attachment in attachments {
        parts.push(attachment.name.clone());
        parts.push(attachment.addresses.join(" "));
        parts.push(attachment.ports.iter().map(arrow).collect::<Vec<_>>().join(", "));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("   ")
}

fn arrow(port: &Port) -> String {
    let range = |first: u16| match port.count.unwrap_or(1) {
        0 | 1 => first.to_string(),
        count => format!("{first}-{}", u32::from(first) + u32::from(count) - 1),
    };
    let ip = port.ip.as_deref().unwrap_or("0.0.0.0");
    format!("{ip}:{}->{}/{}", range(port.host.unwrap_or(0)), range(port.container), port.protocol)
}
