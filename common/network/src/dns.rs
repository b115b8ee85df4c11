//! The resolver of a network: a `net-dns` process on the host, one for each network with names.
//!
//! It holds the lock of `$STAVES_RUN/networks/<name>/dns.lock` as long as it lives, and has written its process id there once it
//! answers. It ends by itself a moment after the last lease has gone, and when the network or its bridge has. Then it closes its
//! sockets, lets go of the lock, and looks for leases once more: whoever leases an address first and sees to the lock then
//! ([`ensure`]) finds it held by one that will see the lease, or starts another.

use crate::definition::Definition;
use crate::host::Host;
use fault::{Explain, Fault, Result};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use store::{Lock, Store};

/// How long a resolver that has just been started by somebody else may take to open its sockets.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest complaint of a resolver that is passed on.
const LONGEST_COMPLAINT: u64 = 4096;

/// Sees to it that the network's resolver runs and answers, if the network has one; cheap when it does.
///
/// To be called with the bridge up and after the leases were taken, before the container can ask; and by whoever comes by a
/// network that is in use, because a resolver that was killed is started again by nobody else.
///
/// # Errors
/// What the resolver says of why it cannot start: mostly that another program has port 53 of all addresses.
pub fn ensure(host: &Host<'_>, network: &Definition) -> Result<()> {
    if is_missing(host, network) { start(host.store, &network.name) } else { Ok(()) }
}

/// Whether the network has a resolver that does not run, or does not answer yet.
pub(crate) fn is_missing(host: &Host<'_>, network: &Definition) -> bool {
    let path = lock_path(host.store, &network.name);
    let with_names = network.dns.enabled && network.driver.has_device();
    with_names && !(Lock::is_held(&path) && is_ready(&path))
}

/// [`ensure`] for networks of these names in which somebody has an address. What fails is only told: it is not what the user
/// wanted. Networks that are not there are nobody's concern.
pub fn heal<'n>(host: &Host<'_>, networks: impl IntoIterator<Item = &'n str>) -> Vec<Fault> {
    let heal = |name| {
        let (network, missing) = Definition::preview(host.store, name).ok()?;
        if !network.dns.enabled
            || missing.is_some()
            || host.store.leases(name).ok()?.addresses().ok()?.is_empty()
        {
            return None;
        }
        ensure(host, &network).err()
    };
    networks.into_iter().filter_map(heal).collect()
}

/// The resolvers a container asks that has these addresses: those of its networks with names, as many as the C library reads
/// (MAXNS). Networks that lead nowhere come last, and of each kind IPv4 before IPv6.
pub fn resolvers<'n>(networks: impl Iterator<Item = &'n Definition>, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let with_names = networks.filter(|network| network.dns.enabled && network.driver.has_device());
    let mut resolvers: Vec<(bool, IpAddr)> = with_names
        .flat_map(|network| network.pools.iter().map(|pool| (network.internal, pool)))
        .filter(|(_, pool)| addresses.iter().any(|address| pool.subnet.contains(*address)))
        .map(|(internal, pool)| (internal, pool.gateway))
        .collect();
    resolvers.sort_by_key(|(internal, address)| (*internal, address.is_ipv6()));
    resolvers.into_iter().map(|(_, address)| address).take(3).collect()
}

/// Where the lock of a network's resolver is.
pub fn lock_path(store: &Store, network: &str) -> PathBuf {
    store.run().join("networks").join(network).join("dns.lock")
}

/// Becomes the network's only resolver; `None` if there is one. For `net-dns`.
pub fn lock(store: &Store, network: &str) -> Result<Option<Lock>> {
    let path = lock_path(store, network);
    if let Some(dir) = path.parent() {
        store.make_dir(dir)?;
    }
    loop {
        if let Some(lock) = Lock::try_exclusive(&path)? {
            // Of the one before, whose successor does not answer yet.
            lock.file().set_len(0).explain(|| format!("empty {}", path.display()))?;
            return Ok(Some(lock));
        }
        // Whoever looks whether it is held shares it for an instant.
        if Lock::is_held(&path) {
            return Ok(None);
        }
    }
}

/// Waits for a resolver that somebody else has started to answer, or to end.
pub fn wait_until_ready(store: &Store, network: &str) -> Result<()> {
    let path = lock_path(store, network);
    let since = Instant::now();
    while Lock::is_held(&path) && !is_ready(&path) {
        if since.elapsed() > PATIENCE {
            return Err(Fault::retryable("the network's resolver does not get ready").on(network));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn is_ready(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Starts it and waits until it answers. It is nobody's child once this process has ended.
fn start(store: &Store, network: &str) -> Result<()> {
    let program = sys::process::sibling("net-dns")?;
    let mut command = Command::new(&program);
    command.arg0("net-dns").args(["--foreground", "--ready-fd", "1", "--", network]);
    // A CNI configuration may have said where they are.
    command.env("STAVES_ROOT", store.root()).env("STAVES_RUN", store.run());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().explain(|| format!("start {}", program.display()))?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = BufReader::new(stdout.take(64)).read_line(&mut said);
    }
    if said == "ready\n" {
        return Ok(());
    }
    let mut complaint = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(LONGEST_COMPLAINT).read_to_end(&mut complaint);
    }
    let status = child.wait().explain(|| format!("wait for {}", program.display()))?;
    let complaint = String::from_utf8_lossy(&complaint).into_owned();
    let mut lines = complaint.lines();
    let why = match lines.next() {
        Some(line) => line.strip_prefix("net-dns: ").unwrap_or(line).to_owned(),
        None => status.to_string(),
    };
    let fault = Fault::failed("start the network's resolver").on(network).because(why);
    Err(match lines.next().and_then(|line| line.trim().strip_prefix("hint: ")) {
        Some(hint) => fault.hint(hint),
        None => fault,
    })
}
