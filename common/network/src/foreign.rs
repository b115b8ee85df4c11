//! Containers of others on networks of ours: what net-attach does as a CNI plugin.
//!
//! Like a container of our own one is named by a file before anything is made for it (`$STAVES_RUN/foreign/<id>`), and keeps
//! what it has as long as its network namespace is there or until it is detached. Nobody of ours looks after it: whoever
//! attached it detaches it.

use crate::address;
use crate::attach::Request;
use crate::definition::{Definition, Driver};
use crate::host::{Host, InUse, Namespace};
use crate::netlink::{DUMP, Messages, Socket, attribute};
use crate::port::{Wish, bound};
use crate::signals::Uninterrupted;
use crate::wanted::{Wanted, Ways, is_host_name};
use crate::work::{Work, taken_inside};
use crate::{dns, link, release, vlan};
use fault::{Explain, Fault, Kind, Result};
use record::{Attachment, Config, NetworkWish, Record};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::AddressMessage;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use store::leases::addresses_of;
use store::{Foreign, Store};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const ADDRESS_HEADER: usize = 8;

/// A container of others, and what its runtime asks for.
#[derive(Clone, Debug, Default)]
pub struct Stranger<'s> {
    /// What its runtime calls it.
    pub container: &'s str,
    /// Name of the interface inside.
    pub interface: &'s str,
    /// Path of its network namespace.
    pub namespace: &'s str,
    /// Name of the runtime's network configuration.
    pub configuration: &'s str,
    /// Ours.
    pub network: &'s str,
    /// The network leads out, if it does.
    pub is_way_out: bool,
    pub addresses: Vec<IpAddr>,
    pub mac: Option<String>,
    /// What it is called on the network, its name first.
    pub names: Vec<String>,
    pub ports: Vec<Wish>,
}

/// What the work on one is done with.
struct Case {
    id: String,
    container: store::ContainerDir,
    config: Config,
    one: Wanted,
    ways: Ways,
}

impl Case {
    fn new(host: &Host<'_>, stranger: &Stranger<'_>) -> Result<Case> {
        let network = Definition::load(host.store, stranger.network)?;
        if !network.driver.has_device() && vlan::Kind::of(&network)?.is_none() {
            return Err(Fault::input(format!(
                "networks of driver {} are not for containers of others",
                network.driver.name()
            ))
            .on(stranger.network));
        }
        let of_family = |ipv6: bool| stranger.addresses.iter().find(|ip| ip.is_ipv6() == ipv6);
        let mut names = stranger.names.iter().filter(|name| is_host_name(name)).cloned();
        let config = Config { hostname: names.next(), ..Config::default() };
        let wish = NetworkWish {
            name: network.name.clone(),
            aliases: names.collect(),
            ip: of_family(false).map(IpAddr::to_string),
            ip6: of_family(true).map(IpAddr::to_string),
            mac: stranger.mac.clone(),
            interface: Some(stranger.interface.to_owned()),
            ..NetworkWish::default()
        };
        let taken = usize::from(of_family(false).is_some()) + usize::from(of_family(true).is_some());
        if stranger.addresses.len() > taken {
            return Err(Fault::input("one address of each family at the most").on(stranger.network));
        }
        let way = stranger.is_way_out.then(|| network.name.clone());
        let id = Store::foreign_id(stranger.container, stranger.interface);
        Ok(Case {
            container: host.store.container_dir(&id),
            id,
            config,
            one: Wanted::load(wish, |_| Ok(network))?,
            ways: Ways { v4: way.clone(), v6: way },
        })
    }

    fn request(&self) -> Request<'_> {
        Request { container: &self.container, config: &self.config, networks: &[], publish: &[], told: &[] }
    }

    fn ready<'h>(&self, host: &'h Host<'h>) -> Result<Option<InUse>> {
        if self.one.network.driver.has_device() {
            return host.ready(&self.one.network).map(Some);
        }
        vlan::make_ready(host, &self.one.network).map(|()| None)
    }
}

/// Attaches it; what was made, and of which network. Fails with a conflict if it has such an interface already, a port or an
/// address is taken, and then leaves everything as it was.
pub fn add(host: &Host<'_>, stranger: &Stranger<'_>) -> Result<(Attachment, Definition)> {
    let case = Case::new(host, stranger)?;
    let store = host.store;
    let _lock = store.lock_foreign(&case.id)?;
    let _whole = Uninterrupted::begin();
    let result = open(host, stranger.namespace).and_then(|namespace| {
        if let Some(before) = store.foreign(&case.id)? {
            let inside = host.socket_inside(&namespace)?;
            let there = link::index_of(&inside, stranger.interface);
            if before.is_alive() && there.explain(|| format!("look up {}", stranger.interface))?.is_some() {
                return Err(taken_inside(stranger.interface));
            }
            // Of one that was killed, or whose container is gone.
            give_back(host, &case.id, &before)?;
        }
        attach(host, stranger, &case, &namespace)
    });
    match result {
        Ok(attachment) => Ok((attachment, case.one.network)),
        Err(fault) => {
            if store.foreign(&case.id)?.is_none() {
                let _ = store.forget_foreign(&case.id);
            }
            Err(fault)
        }
    }
}

fn attach(
    host: &Host<'_>,
    stranger: &Stranger<'_>,
    case: &Case,
    namespace: &Namespace,
) -> Result<Attachment> {
    let store = host.store;
    let request = case.request();
    let ports = bound(Some(&case.one.network), &stranger.ports);
    let work = Work {
        host,
        request: &request,
        one: &case.one,
        interface: stranger.interface.to_owned(),
        ways: &case.ways,
        ports: &ports,
    };
    if !stranger.ports.is_empty() && !case.one.network.driver.has_device() {
        return Err(Fault::input(format!(
            "port {} cannot be published: the network is no bridge of this host",
            stranger.ports[0]
        ))
        .on(stranger.network));
    }
    let in_use = case.ready(host)?;
    let status = namespace.file().metadata().explain(|| format!("look at {}", stranger.namespace))?;
    let mut foreign = Foreign {
        container: stranger.container.to_owned(),
        interface: stranger.interface.to_owned(),
        netns: stranger.namespace.to_owned(),
        netns_id: (status.dev(), status.ino()),
        configuration: stranger.configuration.to_owned(),
        attachment: Attachment {
            name: case.one.network.name.clone(),
            interface: Some(stranger.interface.to_owned()),
            ..Attachment::default()
        },
        ..Foreign::default()
    };
    // From here on it is alive to others.
    store.save_foreign(&case.id, &foreign)?;
    let made = work
        .lease(&Record::new(), None)
        .and_then(|attachment| {
            foreign.attachment = attachment;
            store.save_foreign(&case.id, &foreign)?;
            mark(store, &case.id, &foreign)
        })
        .and_then(|()| work.connect(&foreign.attachment, namespace, in_use))
        .and_then(|()| dns::ensure(host, &case.one.network));
    match made {
        Ok(()) => Ok(foreign.attachment),
        Err(fault) => {
            // What failed first is what the user has to hear of.
            let _ = give_back(host, &case.id, &foreign);
            let _ = store.forget_foreign(&case.id);
            Err(fault)
        }
    }
}

/// So that who reads the leases sees whose they are.
fn mark(store: &Store, id: &str, foreign: &Foreign) -> Result<()> {
    let leases = store.leases(&foreign.attachment.name)?;
    for address in addresses_of(&foreign.attachment) {
        if let Some(mut lease) = leases.read(address)?.filter(|lease| lease.container == id) {
            lease.extra.insert("foreign".into(), true.into());
            lease.extra.insert("netns".into(), foreign.netns.as_str().into());
            leases.rewrite(address, &lease)?;
        }
    }
    Ok(())
}

/// Detaches it, wherever it is attached by that interface; what is not there is not missed.
pub fn delete(host: &Host<'_>, container: &str, interface: &str) -> Result<Option<Foreign>> {
    delete_id(host, &Store::foreign_id(container, interface))
}

/// The same, by the id it has in leases.
pub fn delete_id(host: &Host<'_>, id: &str) -> Result<Option<Foreign>> {
    // A directory alone is of one that was killed before it made anything.
    if !host.store.run().join("foreign").join(id).is_dir() {
        return Ok(None);
    }
    let _lock = host.store.lock_foreign(id)?;
    let _whole = Uninterrupted::begin();
    let found = host.store.foreign(id)?;
    if let Some(foreign) = &found {
        give_back(host, id, foreign)?;
    }
    host.store.forget_foreign(id)?;
    Ok(found)
}

/// Everything but what is known of it.
fn give_back(host: &Host<'_>, id: &str, foreign: &Foreign) -> Result<()> {
    let attachment = &foreign.attachment;
    if attachment.host_interface.is_none()
        && let Ok((network, _)) = Definition::preview(host.store, &attachment.name)
        && foreign.is_alive()
        && let Ok(namespace) = Namespace::open(&foreign.netns)
    {
        vlan::remove(host, &network, &namespace, &foreign.interface)?;
    }
    if attachment.addresses.is_empty() {
        // Killed before it was written down what was leased.
        let Ok((network, _)) = Definition::preview(host.store, &attachment.name) else { return Ok(()) };
        let leases = host.store.leases(&attachment.name)?;
        for address in leases.addresses()? {
            if let Some(lease) = leases.read(address)?.filter(|lease| lease.container == id) {
                release::lease(host, &network, address, &lease)?;
            }
        }
    }
    release::all(host, id, attachment)
}

/// Fails with failed, and says why, if something of the attachment is missing.
pub fn check(host: &Host<'_>, stranger: &Stranger<'_>, told: &[IpAddr]) -> Result<()> {
    let case = Case::new(host, stranger)?;
    let missing = |what: &str| Fault::failed(what.to_owned()).on(stranger.container);
    let foreign = host.store.foreign(&case.id)?.ok_or_else(|| missing("it is not attached"))?;
    if foreign.attachment.name != case.one.network.name {
        return Err(missing("it is attached to another network"));
    }
    let namespace = open(host, stranger.namespace)?;
    let bridge = match case.one.network.driver {
        Driver::Bridge | Driver::Routed => host.look(&case.one.network)?.map(|in_use| in_use.ready.ifindex),
        _ => None,
    };
    let request = case.request();
    let work = Work::of(host, &request, &case.one, &foreign.attachment);
    if !work.holds(&foreign.attachment, &namespace, bridge)? {
        return Err(missing("its interface, its lease or the network's bridge is missing"));
    }
    let inside = host.socket_inside(&namespace)?;
    let what = || format!("look at {}", stranger.interface);
    let index = link::index_of(&inside, stranger.interface).explain(what)?.unwrap_or_default();
    let present = addresses_at(&inside, index).explain(what)?;
    let leased: Vec<IpAddr> = addresses_of(&foreign.attachment).collect();
    if let Some(address) = leased.iter().find(|address| !present.contains(address)) {
        return Err(missing(&format!("its interface has lost address {address}")));
    }
    match told.iter().find(|address| !leased.contains(address)) {
        Some(address) => Err(missing(&format!("address {address} is not leased to it"))),
        None => Ok(()),
    }
}

/// Detaches those attached by this configuration that are not among the valid ones, given as container and interface. Goes on
/// past failures; the first of them.
pub fn collect(host: &Host<'_>, configuration: &str, valid: &[(String, String)]) -> Result<()> {
    let mut first = None;
    for id in host.store.foreigners()? {
        let Some(foreign) = host.store.foreign(&id)? else { continue };
        let pair = (foreign.container.clone(), foreign.interface.clone());
        if foreign.configuration != configuration || valid.contains(&pair) {
            continue;
        }
        if let Err(fault) = delete(host, &pair.0, &pair.1) {
            first.get_or_insert(fault);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Fails if nobody could be attached to the network now.
pub fn status(host: &Host<'_>, network: &str) -> Result<()> {
    let stranger = Stranger { network, interface: "eth0", ..Stranger::default() };
    let case = Case::new(host, &stranger)?;
    let wanted = address::Wanted { id: &case.id, ..address::Wanted::default() };
    address::preview(host, &case.one.network, &wanted).map(drop)
}

fn open(host: &Host<'_>, path: &str) -> Result<Namespace> {
    let what = || format!("open network namespace {path}");
    let namespace = Namespace::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::not_found(what()).because(error),
        _ => Fault::new(Kind::of_io(&error), what()).because(error),
    })?;
    if namespace.is(host.namespace()) {
        return Err(Fault::input(format!("{path} is the host's own network namespace")));
    }
    Ok(namespace)
}

/// The addresses an interface has.
fn addresses_at(socket: &Socket, index: u32) -> io::Result<Vec<IpAddr>> {
    let mut messages = Messages::new();
    messages.push_route(DUMP, Message::GetAddress(AddressMessage::default()));
    let replies = socket.ask(&messages)?;
    let parse = |body: &[u8]| {
        let at = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
        let attributes = body.get(ADDRESS_HEADER..)?;
        let value = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
        let address = match value.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        };
        (at == index).then_some(address)
    };
    Ok(replies.iter().filter_map(|reply| parse(&reply.body)).collect())
}
