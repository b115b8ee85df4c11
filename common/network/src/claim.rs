//! `$STAVES_RUN/ports`: which container a port of the host belongs to.
//!
//! `tcp-8080` is a link to the container that has the port on every address, or a directory of such links, one per
//! address; those of `0.0.0.0` and `::` stand for all of their family. A name is either the one or the other, so the
//! kernel keeps the two kinds of claims apart without a lock.
//! The files are gone at boot, as is the firewall.

mod listeners;

use self::listeners::nobody_listens;
use crate::port::{HostPort, Protocol, Wish, address_of, meet};
use fault::{Explain, Fault, Kind, Result};
use record::Port;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use store::Store;

/// docker's range for ports nobody chose, the kernel's for outgoing connections.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// The claims of all containers.
pub struct Claims<'a> {
    store: &'a Store,
    dir: PathBuf,
}

/// What a claim of one port came to.
enum Outcome {
    Made,
    /// This container has had it.
    Kept,
    HeldBy(String),
}

impl<'a> Claims<'a> {
    pub fn new(store: &'a Store) -> Claims<'a> {
        Claims { store, dir: store.run().join("ports") }
    }

    /// Claims ports for a container and makes sure that no program of the host listens there. `present` are those that
    /// lead elsewhere in the same container.
    ///
    /// Fails with a conflict that names the holder; then nothing new is claimed.
    pub fn take(&self, id: &str, wish: &Wish, present: &[Port]) -> Result<Port> {
        self.store.make_dir(&self.dir)?;
        choose(id, wish, present, |first| self.take_at(id, wish, first))
    }

    /// The ports [`Claims::take`] would claim now.
    pub fn preview(&self, id: &str, wish: &Wish, present: &[Port]) -> Result<Port> {
        choose(id, wish, present, |first| self.look_at(id, wish, first))
    }

    /// Whether [`Claims::take_at`] would succeed.
    fn look_at(&self, id: &str, wish: &Wish, first: u16) -> Result<()> {
        for port in first..=last_of(wish, first)? {
            let holders = holders(&self.dir.join(format!("{}-{port}", wish.protocol.name())));
            let has_it = |(address, holder): &(_, String)| holder == id && *address == wish.address;
            let mut others = in_the_way(holders, wish).filter(|holder| !has_it(holder));
            if let Some((_, holder)) =
                others.find(|(_, holder)| holder == id || self.store.is_looked_after(holder))
            {
                return Err(held_by(self.store, &holder, port));
            }
            nobody_listens(self.store, wish, port)?;
        }
        Ok(())
    }

    /// `wish.count` ports from `first` on, all or none.
    fn take_at(&self, id: &str, wish: &Wish, first: u16) -> Result<()> {
        let mut made = Vec::new();
        for port in first..=last_of(wish, first)? {
            let outcome = self.take_one(id, wish, port).and_then(|outcome| match outcome {
                Outcome::Kept => Ok(()),
                Outcome::HeldBy(holder) => Err(held_by(self.store, &holder, port)),
                Outcome::Made => {
                    made.push(port);
                    nobody_listens(self.store, wish, port)
                }
            });
            if let Err(fault) = outcome {
                for port in made {
                    self.drop_one(id, wish.protocol.name(), wish.address, port);
                }
                return Err(fault);
            }
        }
        Ok(())
    }

    fn take_one(&self, id: &str, wish: &Wish, port: u16) -> Result<Outcome> {
        let whole = self.dir.join(format!("{}-{port}", wish.protocol.name()));
        let what = || format!("claim port {port}");
        // Each round either claims, finds a living holder, or removes a dead one.
        for _ in 0..8 {
            match std::os::unix::fs::symlink(id, link_for(&whole, wish.address)) {
                Ok(()) if wish.address.is_none() => return Ok(Outcome::Made),
                Ok(()) => {
                    // One address and all of its family can be claimed beside each other: both look, and at least
                    // the second of two sees the other.
                    let beside = holders(&whole).into_iter().filter(|(at, _)| *at != wish.address).collect();
                    let Some(holder) = self.clear(id, wish, &whole, beside)? else {
                        return Ok(Outcome::Made);
                    };
                    remove_link(&whole, wish.address);
                    return Ok(Outcome::HeldBy(holder));
                }
                // No directory for the addresses of this port yet, or a link in its place, which leads nowhere.
                Err(error) if error.kind() == ErrorKind::NotFound => match std::fs::create_dir(&whole) {
                    Ok(()) => continue,
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error).explain(what),
                },
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).explain(what),
            }
            let holders = holders(&whole);
            if holders.iter().any(|(address, holder)| holder == id && *address == wish.address) {
                return Ok(Outcome::Kept);
            }
            if let Some(holder) = self.clear(id, wish, &whole, holders)? {
                return Ok(Outcome::HeldBy(holder));
            }
            if wish.address.is_none() {
                // An empty directory is nobody's.
                let _ = std::fs::remove_dir(&whole);
            }
        }
        Err(Fault::retryable(format!("port {port} is being claimed by others")))
    }

    /// Removes the claims of the dead that are in the way; the first living holder of one.
    fn clear(
        &self,
        id: &str,
        wish: &Wish,
        whole: &Path,
        holders: Vec<(Option<IpAddr>, String)>,
    ) -> Result<Option<String>> {
        for (address, holder) in in_the_way(holders, wish) {
            if holder == id || self.store.is_looked_after(&holder) {
                return Ok(Some(holder));
            }
            let _lock = self.lock()?;
            // Again under the lock: somebody else may have removed it and claimed the port since.
            if holder_of(&link_for(whole, address)) == Some(holder) {
                remove_link(whole, address);
            }
        }
        Ok(None)
    }

    /// Held while claims of others are judged and removed.
    pub fn lock(&self) -> Result<File> {
        self.store.make_dir(&self.dir)?;
        let dir = File::open(&self.dir).explain(|| format!("open {}", self.dir.display()))?;
        flock(&dir, FlockOperation::LockExclusive).explain(|| format!("lock {}", self.dir.display()))?;
        Ok(dir)
    }

    /// Whether the container still has this port, the first standing for a whole range.
    pub fn has(&self, id: &str, port: &Port) -> bool {
        let Some((whole, address)) = self.place(port) else { return false };
        holder_of(&link_for(&whole, address)).as_deref() == Some(id)
    }

    /// Gives ports back that this container has.
    pub fn release(&self, id: &str, port: &Port) {
        let Some((_, address)) = self.place(port) else { return };
        let Some(first) = port.host else { return };
        for port_number in first..=first.saturating_add(port.count.unwrap_or(1).max(1) - 1) {
            self.drop_one(id, &port.protocol, address, port_number);
        }
    }

    /// All claims: protocol and port, address, holder. For net-prune.
    pub fn all(&self) -> Vec<(String, Option<IpAddr>, String)> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .flat_map(|name| {
                let of_port = holders(&self.dir.join(&name));
                of_port.into_iter().map(move |(address, holder)| (name.clone(), address, holder))
            })
            .collect()
    }

    /// Directories left empty by a claim that was cut short. One that is being filled is made again.
    pub fn remove_empty(&self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }

    /// Removes one claim if `holder` still has it, and a directory left empty.
    pub fn remove(&self, name: &str, address: Option<IpAddr>, holder: &str) {
        let whole = self.dir.join(name);
        if holder_of(&link_for(&whole, address)).as_deref() == Some(holder) {
            remove_link(&whole, address);
        }
    }

    fn drop_one(&self, id: &str, protocol: &str, address: Option<IpAddr>, port: u16) {
        self.remove(&format!("{protocol}-{port}"), address, id);
    }

    /// `None` for what is no published port: records may say anything.
    fn place(&self, port: &Port) -> Option<(PathBuf, Option<IpAddr>)> {
        let protocol = Protocol::parse(&port.protocol).ok()?;
        let address = address_of(port).ok()?;
        Some((self.dir.join(format!("{}-{}", protocol.name(), port.host?)), address))
    }
}

/// The first of the wish's ports that `works`; the error is that of the last one tried.
fn choose(id: &str, wish: &Wish, present: &[Port], works: impl Fn(u16) -> Result<()>) -> Result<Port> {
    let works = |first| match present.iter().find(|port| wish.meets(first, port)) {
        None => works(first),
        Some(port) => {
            let inside = port.container;
            Err(Fault::conflict(format!("{first} leads to port {inside} of this container already")))
        }
    };
    let chosen = match wish.host {
        HostPort::At(first) => works(first).map(|()| first),
        HostPort::Within(first, last) => first_free(first..=last, works),
        HostPort::Any => {
            let room = EPHEMERAL.end() - EPHEMERAL.start() + 1;
            // Neighbouring starts for neighbouring containers would make them meet at every step.
            let start = EPHEMERAL.start() + (seed(id, wish.container) % u32::from(room)) as u16;
            first_free((start..=*EPHEMERAL.end()).chain(*EPHEMERAL.start()..start), works)
        }
    };
    chosen.map(|first| wish.at(first)).map_err(|fault| fault.on(format!("port {wish}")))
}

fn first_free(candidates: impl Iterator<Item = u16>, works: impl Fn(u16) -> Result<()>) -> Result<u16> {
    let mut last_fault = None;
    for first in candidates {
        match works(first) {
            Ok(()) => return Ok(first),
            Err(fault) if fault.kind() == Kind::Conflict => last_fault = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    Err(last_fault.unwrap_or_else(|| Fault::conflict("no port of the host is free")))
}

fn last_of(wish: &Wish, first: u16) -> Result<u16> {
    first.checked_add(wish.count - 1).ok_or_else(|| Fault::conflict("the range passes 65535"))
}

/// Of those who hold a port: the ones that keep it from being claimed as wished.
fn in_the_way(
    holders: Vec<(Option<IpAddr>, String)>,
    wish: &Wish,
) -> impl Iterator<Item = (Option<IpAddr>, String)> {
    let wished = wish.address;
    holders.into_iter().filter(move |(at, _)| meet(*at, wished))
}

fn link_for(whole: &Path, address: Option<IpAddr>) -> PathBuf {
    address.map_or_else(|| whole.to_owned(), |address| whole.join(address.to_string()))
}

fn remove_link(whole: &Path, address: Option<IpAddr>) {
    let _ = std::fs::remove_file(link_for(whole, address));
    if address.is_some() {
        let _ = std::fs::remove_dir(whole);
    }
}

/// The container a link tells of. The link is the id alone and leads nowhere, so that no path goes through it.
fn holder_of(link: &Path) -> Option<String> {
    let target = std::fs::read_link(link).ok()?;
    Some(target.to_str()?.to_owned())
}

fn holders(whole: &Path) -> Vec<(Option<IpAddr>, String)> {
    if let Some(holder) = holder_of(whole) {
        return vec![(None, holder)];
    }
    let Ok(entries) = std::fs::read_dir(whole) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let address = entry.file_name().to_str()?.parse().ok()?;
            Some((Some(address), holder_of(&entry.path())?))
        })
        .collect()
}

fn held_by(store: &Store, holder: &str, port: u16) -> Fault {
    let name = store.container_dir(holder).load().ok().and_then(|record| record.container().ok()?);
    let name = name.map(|container| container.name).filter(|name| !name.is_empty());
    let short = holder.get(..12).unwrap_or(holder);
    let who = name.map_or_else(|| short.to_owned(), |name| format!("{name} ({short})"));
    Fault::conflict(format!("{port} is published by container {who}"))
        .hint("choose another port, or stop that container")
}

/// Spreads containers over the range; the same wish of the same container begins at the same port.
fn seed(id: &str, port: u16) -> u32 {
    let digits = id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    digits ^ u32::from(port).wrapping_mul(0x9e37_79b9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use store::Lock;

    struct Fixture(PathBuf, Store);

    impl Fixture {
        fn new(name: &str) -> Fixture {
            let dir = std::env::temp_dir().join(format!("network-claim-{name}-{}", std::process::id()));
            let store = Store::at(dir.join("root"), dir.join("run"));
            Fixture(dir, store)
        }

        /// A container somebody looks after as long as the lock is held.
        fn live(&self, digit: char) -> (String, Lock) {
            let id = digit.to_string().repeat(64);
            let run = self.1.container_dir(&id).run;
            std::fs::create_dir_all(&run).unwrap();
            (id, Lock::exclusive(&run.join("lock")).unwrap())
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn wish(text: &str) -> Wish {
        Wish::parse(text).unwrap()
    }

    #[test]
    fn every_address_and_one_address_exclude_each_other() {
        let fixture = Fixture::new("exclude");
        let claims = Claims::new(&fixture.1);
        let ((a, _la), (b, _lb)) = (fixture.live('a'), fixture.live('b'));
        let local = claims.take(&a, &wish("127.0.0.1:41080:80"), &[]).unwrap();
        assert_eq!(claims.take(&b, &wish("41080:80"), &[]).unwrap_err().kind(), Kind::Conflict);
        claims.take(&b, &wish("127.0.0.2:41080:80"), &[]).unwrap();
        claims.take(&b, &wish("127.0.0.1:41080:80/udp"), &[]).unwrap();
        claims.release(&b, &local);
        assert!(claims.has(&a, &local));
        claims.release(&a, &local);
        claims.release(&b, &wish("127.0.0.2:41080:80").at(41080));
        let all = claims.take(&b, &wish("41080:80"), &[]).unwrap();
        let fault = claims.take(&a, &wish("127.0.0.1:41080:80"), &[]).unwrap_err();
        assert!(fault.to_string().contains("bbbbbbbbbbbb"), "{fault}");
        // The same again is the same claim.
        claims.take(&b, &wish("41080:80"), &[]).unwrap();
        claims.release(&b, &all);
        assert_eq!(claims.all().len(), 1);
    }

    #[test]
    fn families_are_apart_and_each_has_all_of_its_addresses() {
        let fixture = Fixture::new("families");
        let claims = Claims::new(&fixture.1);
        let ((a, _la), (b, _lb)) = (fixture.live('a'), fixture.live('b'));
        let conflict =
            |id: &str, text: &str| claims.take(id, &wish(text), &[]).unwrap_err().kind() == Kind::Conflict;
        let four = claims.take(&a, &wish("0.0.0.0:41400:80/udp"), &[]).unwrap();
        let six = claims.take(&b, &wish("[::]:41400:80/udp"), &[]).unwrap();
        assert!(claims.has(&a, &four) && claims.has(&b, &six) && !claims.has(&a, &six));
        assert!(conflict(&b, "127.0.0.1:41400:80/udp") && conflict(&a, "41400:80/udp"));
        assert_eq!(claims.all().len(), 2);
        claims.release(&a, &four);
        claims.take(&b, &wish("127.0.0.1:41400:80/udp"), &[]).unwrap();
        assert!(conflict(&a, "0.0.0.0:41400:80/udp"));
        claims.take(&a, &wish("127.0.0.2:41400:80/udp"), &[]).unwrap();
        claims.take(&a, &wish("41400:80/sctp"), &[]).unwrap();
        assert_eq!(claims.all().len(), 4);
    }

    #[test]
    fn a_dead_holder_of_a_family_gives_way() {
        let fixture = Fixture::new("family");
        let claims = Claims::new(&fixture.1);
        let ((a, la), (b, _lb)) = (fixture.live('a'), fixture.live('b'));
        claims.take(&a, &wish("0.0.0.0:41410:80"), &[]).unwrap();
        drop(la);
        claims.take(&b, &wish("127.0.0.1:41410:80"), &[]).unwrap();
        assert_eq!(claims.all().len(), 1);
    }

    #[test]
    fn the_dead_give_way_and_a_range_is_all_or_nothing() {
        let fixture = Fixture::new("dead");
        let claims = Claims::new(&fixture.1);
        let ((a, la), (b, _lb)) = (fixture.live('a'), fixture.live('b'));
        claims.take(&a, &wish("41105:80"), &[]).unwrap();
        claims.take(&a, &wish("127.0.0.1:41106:80"), &[]).unwrap();
        assert_eq!(
            claims.take(&b, &wish("41100-41109:41100-41109"), &[]).unwrap_err().kind(),
            Kind::Conflict
        );
        assert_eq!(claims.all().len(), 2);
        drop(la);
        claims.take(&b, &wish("41100-41109:41100-41109"), &[]).unwrap();
        assert_eq!(
            claims.all().iter().filter(|(_, address, holder)| address.is_none() && *holder == b).count(),
            10
        );
    }

    #[test]
    fn a_port_somebody_listens_on_is_refused_by_name_and_passed_over_by_choice() {
        let fixture = Fixture::new("listen");
        let claims = Claims::new(&fixture.1);
        let (a, _la) = fixture.live('a');
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = claims.take(&a, &wish(&format!("{port}:80")), &[]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Conflict);
        assert!(fault.to_string().contains(&std::process::id().to_string()), "{fault}");
        if port < 65000 {
            let chosen = claims.take(&a, &wish(&format!("{port}-{}:80", port + 20)), &[]).unwrap();
            assert_ne!(chosen.host, Some(port));
        }
        let chosen = claims.take(&a, &wish("80-89"), &[]).unwrap();
        assert!(EPHEMERAL.contains(&chosen.host.unwrap()));
        assert_eq!(claims.take(&a, &wish("192.0.2.1:41200:80"), &[]).unwrap_err().kind(), Kind::Input);
    }

    #[test]
    fn a_port_leads_to_one_place() {
        let fixture = Fixture::new("twice");
        let claims = Claims::new(&fixture.1);
        let (a, _la) = fixture.live('a');
        let range = |container: u16| wish(&format!("41300-41309:{container}"));
        let first = claims.take(&a, &range(80), &[]).unwrap();
        let present = [first.clone()];
        assert_eq!(claims.preview(&a, &range(81), &present).unwrap(), range(81).at(41301));
        assert_eq!(claims.all().len(), 1);
        assert_eq!(claims.take(&a, &range(81), &present).unwrap(), range(81).at(41301));
        let fault = claims.take(&a, &wish("41300:82"), &present).unwrap_err();
        assert_eq!(fault.kind(), Kind::Conflict);
        claims.take(&a, &wish("41300:82/udp"), &present).unwrap();
        // A range that would run into it.
        let across = wish("41295-41304:90-99");
        assert_eq!(claims.take(&a, &across, &present).unwrap_err().kind(), Kind::Conflict);
        assert!(claims.has(&a, &first));
    }
}
