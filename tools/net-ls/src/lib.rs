//! List networks.
#![forbid(unsafe_code)]

mod filter;

pub use filter::Filters;

use cli::{Common, Context, OutputMode, Result, Table};
use network::Host;
use record::Record;
use store::Store;

/// List networks
///
/// Filters of different keys must all hold, and so must several labels; of several names or drivers one is enough.
///
///   name=                part of it; ^ and $ stand for its beginning and end
///   driver=              bridge, routed, macvlan, ipvlan, none, cni, or a CNI plugin
///   label=KEY[=VALUE]    set with net-create --label
///   label!=KEY[=VALUE]   not set
///   dangling=true|false  asked for by no container, running or not, or by some; the default network is false
///   type=custom|builtin  made with net-create, or the default network
///   scope=local          all of them; global and swarm, which docker has too, none
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-ls",
    version,
    after_help = "Examples:\n  net-ls\n  net-ls --filter dangling=true | net-rm\n  net-ls | jq -r '.networks[] | \"\\(.name) \\(.subnets[].subnet)\"'"
)]
pub struct Args {
    /// List only those for which this holds; can be given several times
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "net-ls", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let filters = Filters::parse(&args.filters)?;
    let store = Store::from_env()?;
    let host = Host::new(&store)?;
    // One that is broken must not hide the others.
    let mut listed = network::list(&host, |fault| context.report(&fault))?;
    // Whoever looks at networks has them whole: a resolver that was killed is started again.
    for fault in network::dns::heal(&host, listed.iter().map(|info| info.file.name.as_str())) {
        context.warn("", &fault.to_string());
    }
    listed.retain(|info| filters.hold(info));
    if context.mode() == OutputMode::Table {
        let mut table = Table::new(&["NAME", "DRIVER", "SUBNETS", "CONTAINERS"]);
        for info in &listed {
            let subnets: Vec<&str> = info.file.subnets.iter().map(|subnet| subnet.subnet.as_str()).collect();
            let containers: Vec<&str> = info
                .containers
                .iter()
                .map(|one| if one.name.is_empty() { one.id.get(..12).unwrap_or(&one.id) } else { &one.name })
                .collect();
            table.row([&info.file.name, &info.file.driver, &subnets.join(", "), &containers.join(", ")]);
        }
        return context.print_table(&table);
    }
    for info in &listed {
        let name = &info.file.name;
        context.print_result(&info.into_record(Record::new())?, name, name)?;
        if context.stdout_closed() {
            break;
        }
    }
    Ok(())
}
