//! Networks of CNI plugins: their `ADD` when a container is attached, their `DEL` when it is detached.
//!
//! Before plugins are run a file says what they will have to undo (`networks/<name>/attachments/<id>`). Whoever is killed
//! meanwhile, the next attach, net-detach or net-prune runs `DEL`. What is said there is said again to the plugins when
//! the definition of the network has been edited since.

use crate::attach::namespace_of;
use crate::claim::Claims;
use crate::definition::{Definition, Driver};
use crate::host::{self, Host, Namespace};
use crate::link;
use crate::signals::interruptible;
use crate::work::Work;
use cni::{Attachment as Parameters, Configuration, Runtime, Success, Version};
use fault::{Explain, Fault, Result};
use oci::wishes::Resolver;
use oci::wishes::names::{name_server, resolver_option, search_domain};
use record::{Attachment, Port};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use store::{Lock, Store};

/// Capabilities that only `driver_opts` of an attachment can ask for, as JSON.
const BY_OPTION: [&str; 5] = ["bandwidth", "ipRanges", "infinibandGUID", "deviceID", "cgroupPath"];

/// `CNI_ARGS`.
type Arguments = Vec<(String, String)>;

/// Content of the file: all that `DEL` has to be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Begun {
    /// Name inside the container.
    interface: String,
    arguments: Arguments,
    capabilities: Map<String, Value>,
    ports: Vec<Port>,
    configuration: Value,
    /// What tells the namespace it was attached in from all others ([`Host::mark_of`]).
    namespace: Option<String>,
    /// Of `ADD`, once it has succeeded.
    result: Option<Value>,
}

impl Begun {
    fn read(store: &Store, network: &str, id: &str) -> Result<Option<Begun>> {
        let path = store.plugins_attachment(network, id)?;
        let Some(content) = store::atomic::read(&path)? else { return Ok(None) };
        let begun = serde_json::from_slice(&content).map_err(|error| {
            Fault::input(format!("read {}", path.display())).because(error).hint(
                "what the plugins did for this container is not known; remove the file once it is undone",
            )
        })?;
        Ok(Some(begun))
    }

    fn write(&self, store: &Store, network: &str, id: &str) -> Result<()> {
        let path = store.plugins_attachment(network, id)?;
        if let Some(dir) = path.parent() {
            store.make_dir(dir)?;
        }
        let content = serde_json::to_vec(self).explain(|| format!("write {}", path.display()))?;
        store::atomic::write(&path, &content, 0o600)
    }

    fn parameters<'p>(&'p self, id: &'p str, namespace: &'p str) -> Parameters<'p> {
        Parameters {
            container: id,
            namespace,
            interface: &self.interface,
            arguments: &self.arguments,
            capabilities: self.capabilities.clone(),
        }
    }
}

/// The configuration of a network of plugins. Fails with input for what is none.
pub fn configuration(network: &Definition) -> Result<Configuration> {
    match &network.driver {
        Driver::Cni(list) => {
            Configuration::from_value(list.clone()).map_err(|fault| fault.on(network.name.as_str()))
        }
        _ => Err(Fault::input("this is no network of CNI plugins").on(network.name.as_str())),
    }
}

/// Whether what the record tells of is there, as far as that can be seen without running plugins.
pub fn holds(work: &Work<'_>, present: &Attachment, namespace: &Namespace) -> Result<bool> {
    let Some(begun) = Begun::read(work.host.store, &work.one.network.name, work.id())? else {
        return Ok(false);
    };
    let Some(result) = begun.result else { return Ok(false) };
    if begun.namespace.is_some() && begun.namespace != work.host.mark_of(namespace)? {
        return Ok(false);
    }
    // Of plugins that make none nothing can be seen, and the namespace is the one they were run for.
    let Some(interface) = &present.interface else { return Ok(begun.namespace.is_some()) };
    let success = Success::parse(&result, Version::NEWEST)?;
    let inside = link::find(&work.host.socket_inside(namespace)?, interface)
        .explain(|| "look up the interface in the container".into())?;
    let Some(link) = inside else { return Ok(false) };
    let told = success.inside(interface).map(|told| told.mac.to_ascii_lowercase());
    let mac = link.mac.map(link::mac_text);
    Ok(told.is_none_or(|told| told.is_empty() || Some(told) == mac))
}

/// Asks the plugins whether what they made, which [`holds`], is as they made it (`CHECK`), unless they cannot be asked: of versions
/// before 0.4.0, or with `disableCheck`. What they say against it the user hears of, and no more: upstream's portmap misses the
/// IPv6 half of any port that was published by IPv4 alone, and making it anew would cut the container's connections.
pub fn check(host: &Host<'_>, network: &str, id: &str) -> Result<()> {
    let _together = lock(host.store, network, FlockOperation::LockShared)?;
    let Some(begun) = Begun::read(host.store, network, id)? else { return Ok(()) };
    let Some(result) = &begun.result else { return Ok(()) };
    let path = namespace_path(host, id).unwrap_or_default();
    let configuration = Configuration::from_value(begun.configuration.clone())?;
    let parameters = begun.parameters(id, &path);
    if let Err(fault) = interruptible(|| runtime().check(&configuration, &parameters, result)) {
        host.note(format!(
            "{network}: {fault}; net-detach and net-attach make it anew, \"disableCheck\": true keeps plugins from being asked"
        ));
    }
    Ok(())
}

/// What is to be done, written down: the ports are claimed, and from here on [`release`] runs `DEL`.
pub fn begin(work: &Work<'_>, namespace: &Namespace) -> Result<Attachment> {
    let network = &work.one.network;
    let configuration = configuration(network)?;
    if let Some(port) = work.ports.first().filter(|_| !configuration.has_capability("portMappings")) {
        return Err(Fault::input(format!("port {port} cannot be published: no plugin takes port mappings"))
            .on(network.name.as_str())
            .hint("add {\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}} to its plugins"));
    }
    let (arguments, mut capabilities) = asked(work, &configuration)?;
    let ports = work.claim(work.ports, &[])?;
    if !ports.is_empty() {
        capabilities.insert("portMappings".into(), ports.iter().flat_map(mappings).collect());
    }
    let begun = Begun {
        interface: work.interface.clone(),
        arguments,
        capabilities,
        ports: ports.clone(),
        configuration: configuration.to_value(),
        namespace: work.host.mark_of(namespace)?,
        result: None,
    };
    begun.write(work.host.store, &network.name, work.id())?;
    Ok(Attachment {
        name: network.name.clone(),
        interface: Some(work.interface.clone()),
        mac: work.one.wish.mac.clone(),
        aliases: work.one.wish.aliases.clone(),
        ports,
        cni: Some(json!({})),
        ..Attachment::default()
    })
}

/// Runs `ADD`; the attachment with what the plugins say of it. Fails with failed when they did not do what was asked for.
/// After a failure [`release`] undoes what there is.
pub fn add(work: &Work<'_>, namespace: &Namespace, attachment: &Attachment) -> Result<Attachment> {
    let (host, network) = (work.host, &work.one.network);
    let _together = lock(host.store, &network.name, FlockOperation::LockShared)?;
    let Some(mut begun) = Begun::read(host.store, &network.name, work.id())? else {
        return Err(Fault::retryable("the attachment was undone by others").on(network.name.as_str()));
    };
    let path = namespace_path(host, work.id()).unwrap_or_default();
    let configuration = Configuration::from_value(begun.configuration.clone())?;
    let parameters = begun.parameters(work.id(), &path);
    let result = interruptible(|| runtime().add(&configuration, &parameters))?;
    begun.result = Some(result.clone());
    begun.write(host.store, &network.name, work.id())?;
    let mut made = told(attachment, &begun.interface, result)?;
    let inside = link::find(&host.socket_inside(namespace)?, &begun.interface);
    if inside.explain(|| "look up the interface in the container".into())?.is_none() {
        made.interface = None;
    }
    agree(work, &made).map_err(|fault| fault.on(network.name.as_str()))?;
    Ok(made)
}

/// Runs `DEL` for a container if anything has been begun for it, whether or not its namespace is there still.
///
/// That of a later run of the container is another one: in there an interface of that name is somebody else's.
pub fn release(host: &Host<'_>, network: &str, id: &str) -> Result<()> {
    let path = host.store.plugins_attachment(network, id)?;
    if !path.exists() {
        return Ok(());
    }
    let _together = lock(host.store, network, FlockOperation::LockShared)?;
    let Some(begun) = Begun::read(host.store, network, id)? else { return Ok(()) };
    let configuration = Configuration::from_value(begun.configuration.clone())?;
    let is_the_same = |path: &String| {
        let mark = || host.mark_of(&Namespace::open(path).ok()?).ok()?;
        begun.namespace.is_none() || begun.namespace == mark()
    };
    let namespace = host.held_namespace().map(str::to_owned).or_else(|| namespace_path(host, id));
    let namespace = namespace.filter(is_the_same).unwrap_or_default();
    let parameters = begun.parameters(id, &namespace);
    interruptible(|| runtime().delete(&configuration, &parameters, begun.result.as_ref()))?;
    forget(host, id, &begun.ports, &path)
}

/// Gives up what plugins cannot undo.
pub fn abandon(host: &Host<'_>, network: &str, id: &str) -> Result<()> {
    let path = host.store.plugins_attachment(network, id)?;
    // What cannot be read tells of no ports; those are net-prune's then.
    let ports = Begun::read(host.store, network, id).ok().flatten().map(|begun| begun.ports);
    forget(host, id, &ports.unwrap_or_default(), &path)
}

fn forget(host: &Host<'_>, id: &str, ports: &[Port], path: &Path) -> Result<()> {
    let claims = Claims::new(host.store);
    for port in ports {
        claims.release(id, port);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).explain(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Networks whose plugins have something to undo for a container, whatever its record says. It grows with the networks.
pub fn begun_on(store: &Store, id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for network in store.networks()? {
        if store.plugins_attachment(&network, id)?.exists() {
            found.push(network);
        }
    }
    Ok(found)
}

/// Undoes what was begun for containers that are gone, or know nothing of it, and lets the plugins give back what they hold
/// for others (`GC`). Adds the ids to `undone`; with `dry_run` those it would be. One that fails keeps no other from its turn.
pub fn prune(host: &Host<'_>, network: &Definition, dry_run: bool, undone: &mut Vec<String>) -> Result<()> {
    let store = host.store;
    let mut valid = Vec::new();
    let mut failed = None;
    for id in store.attached_by_plugins(&network.name)? {
        let remains = store.claim_remains(&id);
        let forgotten = if remains.is_none() { forgotten(store, &network.name, &id)? } else { None };
        if remains.is_none() && forgotten.is_none() {
            let interface = Begun::read(store, &network.name, &id)?.map(|begun| begun.interface);
            valid.extend(interface.map(|interface| (id, interface)));
            continue;
        }
        let released = if dry_run { Ok(()) } else { release(host, &network.name, &id) };
        match released {
            Ok(()) => undone.push(id),
            Err(fault) => drop(failed.get_or_insert(fault)),
        }
    }
    if let (false, Ok(configuration)) = (dry_run, configuration(network))
        && store.network_dir(&network.name).join("attachments").is_dir()
    {
        let _alone = lock(store, &network.name, FlockOperation::LockExclusive)?;
        // What has been attached between the two looks is not to be taken for garbage.
        for id in store.attached_by_plugins(&network.name)? {
            let begun = Begun::read(store, &network.name, &id)?;
            let pair = begun.map(|begun| (id, begun.interface));
            valid.extend(pair.filter(|pair| !valid.contains(pair)));
        }
        interruptible(|| runtime().collect(&configuration, &valid))?;
    }
    failed.map_or(Ok(()), Err)
}

/// The container's lock, if it lives and its record does not tell of this network.
fn forgotten(store: &Store, network: &str, id: &str) -> Result<Option<Lock>> {
    let container = store.container_dir(id);
    if !container.exists() {
        return Ok(None);
    }
    let Some(lock) = Lock::try_exclusive(&container.bundle)? else { return Ok(None) };
    let told = container.load()?.networks()?.iter().any(|attachment| attachment.name == network);
    Ok(Some(lock).filter(|_| !told))
}

/// What plugins say of names (CNI specification, section 5, `dns`), less what makes no sense and servers on a loopback address, which is
/// the host's if they took it out of its `resolv.conf`.
pub fn resolver(attachments: &[Attachment]) -> Resolver {
    let told = attachments.iter().filter_map(|one| one.cni.as_ref()?.get("dns"));
    let mut found = Resolver::default();
    for dns in told {
        let texts = |member: &str| {
            let list = dns[member].as_array().into_iter().flatten();
            list.chain(dns.get(member).filter(|value| value.is_string())).filter_map(Value::as_str)
        };
        let servers = texts("nameservers").filter_map(|text| name_server(text).ok());
        found.servers.extend(servers.filter(|server| !server.is_loopback()));
        let domains = texts("domain").chain(texts("search"));
        for domain in domains.filter_map(|text| search_domain(text).ok()) {
            if !found.search.contains(&domain) {
                found.search.push(domain);
            }
        }
        found.options.extend(texts("options").filter_map(|text| resolver_option(text).ok()));
    }
    // MAXNS of resolv.h
    found.servers.truncate(3);
    found
}

/// The names of the plugins in the order in which a command runs them.
pub fn plugins(network: &Definition, command: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        configuration(network)?.plugins().iter().map(|plugin| plugin.name.clone()).collect();
    if command == "DEL" {
        names.reverse();
    }
    Ok(names)
}

fn runtime() -> Runtime {
    Runtime { lacks, ..Runtime::from_env() }
}

/// Whether there is no interface of this name in a namespace. Not when that cannot be seen.
fn lacks(namespace: &str, interface: &str) -> bool {
    let Ok(namespace) = Namespace::open(namespace) else { return false };
    let Ok(socket) = host::socket_within(&namespace) else { return false };
    link::find(&socket, interface).is_ok_and(|found| found.is_none())
}

/// Nothing is attached or detached while attachments are collected (specification, "Lifecycle & Ordering").
fn lock(store: &Store, network: &str, how: FlockOperation) -> Result<File> {
    let dir = store.network_dir(network).join("attachments");
    store.make_dir(&dir)?;
    let file = File::open(&dir).explain(|| format!("open {}", dir.display()))?;
    flock(&file, how).explain(|| format!("lock {}", dir.display()))?;
    Ok(file)
}

/// Of the container's init. `None` once it has ended.
fn namespace_path(host: &Host<'_>, id: &str) -> Option<String> {
    let container = host.store.container_dir(id);
    // Makes sure that it still is that process.
    namespace_of(host, &container).ok()?;
    let state = container.live_state().ok()??;
    Some(format!("/proc/{}/ns/net", state.pid))
}

/// `CNI_ARGS` and the capabilities the wishes stand for.
fn asked(work: &Work<'_>, configuration: &Configuration) -> Result<(Arguments, Map<String, Value>)> {
    let (wish, config) = (&work.one.wish, work.request.config);
    let on = |fault: Fault| fault.on(work.one.network.name.as_str());
    if !wish.link_local_ips.is_empty() {
        return Err(on(Fault::input("link-local addresses cannot be asked for on a network of CNI plugins")));
    }
    let mut arguments = vec![("IgnoreUnknown".to_owned(), "1".to_owned())];
    let mut capabilities = Map::new();
    let addresses = work.one.addresses()?;
    let prefix = |ip: &IpAddr| {
        let pool = work.one.network.pool_of(*ip).map(|pool| pool.subnet.prefix);
        pool.or_else(|| configuration.prefix_of(*ip))
    };
    if let Some(ip) = addresses.iter().find(|ip| configuration.is_static() && prefix(ip).is_none()) {
        return Err(on(Fault::input(format!("{ip} is in no subnet of the network, and static wants to know how long its prefix is"))
            .hint("ask for it with driver-opt=IP=ADDRESS/LENGTH, or list addresses of its subnet in static's configuration")));
    }
    let with_prefix =
        |ip: &IpAddr| prefix(ip).map_or_else(|| ip.to_string(), |prefix| format!("{ip}/{prefix}"));
    if configuration.has_capability("ips") && !addresses.is_empty() {
        capabilities.insert("ips".into(), addresses.iter().map(with_prefix).collect());
    } else {
        // Plugins that give addresses have known this one from the first.
        let plain = |ip: &IpAddr| if configuration.is_static() { with_prefix(ip) } else { ip.to_string() };
        arguments.extend(addresses.first().map(|ip| ("IP".to_owned(), plain(ip))));
    }
    if let Some(mac) = work.one.mac()?.map(link::mac_text) {
        if configuration.has_capability("mac") {
            capabilities.insert("mac".into(), mac.into());
        } else {
            arguments.push(("MAC".into(), mac));
        }
    }
    if !wish.aliases.is_empty() {
        capabilities.insert("aliases".into(), json!(wish.aliases));
    }
    if !(config.dns.is_empty() && config.dns_search.is_empty() && config.dns_option.is_empty()) {
        let dns = json!({"servers": config.dns, "searches": config.dns_search, "options": config.dns_option});
        capabilities.insert("dns".into(), dns);
    }
    for (name, value) in &wish.driver_opts {
        if !BY_OPTION.contains(&name.as_str()) {
            arguments.push((name.clone(), value.clone()));
        } else if configuration.has_capability(name) {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value.as_str()));
            capabilities.insert(name.clone(), value);
        } else {
            return Err(on(Fault::input(format!("no plugin takes {name}")).hint(format!(
                "give one that does \"capabilities\":{{\"{name}\":true}} in the network's configuration"
            ))));
        }
    }
    Ok((arguments, capabilities))
}

/// One of each port of a range.
fn mappings(port: &Port) -> Vec<Value> {
    let first = port.host.unwrap_or(0);
    (0..port.count.unwrap_or(1).max(1))
        .map(|n| {
            let mut mapping = json!({
                "hostPort": first.saturating_add(n),
                "containerPort": port.container.saturating_add(n),
                "protocol": port.protocol,
            });
            if let Some(ip) = &port.ip {
                mapping["hostIP"] = ip.as_str().into();
            }
            mapping
        })
        .collect()
}

/// The attachment as the plugins tell of it.
fn told(attachment: &Attachment, interface: &str, result: Value) -> Result<Attachment> {
    let success = Success::parse(&result, Version::NEWEST)?;
    let gateway = |ipv6: bool| {
        let mut of_family = success.addresses(interface).filter(|ip| ip.address.address.is_ipv6() == ipv6);
        of_family.find_map(|ip| ip.gateway).map(|gateway| gateway.to_string())
    };
    let mac = success.inside(interface).map(|inside| inside.mac.to_ascii_lowercase());
    let outside = success.outside().map(|outside| outside.name.clone());
    Ok(Attachment {
        addresses: success.addresses(interface).map(|ip| ip.address.to_string()).collect(),
        gateway: gateway(false),
        gateway6: gateway(true),
        mac: mac.filter(|mac| !mac.is_empty()),
        host_interface: outside.filter(|name| cni::check_interface(name).is_ok()),
        cni: Some(result),
        ..attachment.clone()
    })
}

/// Plugins may pass over what they were asked for without a word.
fn agree(work: &Work<'_>, made: &Attachment) -> Result<()> {
    let given: Vec<&str> = made.addresses.iter().filter_map(|text| text.split('/').next()).collect();
    let missing =
        work.one.addresses()?.into_iter().find(|asked| !given.contains(&asked.to_string().as_str()));
    if let Some(address) = missing {
        return Err(Fault::failed(format!("the plugins gave {} instead of {address}", given.join(", "))).hint(
            "a plugin takes an address if it has \"capabilities\":{\"ips\":true}, and with host-local only one",
        ));
    }
    match work.one.mac()?.map(link::mac_text) {
        Some(mac) if made.mac.as_ref().is_some_and(|given| *given != mac) => {
            Err(Fault::failed(format!("the plugins did not give hardware address {mac}"))
                .hint("tuning does, with \"capabilities\":{\"mac\":true}"))
        }
        _ => Ok(()),
    }
}
