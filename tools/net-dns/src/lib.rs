//! The resolver of one network: answers for its containers' names, asks others for everything else.
//!
//! One small process with one thread for each network with names, on the bridge's addresses. What it knows it reads from the
//! network's leases, so that nobody has to tell it anything and nothing is lost when it is killed. It is started, and ends, by
//! the protocol in `network::dns`.
#![forbid(unsafe_code)]

mod connection;
mod forward;
mod framed;
pub mod message;
mod neighbours;
pub mod resolv;
mod server;
mod table;
mod watch;
pub mod zone;

use cli::{Common, Context, Explain, Fault, Result};
use network::{Definition, Host, dns};
use rustix::thread::{CapabilitySet, CapabilitySets};
use server::Server;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use store::Store;

/// Answer for the names of a network's containers (net-attach starts it; it is not for people)
///
/// Listens on port 53 of the bridge's addresses and ends by itself when nothing is attached to the network any more. Without a
/// flag it is started in the background, unless it runs.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-dns",
    version,
    after_help = "Examples:
  net-dns shop
  net-dns --foreground shop
  dig @10.90.0.1 web
One runs for each network with names:
  pgrep -a net-dns"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Name of the network
    pub network: String,

    /// Be the resolver, instead of starting it
    #[arg(long)]
    pub foreground: bool,

    /// Write a line to this descriptor when questions are answered, then leave terminal and standard streams
    #[arg(long, value_name = "N", requires = "foreground")]
    pub ready_fd: Option<i32>,
}

cli::tool!(Args, "net-dns", common);

pub fn run(args: &Args, _context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let name = args.network.as_str();
    if args.foreground {
        return serve(&store, name, args.ready_fd).map_err(|fault| fault.on(name));
    }
    let network = wanted(&store, name)?;
    dns::ensure(&Host::new(&store)?, &network)
}

/// The network's definition, if it has a resolver; `None` if it has none or is not there.
pub(crate) fn definition(store: &Store, name: &str) -> Result<Option<Definition>> {
    let network = match Definition::preview(store, name) {
        Ok((network, None)) => network,
        // The default network before it is made.
        Ok((_, Some(_))) => return Ok(None),
        Err(fault) if fault.kind() == fault::Kind::NotFound => return Ok(None),
        Err(fault) => return Err(fault),
    };
    Ok((network.dns.enabled && network.driver.has_device()).then_some(network))
}

fn wanted(store: &Store, name: &str) -> Result<Definition> {
    // What is not there is told as all tools tell it.
    let (network, _) = Definition::preview(store, name)?;
    if network.dns.enabled && network.driver.has_device() {
        return Ok(network);
    }
    Err(Fault::conflict("the network has no names")
        .on(name)
        .hint("net-create makes networks with names, unless it is told --no-dns"))
}

/// The resolver's whole life.
fn serve(store: &Store, name: &str, ready: Option<i32>) -> Result<()> {
    let mut ready = ready
        .map(|number| sys::descriptor::inherited(number).explain(|| format!("use descriptor {number}")))
        .transpose()?
        .map(File::from);
    let in_background = ready.is_some();
    if in_background {
        // Whoever waits for the end of a pipe that its starter was given is not to wait for it, too.
        let keep: Vec<_> = ready.iter().map(AsFd::as_fd).collect();
        sys::process::close_all_from(3, &keep).explain(|| "close what was inherited".into())?;
        // What is typed at a terminal is not for it.
        let _ = rustix::process::setsid();
        // Nor is a directory to be busy because of it.
        let _ = std::env::set_current_dir("/");
    }
    let mut network = wanted(store, name)?;
    forward::raise_limit()?;
    loop {
        let Some(lock) = dns::lock(store, name)? else {
            // Another one runs, or is about to.
            dns::wait_until_ready(store, name)?;
            return announce(&mut ready);
        };
        let mut server = Server::open(store, network)?;
        drop_privileges();
        let pid = rustix::process::getpid().as_raw_nonzero();
        lock.file()
            .write_all_at(format!("{pid}\n").as_bytes(), 0)
            .explain(|| "say that the resolver is ready".into())?;
        announce(&mut ready)?;
        if in_background {
            leave_streams();
        }
        sys::process::trim_heap();
        let ended = server.run();
        // Its sockets before the lock, so that whoever takes that can bind them.
        drop(server);
        drop(lock);
        ended?;
        // Who leased an address and saw the lock relies on it.
        match still_wanted(store, name)? {
            Some(again) => network = again,
            None => return Ok(()),
        }
        // Directories and devices that come and go are no reason to be busy.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn still_wanted(store: &Store, name: &str) -> Result<Option<Definition>> {
    let Some(network) = definition(store, name)? else { return Ok(None) };
    let in_use = resolv::index_of(&network.device).is_some() && !store.leases(name)?.addresses()?.is_empty();
    Ok(in_use.then_some(network))
}

fn announce(ready: &mut Option<File>) -> Result<()> {
    match ready.take() {
        Some(mut file) => match file.write_all(b"ready\n") {
            // Whoever started it does not wait any more.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(error).explain(|| "say that the resolver is ready".into())
            }
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

/// Nobody may wait for the end of a pipe it holds by accident.
fn leave_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for number in 0..3 {
            let _ = sys::process::duplicate_to(null.as_fd(), number);
        }
    }
}

/// It reads what containers send. Of root's privileges it needs none but to bind its port again; its files are its user's own.
fn drop_privileges() {
    let _ = rustix::thread::set_no_new_privs(true);
    let kept = CapabilitySet::NET_BIND_SERVICE;
    if let Ok(own) = rustix::thread::capabilities(None) {
        let sets = CapabilitySets {
            effective: own.effective & kept,
            permitted: own.permitted & kept,
            inheritable: CapabilitySet::empty(),
        };
        let _ = rustix::thread::set_capabilities(None, sets);
    }
}
