//! The nftables table `staves`: rules made once since boot by nft(8), elements for published ports by netlink.

mod element;
mod firewalld;
mod foreign;
mod routed;
mod rules;

pub use element::{Element, elements};
pub use foreign::{Obstacle, obstacles, open_ways};
pub use rules::make_table;

use crate::definition::Definition;
use crate::link;
use crate::netlink::{ACK, Attributes, CREATE, DUMP, Messages, REQUEST, Socket, attribute, attributes, text};
use fault::{Explain, Fault, Result};
use rustix::io::Errno;
use std::collections::HashSet;
use std::io;

pub const TABLE: &str = "staves";

// linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const fn message(number: u16) -> u16 {
    (SUBSYSTEM << 8) + number
}
const NEW_ELEMENTS: u16 = message(12);
const GET_ELEMENTS: u16 = message(13);
const DELETE_ELEMENTS: u16 = message(14);
const GET_TABLE: u16 = message(1);
const GET_CHAIN: u16 = message(4);
const GET_RULE: u16 = message(7);
const DELETE_TABLE: u16 = message(2);
const FAMILY_INET: u8 = 1;
const NAME: u16 = 1;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;

const LIST_CHAINS_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const POLICY_DROP: u32 = 0;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;

/// Elements in one message: the list's length is a 16 bit number.
const CHUNK: usize = 400;

/// Elements in one transaction: it has to fit into the socket's buffer, and so have its messages again in the answers of one that fails.
const TRANSACTION: usize = 4 * CHUNK;

/// See [`Firewall::knows`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// No packet passes that the network's definition keeps out.
    pub as_it_is: bool,
    /// There are internal networks.
    pub internal_ones: bool,
    /// There are routed networks.
    pub routed_ones: bool,
}

/// The table's elements, through one socket.
pub struct Firewall(Socket);

impl Firewall {
    pub fn open() -> Result<Firewall> {
        Socket::netfilter().map(Firewall)
    }

    /// Adds elements, all or none of a transaction's; who fails removes them. Those of dead containers in their way are removed: the
    /// caller has claimed the ports, so nobody living can have put them there.
    ///
    /// The inner error is `ENOENT` when the table or a map is missing.
    pub fn add(&self, elements: &[Element]) -> io::Result<()> {
        match self.change(NEW_ELEMENTS, CREATE, elements) {
            Err(error) if in_the_way(&error) => {
                let present = self.all()?;
                let stale: Vec<Element> =
                    present.into_iter().filter(|old| elements.iter().any(|new| new.overlaps(old))).collect();
                self.change(DELETE_ELEMENTS, 0, &stale)?;
                self.change(NEW_ELEMENTS, CREATE, elements)
            }
            outcome => outcome,
        }
    }

    /// Removes those of the elements that are there. No table, no elements.
    pub fn remove(&self, elements: &[Element]) -> Result<()> {
        let what = || "unpublish ports".into();
        // A record and a lease tell of the same port; the second time it would not be there, and the kernel takes nothing out.
        let mut told = HashSet::new();
        let elements: Vec<Element> =
            elements.iter().filter(|element| told.insert(*element)).cloned().collect();
        match self.change(DELETE_ELEMENTS, 0, &elements) {
            Err(error) if not_there(&error) => {}
            outcome => return outcome.explain(what),
        }
        let present: HashSet<Element> = self.all().explain(what)?.into_iter().collect();
        let left: Vec<Element> = elements.into_iter().filter(|element| present.contains(element)).collect();
        match self.change(DELETE_ELEMENTS, 0, &left) {
            Err(error) if not_there(&error) => {}
            outcome => return outcome.explain(what),
        }
        // Others remove some of them at the same time.
        for element in &left {
            match self.change(DELETE_ELEMENTS, 0, std::slice::from_ref(element)) {
                Err(error) if !not_there(&error) => return Err(error).explain(what),
                _ => {}
            }
        }
        Ok(())
    }

    /// All elements of all maps of ours; none if there is no table.
    pub fn all(&self) -> io::Result<Vec<Element>> {
        let mut found = Vec::new();
        for map in element::ALL {
            self.list(map, |bytes| found.extend(Element::parse(map, bytes)))?;
        }
        Ok(found)
    }

    /// The bridges our rules are about; none if there is no table.
    pub fn bridges(&self) -> io::Result<Vec<String>> {
        self.members(rules::BRIDGES)
    }

    /// What the rules know now of a network that is about to be made.
    pub fn knows(&self, network: &Definition) -> Result<Known> {
        let what = || format!("look at firewall table {TABLE}");
        let has = |set: &str| self.members(set).map(|names| names.contains(&network.device)).explain(what);
        let internal = self.members(rules::INTERNAL).explain(what)?;
        let shut = (!network.internal || internal.contains(&network.device))
            && (!network.isolate || has(rules::ISOLATED)?);
        let groups = self.keys(routed::ROUTED).explain(what)?;
        let known = match crate::routed::group(network).map(u32::to_ne_bytes) {
            None => true,
            Some(group) => {
                let has = |set: &str| {
                    let keys = self.keys(set).explain(what)?;
                    Ok::<bool, Fault>(keys.iter().any(|key| *key == group))
                };
                groups.iter().any(|key| *key == group)
                    && (!network.internal || has(routed::INTERNAL)?)
                    && (!network.isolate || has(routed::ISOLATED)?)
            }
        };
        Ok(Known {
            as_it_is: shut && known && has(rules::BRIDGES)?,
            internal_ones: !internal.is_empty(),
            routed_ones: !groups.is_empty(),
        })
    }

    fn members(&self, set: &str) -> io::Result<Vec<String>> {
        Ok(self.keys(set)?.iter().map(|name| text(name).to_owned()).collect())
    }

    fn keys(&self, set: &str) -> io::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        self.list(set, |bytes| {
            let key = attribute(bytes, KEY).and_then(|key| attribute(key, VALUE));
            found.extend(key.map(<[u8]>::to_vec));
        })?;
        Ok(found)
    }

    /// Calls `take` with each element of a set or map; with none if it is missing.
    fn list(&self, set: &str, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let names = Attributes::new().with_text(LIST_TABLE, TABLE).with_text(LIST_SET, set);
        let mut messages = Messages::new();
        messages.push(GET_ELEMENTS, REQUEST | DUMP, &general(FAMILY_INET, 0), &names);
        let replies = match self.0.ask(&messages) {
            Err(error) if not_there(&error) => return Ok(()),
            replies => replies?,
        };
        for reply in &replies {
            let list = attribute(reply.body.get(4..).unwrap_or_default(), LIST_ELEMENTS).unwrap_or_default();
            attributes(list).for_each(|(_, bytes)| take(bytes));
        }
        Ok(())
    }

    /// Takes the addresses out that a network was seen by: an element of a map that is there cannot be added as another. Those the
    /// host had on it as it was made before, too, unless it keeps them.
    pub fn forget_seen_as(&self, network: &Definition, before: Option<&Definition>) -> Result<()> {
        let now = routed::memberships(network);
        for (set, key) in before.map(routed::memberships).unwrap_or_default() {
            if routed::AT.contains(&set) && !now.contains(&(set, key.clone())) {
                self.forget_member(set, &key, &network.device)?;
            }
        }
        for (set, key) in rules::memberships(network) {
            if rules::OUTBOUND.contains(&set) || routed::CHANGING.contains(&set) {
                self.forget_member(set, &key, &network.device)?;
            }
        }
        Ok(())
    }

    fn forget_member(&self, set: &str, key: &[u8], device: &str) -> Result<()> {
        let element = Attributes::new().with_nested(KEY, &Attributes::new().with(VALUE, key));
        let list = Attributes::new().with_nested(ELEMENT, &element);
        let mut messages = Messages::new();
        begin(&mut messages);
        push_elements(&mut messages, DELETE_ELEMENTS, 0, set, &list);
        end(&mut messages);
        match self.0.request(&messages) {
            Err(error) if !not_there(&error) => {
                Err(error).explain(|| format!("take {device} out of firewall table {TABLE}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a network out of the sets that make our rules concern it; one that is not in them is not missed.
    pub fn forget(&self, network: &Definition) -> Result<()> {
        for (set, key) in rules::memberships(network) {
            self.forget_member(set, &key, &network.device)?;
        }
        if self.has_table()? {
            rules::forget_subnets(network);
        }
        firewalld::forget(&self.chains().explain(|| "list firewall chains".into())?, network);
        Ok(())
    }

    /// Whether there are rules in the chain that is left to the administrator: with them the table stays.
    pub fn has_user_rules(&self) -> Result<bool> {
        let names = Attributes::new().with_text(RULE_TABLE, TABLE).with_text(RULE_CHAIN, rules::USER);
        let mut messages = Messages::new();
        messages.push(GET_RULE, REQUEST | DUMP, &general(FAMILY_INET, 0), &names);
        match self.0.ask(&messages) {
            Err(error) if not_there(&error) => Ok(false),
            replies => Ok(!replies.explain(|| format!("look at firewall table {TABLE}"))?.is_empty()),
        }
    }

    /// Chains of all tables of all families.
    fn chains(&self) -> io::Result<Vec<Chain>> {
        let mut messages = Messages::new();
        messages.push(GET_CHAIN, REQUEST | DUMP, &general(0, 0), &Attributes::new());
        Ok(self.0.ask(&messages)?.iter().filter_map(|reply| Chain::parse(&reply.body)).collect())
    }

    pub fn has_table(&self) -> Result<bool> {
        let mut messages = Messages::new();
        let name = Attributes::new().with_text(NAME, TABLE);
        messages.push(GET_TABLE, REQUEST, &general(FAMILY_INET, 0), &name);
        match self.0.ask(&messages) {
            Ok(found) => Ok(!found.is_empty()),
            Err(error) if not_there(&error) => Ok(false),
            Err(error) => Err(error).explain(|| format!("look up firewall table {TABLE}")),
        }
    }

    /// Removes the table with all that is in it, and what was added to other tables for it; `false` if there was none, or
    /// it stays: it does for a bridge that is there, perhaps of another store, and for an administrator's rules in it.
    pub fn remove_table(&self) -> Result<bool> {
        let what = || format!("look at firewall table {TABLE}");
        for bridge in self.bridges().explain(what)? {
            if link::index_of(&self.0, &bridge).explain(what)?.is_some() {
                return Ok(false);
            }
        }
        if self.has_user_rules()? {
            return Ok(false);
        }
        foreign::close_ways(self)?;
        let mut messages = Messages::new();
        begin(&mut messages);
        let name = Attributes::new().with_text(NAME, TABLE);
        messages.push(DELETE_TABLE, REQUEST | ACK, &general(FAMILY_INET, 0), &name);
        end(&mut messages);
        match self.0.request(&messages) {
            Ok(()) => Ok(true),
            Err(error) if not_there(&error) => Ok(false),
            Err(error) => Err(error).explain(|| format!("remove firewall table {TABLE}")),
        }
    }

    /// A transaction for as many as fit into one.
    fn change(&self, what: u16, flags: u16, elements: &[Element]) -> io::Result<()> {
        elements.chunks(TRANSACTION).try_for_each(|some| self.change_some(what, flags, some))
    }

    fn change_some(&self, what: u16, flags: u16, elements: &[Element]) -> io::Result<()> {
        let mut messages = Messages::new();
        begin(&mut messages);
        for map in element::ALL {
            let of_map: Vec<&Element> = elements.iter().filter(|element| element.map == map).collect();
            for chunk in of_map.chunks(CHUNK) {
                let list = chunk.iter().fold(Attributes::new(), |list, element| {
                    list.with_nested(ELEMENT, &element.attributes())
                });
                push_elements(&mut messages, what, flags, map, &list);
            }
        }
        end(&mut messages);
        self.0.request(&messages)
    }
}

fn push_elements(messages: &mut Messages, what: u16, flags: u16, set: &str, list: &Attributes) {
    let all = Attributes::new()
        .with_text(LIST_TABLE, TABLE)
        .with_text(LIST_SET, set)
        .with_nested(LIST_ELEMENTS, list);
    messages.push(what, REQUEST | ACK | flags, &general(FAMILY_INET, 0), &all);
}

/// A chain of anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    family: u8,
    table: String,
    name: String,
    /// Where it is, if that concerns us.
    hook: Option<foreign::Hook>,
    /// Its policy is to drop.
    drops: bool,
}

impl Chain {
    fn parse(body: &[u8]) -> Option<Chain> {
        let family = *body.first()?;
        let attributes = body.get(4..)?;
        let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
        let hook = attribute(attributes, CHAIN_HOOK).and_then(|hook| number(attribute(hook, HOOK_NUMBER)?));
        let policy = attribute(attributes, CHAIN_POLICY).and_then(number);
        Some(Chain {
            family,
            table: text(attribute(attributes, LIST_CHAINS_TABLE)?).to_owned(),
            name: text(attribute(attributes, CHAIN_NAME)?).to_owned(),
            hook: hook.and_then(foreign::Hook::of),
            drops: policy == Some(POLICY_DROP),
        })
    }
}

fn not_there(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOENT.raw_os_error())
}

fn in_the_way(error: &io::Error) -> bool {
    [Errno::EXIST, Errno::BUSY, Errno::NOTEMPTY]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn general(family: u8, resource: u16) -> [u8; 4] {
    let resource = resource.to_be_bytes();
    [family, 0, resource[0], resource[1]]
}

fn begin(messages: &mut Messages) {
    messages.push(BATCH_BEGIN, REQUEST, &general(0, SUBSYSTEM), &Attributes::new());
}

fn end(messages: &mut Messages) {
    messages.push(BATCH_END, REQUEST, &general(0, SUBSYSTEM), &Attributes::new());
}
