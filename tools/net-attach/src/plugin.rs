//! net-attach as a CNI plugin: attaches containers of other runtimes to networks of ours.
//!
//! The network is there already (net-create); addresses, firewall, published ports and names are as for containers of
//! our own. The specification is that of github.com/containernetworking/cni, version 1.1.0.

use crate::Args;
use cli::{Context, Result};
use cni::{Cidr, Command, Dns, Interface, Ip, Refusal, Request, Route, Success, Version, code};
use network::foreign::{self, Stranger};
use network::{Definition, Host, Wish};
use record::{Attachment, Port, PortWish};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use store::leases::addresses_of;
use store::{Store, Who};

/// One more is too long.
const MOST_INPUT_BYTES: u64 = 1 << 20;

/// Members of a configuration that mean something here. Others are refused, not passed over.
const MEMBERS: [&str; 12] = [
    "cniVersion",
    "name",
    "type",
    "network",
    "isDefaultGateway",
    "root",
    "run",
    "dns",
    "args",
    // Left in by runtimes before 1.1.0.
    "capabilities",
    "runtimeConfig",
    "prevResult",
];

const CAPABILITIES: [&str; 4] = ["portMappings", "ips", "mac", "aliases"];

/// Whether a container runtime runs this as a plugin: by an environment variable, and without arguments.
pub fn is_asked(args: &Args) -> bool {
    let plain =
        args.containers.is_empty() && args.network.is_empty() && args.publish.is_empty() && !args.dry_run;
    plain && std::env::var_os("CNI_COMMAND").is_some()
}

/// Answers on stdout as the specification has it, failures too.
pub fn run(context: &mut Context) -> Result<()> {
    let answer = asked().and_then(|request| {
        let answer = answer(&request, context);
        answer.map_err(|refusal| (request.version, refusal))
    });
    match answer {
        Ok(None) => Ok(()),
        Ok(Some(answer)) => context.print(&format!("{answer}\n")),
        Err((version, refusal)) => {
            context.exit_with(1);
            context.print(&format!("{}\n", refusal.to_value(version)))
        }
    }
}

fn asked() -> std::result::Result<Request, (Version, Refusal)> {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(MOST_INPUT_BYTES + 1).read_to_end(&mut input);
    let refused = |refusal| (Version::NEWEST, refusal);
    read.map_err(|error| refused(refusal(code::IO_FAILURE, format!("read the configuration: {error}"))))?;
    Request::parse(|name| std::env::var(name).ok(), &input).map_err(refused)
}

fn answer(request: &Request, context: &mut Context) -> Result<Option<Value>, Refusal> {
    if request.command == Command::Version {
        let versions = Version::ALL.map(Version::name);
        return Ok(Some(json!({"cniVersion": request.version.name(), "supportedVersions": versions})));
    }
    check_members(&request.configuration)?;
    let store = store(request)?;
    let host = Host::new(&store)?;
    let answer = serve(request, &host);
    for note in host.take_notes() {
        context.warn("", &note);
    }
    answer
}

/// Runtimes run plugins in environments of their own making, so that the configuration can say where the state is.
fn store(request: &Request) -> Result<Store, Refusal> {
    let usual = Store::from_env()?;
    let folder = |member: &str, usual: &Path| match request.text(member)? {
        None => Ok(usual.to_owned()),
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(_) => Err(refusal(code::INVALID_CONFIGURATION, format!("{member} is no absolute path"))),
    };
    Ok(Store::at(folder("root", usual.root())?, folder("run", usual.run())?))
}

fn serve(request: &Request, host: &Host<'_>) -> Result<Option<Value>, Refusal> {
    let name = request.text("name")?.unwrap_or_default();
    let network = request.text("network")?.unwrap_or(name);
    match request.command {
        Command::Add => {
            let stranger = stranger(request, name, network)?;
            let (attachment, definition) = foreign::add(host, &stranger)?;
            tell(host, &attachment.name, "connect", &request.container);
            let result = result(request, &attachment, &definition);
            // What cannot be told of must not stay.
            let result = result.inspect_err(|_| {
                let _ = foreign::delete(host, &request.container, &request.interface);
            })?;
            Ok(Some(result.to_value(request.version)))
        }
        Command::Del => {
            if let Some(gone) = foreign::delete(host, &request.container, &request.interface)? {
                tell(host, &gone.attachment.name, "disconnect", &request.container);
                // Its neighbours' resolver, should that have been killed; no reason not to have detached it.
                for fault in network::dns::heal(host, [gone.attachment.name.as_str()]) {
                    host.note(fault.to_string());
                }
            }
            Ok(None)
        }
        Command::Check => {
            let previous = request.previous()?.ok_or_else(|| {
                refusal(code::INVALID_CONFIGURATION, "prevResult is missing, which CHECK is to compare with")
            })?;
            let told: Vec<IpAddr> =
                previous.addresses(&request.interface).map(|ip| ip.address.address).collect();
            foreign::check(host, &stranger(request, name, network)?, &told)?;
            Ok(None)
        }
        Command::Gc => {
            foreign::collect(host, name, &request.valid_attachments()?)?;
            Ok(None)
        }
        Command::Status => foreign::status(host, network)
            .map(|()| None)
            .map_err(|fault| Refusal { code: code::NOT_AVAILABLE, ..Refusal::of(&fault) }),
        Command::Version => Ok(None),
    }
}

fn tell(host: &Host<'_>, network: &str, action: &str, container: &str) {
    host.store.event(&Who::network(network), action, json!({"container": container}));
}

fn check_members(configuration: &Map<String, Value>) -> Result<(), Refusal> {
    if configuration.contains_key("staves") {
        return Err(refusal(code::INVALID_CONFIGURATION, "this is a record: unset CNI_COMMAND to attach it"));
    }
    let unknown = |name: &&String| !MEMBERS.contains(&name.as_str()) && !name.starts_with("cni.dev/");
    if let Some(name) = configuration.keys().find(unknown) {
        let mut refusal =
            refusal(code::UNSUPPORTED_FIELD, format!("{name} is not known: {}", configuration[name]));
        if matches!(name.as_str(), "ipam" | "subnets") {
            refusal.details = "addresses are those of the network, which net-create makes".into();
        }
        return Err(refusal);
    }
    let given = configuration.get("runtimeConfig").and_then(Value::as_object);
    match given.into_iter().flatten().find(|(name, _)| !CAPABILITIES.contains(&name.as_str())) {
        Some((name, value)) => {
            Err(refusal(code::UNSUPPORTED_FIELD, format!("capability {name} is not known: {value}")))
        }
        None => Ok(()),
    }
}

fn stranger<'r>(request: &'r Request, name: &'r str, network: &'r str) -> Result<Stranger<'r>, Refusal> {
    let is_way_out = match request.configuration.get("isDefaultGateway") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(value)) => *value,
        Some(_) => {
            return Err(refusal(code::INVALID_CONFIGURATION, "isDefaultGateway is neither true nor false"));
        }
    };
    let argument = |wanted: &str| {
        let mut found = request.arguments.iter().filter(|(key, _)| key == wanted);
        found.next().map(|(_, value)| value.clone())
    };
    let mac = match request.capability("mac") {
        Some(mac) => Some(mac.as_str().ok_or_else(|| wrong("mac"))?.to_owned()),
        None => argument("MAC"),
    };
    Ok(Stranger {
        container: &request.container,
        interface: &request.interface,
        namespace: &request.namespace,
        configuration: name,
        network,
        is_way_out,
        addresses: addresses(request, argument("IP"))?,
        mac: mac.filter(|mac| !mac.is_empty()),
        names: names(request, argument("K8S_POD_NAME"))?,
        ports: ports(request.capability("portMappings"))?,
    })
}

/// By capability, by `args`, or by `CNI_ARGS` (conventions, "ips").
fn addresses(request: &Request, argument: Option<String>) -> Result<Vec<IpAddr>, Refusal> {
    let args = || request.configuration.get("args")?.get("cni")?.get("ips");
    let texts: Vec<String> = match request.capability("ips").or_else(args) {
        Some(list) => Vec::deserialize(list).map_err(|_| wrong("ips"))?,
        None => argument.into_iter().collect(),
    };
    let address = |text: &String| text.split('/').next().and_then(|address| address.parse().ok());
    texts.iter().map(|text| address(text).ok_or_else(|| wrong("ips"))).collect()
}

/// The name others know it by first. podman hands aliases over by network.
fn names(request: &Request, pod: Option<String>) -> Result<Vec<String>, Refusal> {
    let short = request.container.get(..12).filter(|_| store::is_id(&request.container));
    let mut names: Vec<String> = pod.into_iter().collect();
    names.push(short.unwrap_or(&request.container).to_owned());
    let of_network = request.text("name")?.unwrap_or_default();
    match request.capability("aliases") {
        Some(Value::Object(networks)) => {
            if let Some(list) = networks.get(of_network).filter(|list| !list.is_null()) {
                names.extend(Vec::<String>::deserialize(list).map_err(|_| wrong("aliases"))?);
            }
        }
        Some(list) => names.extend(Vec::<String>::deserialize(list).map_err(|_| wrong("aliases"))?),
        None => {}
    }
    Ok(names)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    #[serde(default)]
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default, rename = "hostIP")]
    host_ip: Option<String>,
}

fn ports(mappings: Option<&Value>) -> Result<Vec<Wish>, Refusal> {
    let Some(mappings) = mappings else { return Ok(Vec::new()) };
    let mappings: Vec<Mapping> = Vec::deserialize(mappings)
        .map_err(|error| refusal(code::INVALID_CONFIGURATION, format!("portMappings: {error}")))?;
    // As portmap has it: a port that is only told of.
    let published = mappings.into_iter().filter(|mapping| mapping.host_port != 0);
    let wish = |mapping: Mapping| {
        let protocol = mapping.protocol.filter(|protocol| !protocol.is_empty());
        let port = Port {
            ip: mapping.host_ip.filter(|ip| !matches!(ip.as_str(), "" | "0.0.0.0")),
            host: Some(mapping.host_port),
            container: mapping.container_port,
            protocol: protocol.unwrap_or_else(|| "tcp".to_owned()).to_ascii_lowercase(),
            ..Port::default()
        };
        Wish::from_record(&PortWish::Port(port)).map_err(Refusal::from)
    };
    published.map(wish).collect()
}

/// What was there before, and what was made.
fn result(request: &Request, made: &Attachment, network: &Definition) -> Result<Success, Refusal> {
    let mut success = request.previous()?.unwrap_or_default();
    let outside = made.host_interface.as_ref();
    let on_host = outside.into_iter().flat_map(|name| [&network.device, name]);
    success.interfaces.extend(on_host.map(|name| Interface { name: name.clone(), ..Interface::default() }));
    success.interfaces.push(Interface {
        name: request.interface.clone(),
        mac: made.mac.clone().unwrap_or_default(),
        mtu: network.mtu.unwrap_or_default(),
        sandbox: request.namespace.clone(),
        ..Interface::default()
    });
    let is_way_out = request.configuration.get("isDefaultGateway") != Some(&Value::Bool(false));
    let gateways: Vec<IpAddr> =
        [&made.gateway, &made.gateway6].into_iter().flatten().filter_map(|text| text.parse().ok()).collect();
    let interface = Some(success.interfaces.len() - 1);
    for text in &made.addresses {
        let address = Cidr::parse(text)?;
        let is_ipv6 = address.address.is_ipv6();
        let gateway = gateways.iter().copied().find(|gateway| gateway.is_ipv6() == is_ipv6);
        success.ips.push(Ip { address, gateway, interface });
        if let Some(gateway) = gateway.filter(|_| is_way_out) {
            let destination = Cidr::parse(if is_ipv6 { "::/0" } else { "0.0.0.0/0" })?;
            success.routes.push(Route { destination, gateway: Some(gateway), more: Map::new() });
        }
    }
    success.dns = match request.configuration.get("dns") {
        None | Some(Value::Null) => dns(network, made),
        Some(dns) => Dns::deserialize(dns)
            .map_err(|error| refusal(code::INVALID_CONFIGURATION, format!("dns: {error}")))?,
    };
    Ok(success)
}

/// With names, the network's own resolver; it is there on an internal network, too, which has no gateway.
fn dns(network: &Definition, made: &Attachment) -> Dns {
    let addresses: Vec<IpAddr> = addresses_of(made).collect();
    let resolvers = network::dns::resolvers(std::iter::once(network), &addresses);
    let servers = if resolvers.is_empty() { &network.dns.servers } else { &resolvers };
    Dns { nameservers: servers.iter().map(IpAddr::to_string).collect(), ..Dns::default() }
}

fn wrong(capability: &str) -> Refusal {
    refusal(code::INVALID_CONFIGURATION, format!("capability {capability} is not as it should be"))
}

fn refusal(code: u64, msg: impl Into<String>) -> Refusal {
    Refusal { code, msg: msg.into(), details: String::new() }
}
