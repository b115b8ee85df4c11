//! Make networks.
#![forbid(unsafe_code)]

use cli::words::pairs;
use cli::{Common, Context, Fault, Kind, Result};
use network::{Asked, Created, Families, File, Host};
use record::Record;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use store::Store;

/// Make networks
///
/// A network is a definition in a file; its bridge is made when the first container is attached. What is not given is chosen: a
/// subnet that neither another network nor the host uses, and a name for the bridge. Containers on it find each other by
/// their names. Without names the networks of the records on stdin are made, as net-ls and net-inspect print them.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-create",
    version,
    after_help = "Examples:
  net-create web
  net-create --ipv6 --internal backend
  net-create --subnet 10.7.0.0/24 --gateway 10.7.0.254 --ip-range 10.7.0.128/25 lab
  net-create --driver macvlan --parent eth0 --subnet 192.168.7.0/24 lan
  net-inspect web | jq -c '.networks[0] |= (.name = \"web2\" | del(.subnets, .device))' | net-create"
)]
pub struct Args {
    /// Names of the networks; without any, records are read from stdin
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// What it is made of: bridge, routed, macvlan, ipvlan, none, or a CNI plugin
    #[arg(short, long, value_name = "DRIVER")]
    pub driver: Option<String>,

    /// Subnet, IPv4 or IPv6; can be given several times
    #[arg(long = "subnet", value_name = "SUBNET", help_heading = "Addresses")]
    pub subnets: Vec<String>,

    /// Address of the bridge, of the subnet that contains it; the first one otherwise
    #[arg(long = "gateway", value_name = "ADDRESS", help_heading = "Addresses")]
    pub gateways: Vec<String>,

    /// Part of a subnet containers get their addresses from
    #[arg(long = "ip-range", value_name = "SUBNET", help_heading = "Addresses")]
    pub ranges: Vec<String>,

    /// Address in a subnet that no container gets, as something else has it: a router, a printer; can be given several times
    #[arg(long = "aux-address", value_name = "NAME=ADDRESS", help_heading = "Addresses")]
    pub reserved: Vec<String>,

    /// Both families: a subnet of IPv4 and one of IPv6, given or chosen
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Addresses")]
    pub ipv6: Option<bool>,

    /// With =false IPv6 alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Addresses")]
    pub ipv4: Option<bool>,

    /// Further way of its containers, by a gateway on the network; can be given several times
    #[arg(long = "route", value_name = "SUBNET,GATEWAY[,METRIC]", help_heading = "Addresses")]
    pub routes: Vec<String>,

    /// No way out of it, and none in
    #[arg(long)]
    pub internal: bool,

    /// Containers on other networks do not reach its published ports either
    #[arg(long)]
    pub isolate: bool,

    /// Largest packet, in bytes
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,

    /// Name server asked for what is no container's name, instead of the host's; can be given several times
    #[arg(long = "dns", value_name = "ADDRESS", conflicts_with = "no_dns")]
    pub dns: Vec<IpAddr>,

    /// Containers do not find each other by their names
    #[arg(long, visible_alias = "disable-dns")]
    pub no_dns: bool,

    /// Label the network
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    pub labels: Vec<String>,

    /// Option of the driver, docker's and podman's names
    #[arg(short = 'o', long = "opt", value_name = "NAME=VALUE")]
    pub options: Vec<String>,

    /// Interface of the host a macvlan or ipvlan network is on
    #[arg(long, value_name = "INTERFACE")]
    pub parent: Option<String>,

    /// Of macvlan bridge, private, vepa or passthru; of ipvlan l2, l3 or l3s
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,

    /// Name of the bridge on the host, chosen otherwise; of macvlan and ipvlan the same as --parent
    #[arg(long, value_name = "NAME", visible_alias = "interface-name")]
    pub device: Option<String>,

    /// CNI network configuration list, or the configuration of one plugin
    #[arg(long, value_name = "FILE")]
    pub cni: Option<PathBuf>,

    #[command(flatten)]
    pub dockers: Dockers,

    /// One that exists is no failure, whatever it is like
    #[arg(long)]
    pub ignore: bool,

    /// Print what would be made and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print names only
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "net-create", common, quiet);

/// Flags of docker's and podman's that say what is so in any case, or what there is another way for.
#[derive(Debug, clap::Args)]
pub struct Dockers {
    /// Containers can be attached at any time, as to every network
    #[arg(long, hide = true)]
    pub attachable: bool,
    #[arg(long, hide = true, value_name = "SCOPE")]
    pub scope: Option<String>,
    #[arg(long, hide = true, value_name = "DRIVER")]
    pub ipam_driver: Option<String>,
    #[arg(long = "ipam-opt", hide = true, value_name = "NAME=VALUE")]
    pub ipam_options: Vec<String>,
    #[arg(long, hide = true)]
    pub ingress: bool,
    #[arg(long, hide = true)]
    pub config_only: bool,
    #[arg(long, hide = true, value_name = "NETWORK")]
    pub config_from: Option<String>,
}

impl Dockers {
    /// Fails with usage for what is not so.
    fn check(&self) -> Result<()> {
        let no = |what: String, hint: &str| Err(Fault::usage(what).hint(hint));
        let copy = "copy a network: net-inspect OLD | jq -c '.networks[0] |= (.name = \"NEW\" | del(.subnets, .device))' | net-create";
        if self.ingress {
            return no("--ingress: there is no swarm here".into(), "leave it out, and publish ports with -p");
        }
        if self.config_only {
            return no(
                "--config-only: every network is only a file until a container is attached".into(),
                copy,
            );
        }
        if self.config_from.is_some() {
            return no("--config-from: a network has its whole definition".into(), copy);
        }
        if let Some(scope) = self.scope.as_deref().filter(|scope| *scope != "local") {
            return no(format!("--scope {scope}: networks are of this machine"), "leave it out");
        }
        let elsewhere = "CNI's plugins do that: net-create --driver cni:macvlan --opt master=eth0 --opt 'ipam={\"type\":\"dhcp\"}' NAME";
        match self.ipam_driver.as_deref() {
            None | Some("default" | "host-local") => {}
            Some(driver) => {
                return no(format!("--ipam-driver {driver}: addresses are leased here"), elsewhere);
            }
        }
        match self.ipam_options.first() {
            None => Ok(()),
            Some(option) => no(format!("--ipam-opt {option}: there are no such options"), elsewhere),
        }
    }
}

impl Args {
    fn asked(&self) -> Result<Asked> {
        let cni = self.cni.as_deref().map(network::read_cni).transpose()?;
        let unsaid = if cni.is_some() { "cni" } else { "bridge" };
        Ok(Asked {
            name: String::new(),
            driver: self.driver.clone().unwrap_or_else(|| unsaid.to_owned()),
            subnets: self.subnets.clone(),
            gateways: self.gateways.clone(),
            ranges: self.ranges.clone(),
            reserved: pairs("address", &self.reserved, false)?,
            routes: self.routes.clone(),
            internal: self.internal,
            isolate: self.isolate,
            mtu: self.mtu,
            dns: self.dns.iter().map(IpAddr::to_string).collect(),
            no_dns: self.no_dns,
            labels: pairs("label", &self.labels, true)?,
            options: pairs("option", &self.options, false)?,
            parent: self.parent.clone(),
            mode: self.mode.clone(),
            device: self.device.clone(),
            cni,
        })
    }

    fn families(&self) -> Result<Families> {
        match (self.ipv4, self.ipv6) {
            (Some(false), Some(false)) => {
                Err(Fault::usage("--ipv4=false and --ipv6=false leave no addresses")
                    .hint("--driver none makes a network without any"))
            }
            (Some(false), _) => Ok(Families::Ipv6),
            (_, Some(true)) => Ok(Families::Both),
            // A subnet of IPv6 would make it another.
            (_, Some(false)) if self.subnets.iter().any(|subnet| subnet.contains(':')) => {
                Err(Fault::usage("--ipv6=false, and a --subnet of IPv6"))
            }
            _ => Ok(Families::Given),
        }
    }

    /// Whether anything was said that a record would have to be read without.
    fn says_something(&self) -> bool {
        let texts = [
            &self.subnets,
            &self.gateways,
            &self.ranges,
            &self.reserved,
            &self.routes,
            &self.labels,
            &self.options,
        ];
        let single = [&self.driver, &self.parent, &self.mode, &self.device];
        texts.iter().any(|list| !list.is_empty())
            || single.iter().any(|one| one.is_some())
            || !self.dns.is_empty()
            || self.cni.is_some()
            || self.mtu.is_some()
            || self.ipv4.is_some()
            || self.ipv6.is_some()
            || [self.internal, self.isolate, self.no_dns].contains(&true)
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    args.dockers.check()?;
    let families = args.families()?;
    let store = Store::from_env()?;
    let host = Host::new(&store)?;
    if args.names.is_empty() {
        if args.says_something() || std::io::stdin().is_terminal() {
            return Err(Fault::usage("what is it to be called? no name was given")
                .hint("net-create [OPTIONS] NAME; records on stdin take no options"));
        }
        let records = context.require_records()?;
        context.each(records, |context, record| of_record(args, context, &host, &record));
        return Ok(());
    }
    let asked = args.asked()?;
    if args.names.len() > 1 && !(asked.subnets.is_empty() && asked.device.is_none()) {
        return Err(Fault::usage("several networks cannot have the same subnet or device")
            .hint("leave them out, and free ones are chosen"));
    }
    context.each(&args.names, |context, name| {
        let asked = Asked { name: name.clone(), ..asked.clone() };
        let file = asked.file().map_err(|fault| on(fault, name))?;
        one(args, context, &host, &file, families, Record::new()).map_err(|fault| {
            // It is the command line that is wrong then, unless a file is.
            let none = || network::find(&host, name).is_err_and(|fault| fault.kind() == Kind::NotFound);
            if fault.kind() == Kind::Input && asked.cni.is_none() && none() {
                fault.as_kind(Kind::Usage)
            } else {
                fault
            }
        })
    });
    Ok(())
}

fn of_record(args: &Args, context: &mut Context, host: &Host<'_>, record: &Record) -> Result<()> {
    let files = network::definitions_in(record)?;
    if files.is_empty() {
        return Err(Fault::input("the record's \"networks\" is empty"));
    }
    for file in &files {
        if file.driver.is_empty() {
            return Err(Fault::input(
                "the record tells of an attachment, not of a network: it has no driver",
            )
            .on(file.name.as_str())
            .hint("net-inspect adds what the network is"));
        }
        one(args, context, host, file, Families::Given, record.clone())?;
    }
    Ok(())
}

fn one(
    args: &Args,
    context: &mut Context,
    host: &Host<'_>,
    file: &File,
    families: Families,
    record: Record,
) -> Result<()> {
    let name = file.name.as_str();
    if args.dry_run {
        let planned = network::plan_create(host, file, families).map_err(|fault| on(fault, name));
        let Some((file, path)) = ignored(args, host, name, planned)? else { return Ok(()) };
        let Some(path) = path else { return Ok(()) };
        let subnets: Vec<&str> = file.subnets.iter().map(|subnet| subnet.subnet.as_str()).collect();
        let step = serde_json::json!({
            "step": "make_network", "network": name, "driver": file.driver, "subnets": subnets, "path": path
        });
        return context.print_steps(None, &[step]);
    }
    let created = network::create(host, file, families).map_err(|fault| on(fault, name));
    let created = ignored(args, host, name, created)?;
    if let Some(Created { notes, made: true, file }) = &created {
        for note in notes {
            context.warn(name, note);
        }
        host.store.event(&store::Who::network(name), "create", serde_json::json!({"type": file.driver}));
    }
    let info = network::find(host, name)?;
    context.print_result(&info.into_record(record)?, name, name)
}

/// With `--ignore`, `None` for one that is there and another.
fn ignored<T>(args: &Args, host: &Host<'_>, name: &str, outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(fault) if args.ignore && fault.kind() == Kind::Conflict => {
            // Another conflict, of subnets for one, is no network.
            network::find(host, name).map(|_| None).map_err(|_| fault)
        }
        Err(fault) => Err(fault),
    }
}

fn on(fault: Fault, name: &str) -> Fault {
    if fault.subject().is_some() { fault } else { fault.on(name) }
}
