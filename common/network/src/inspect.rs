//! What there is of networks, and who is on them.

use crate::definition::{DEFAULT, Definition, File, unknown};
use crate::host::Host;
use crate::link;
use fault::{Explain, Fault, Kind, Result};
use record::{Attachment, Extra, Record};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use store::Store;

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attached {
    pub id: String,
    pub name: String,
    /// In the container.
    pub interface: String,
    /// With prefix lengths.
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// A network as it is shown: its definition, and what is of the moment.
#[derive(Clone, Debug)]
pub struct Info {
    pub file: File,
    pub definition: Definition,
    /// Something is made of it in the kernel: its bridge is there.
    pub active: bool,
    /// A container is attached to it, or will be when it is started.
    pub in_use: bool,
    pub containers: Vec<Attached>,
}

/// What [`Info`] adds to a definition in a record.
const OF_THE_MOMENT: [&str; 3] = ["active", "in_use", "containers"];

/// Names of the containers that ask for a network, whether they run or not, by network.
pub type Users = BTreeMap<String, Vec<String>>;

/// All networks by name, the default one before it is made, too. What cannot be read is handed to `damaged`.
pub fn list(host: &Host<'_>, mut damaged: impl FnMut(Fault)) -> Result<Vec<Info>> {
    let store = host.store;
    let mut names = store.networks()?;
    if !names.iter().any(|name| name == DEFAULT) {
        names.push(DEFAULT.to_owned());
    }
    names.sort();
    let users = users(store)?;
    let mut found = Vec::new();
    for name in names {
        match find_with(host, &name, &users) {
            Ok(info) => found.push(info),
            // Half of one, made or removed.
            Err(fault) if fault.kind() == Kind::NotFound => {}
            Err(fault) => damaged(fault),
        }
    }
    Ok(found)
}

pub fn find(host: &Host<'_>, name: &str) -> Result<Info> {
    find_with(host, name, &users(host.store)?)
}

fn find_with(host: &Host<'_>, name: &str, users: &Users) -> Result<Info> {
    let store = host.store;
    let file = match File::find(store, name)? {
        Some(file) => file,
        None if name == DEFAULT => File::default_bridge(),
        None => return Err(unknown(store, name)),
    };
    let definition = file.clone().check_named()?;
    let containers = attached(store, &definition)?;
    Ok(Info {
        active: !definition.device.is_empty() && {
            let index = link::index_of(host.route()?, &definition.device);
            index.explain(|| format!("look up {}", definition.device))?.is_some()
        },
        in_use: !containers.is_empty() || users.contains_key(name),
        file: file.with_pools(&definition.pools),
        definition,
        containers,
    })
}

impl Info {
    /// `record` with this network as the only one of its section `networks`, put over what it says of the same.
    pub fn into_record(&self, mut record: Record) -> Result<Record> {
        let came_in: Option<Vec<Value>> = record.get("networks")?;
        let same = came_in.into_iter().flatten().find(|member| member["name"] == self.file.name.as_str());
        let mut member = same.and_then(|value| value.as_object().cloned()).unwrap_or_default();
        if let Ok(Value::Object(own)) = serde_json::to_value(&self.file) {
            member.extend(own);
        }
        member.insert("active".into(), self.active.into());
        member.insert("in_use".into(), self.in_use.into());
        member.insert("containers".into(), serde_json::json!(self.containers));
        record.set("networks", &[Value::Object(member)])?;
        Ok(record)
    }
}

/// Definitions in a record's section `networks`, without what is of the moment: what to make networks of.
pub fn definitions_in(record: &Record) -> Result<Vec<File>> {
    let mut files: Vec<File> = record.require("networks")?;
    for file in &mut files {
        let attachment = serde_json::to_value(Attachment::default()).unwrap_or_default();
        let of_attachments =
            attachment.as_object().map(|members| members.keys().cloned().collect::<Vec<_>>());
        let extra: &mut Extra = &mut file.extra;
        extra.retain(|name, _| {
            !OF_THE_MOMENT.contains(&name.as_str())
                && !of_attachments.iter().flatten().any(|member| member == name)
                && !["interface", "host_interface", "gateway6", "mac", "aliases"].contains(&name.as_str())
        });
        file.created_at = None;
    }
    Ok(files)
}

/// Names in a record's section `networks`, each once.
pub fn names_in(record: &Record) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let mut names: Vec<String> = Vec::new();
    for network in record.get::<Vec<Named>>("networks")?.unwrap_or_default() {
        if !names.contains(&network.name) {
            names.push(network.name);
        }
    }
    Ok(names)
}

/// The containers on a network: those that hold a lease and are looked after, and those whose record says so where there are no
/// leases.
pub fn attached(store: &Store, network: &Definition) -> Result<Vec<Attached>> {
    let mut found: BTreeMap<String, Attached> = BTreeMap::new();
    let leases = store.leases(&network.name)?;
    let mut addresses = leases.addresses()?;
    addresses.sort();
    for address in addresses {
        let Some(lease) = leases.read(address)?.filter(|lease| store.is_looked_after(&lease.container))
        else {
            continue;
        };
        let entry = found.entry(lease.container.clone()).or_insert_with(|| Attached {
            id: lease.container.clone(),
            name: lease.names.first().cloned().unwrap_or_default(),
            interface: lease.interface.clone(),
            ..Attached::default()
        });
        entry.addresses.push(with_prefix(network, address));
    }
    for container in store.containers()?.iter().filter(|container| container.is_alive()) {
        // One that cannot be read is known by its lease, if at all.
        let Ok(record) = container.load() else { continue };
        let Ok(attachments) = record.networks() else { continue };
        let Some(attachment) = attachments.iter().find(|one| one.name == network.name) else { continue };
        let held = found.contains_key(&container.id);
        if !held && !network.pools.is_empty() && attachment.cni.is_none() {
            continue;
        }
        let entry = found.entry(container.id.clone()).or_default();
        entry.id.clone_from(&container.id);
        if let Ok(Some(told)) = record.container() {
            entry.name = told.name;
        }
        entry.interface = attachment.interface.clone().unwrap_or_default();
        entry.mac.clone_from(&attachment.mac);
        if !held {
            entry.addresses.clone_from(&attachment.addresses);
        }
    }
    Ok(found.into_values().collect())
}

fn with_prefix(network: &Definition, address: IpAddr) -> String {
    match network.pool_of(address) {
        Some(pool) => format!("{address}/{}", pool.subnet.prefix),
        None => address.to_string(),
    }
}

/// Who asks for which network, in its wishes or by where it was attached last.
///
/// # Errors
/// When a container's record cannot be read: what it needs is unknown then.
pub fn users(store: &Store) -> Result<Users> {
    let mut users = Users::new();
    for container in store.containers()? {
        let on = |fault: Fault| fault.on(container.id.as_str());
        let record = match container.load() {
            // Removed meanwhile, or not made yet.
            Err(fault) if fault.kind() == Kind::NotFound => continue,
            other => other.map_err(on)?,
        };
        let name = record.container().map_err(on)?.map(|told| told.name).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| container.id.clone());
        let config = record.config().map_err(on)?;
        let attachments = record.networks().map_err(on)?;
        let asked = attachments.into_iter().map(|attachment| attachment.name);
        let asked = asked.chain(config.networks.into_iter().map(|wish| wish.name)).chain(config.network);
        for network in asked {
            let list = users.entry(network).or_default();
            if !list.contains(&name) {
                list.push(name.clone());
            }
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_moment_does_not_go_into_a_definition() {
        let line = r#"{"networks":[{"name":"web","driver":"bridge","subnets":[{"subnet":"10.7.0.0/24"}],"active":true,
            "in_use":true,"containers":[],"addresses":["10.7.0.2/24"],"ports":[],"mac":"02:42:0a:07:00:02",
            "interface":"eth0","created_at":"2026-01-01T00:00:00Z","mine":{"kept":1.50}}]}"#;
        let record: Record = Record::parse(line).unwrap();
        let files = definitions_in(&record).unwrap();
        assert_eq!(files[0].extra.keys().collect::<Vec<_>>(), ["mine"]);
        assert_eq!((files[0].created_at.as_deref(), files[0].subnets.len()), (None, 1));
        assert_eq!(names_in(&record).unwrap(), ["web"]);
    }
}
