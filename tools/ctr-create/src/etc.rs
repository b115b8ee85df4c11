//! The container's `hosts` and `resolv.conf`, before a network adds what it knows.

use cli::Result;
use oci::wishes::{HostAddress, NetworkMode, Resolver, names};
use record::Config;
use std::path::Path;
use store::atomic;

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// What is wished for.
#[derive(Debug, Default)]
pub struct Etc {
    pub hosts: Vec<(Vec<String>, HostAddress)>,
    pub resolver: Resolver,
    pub network: NetworkMode,
}

impl Etc {
    pub fn hosts(&self) -> String {
        let base = match self.network {
            NetworkMode::Host => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            _ => LOCAL_HOSTS.to_owned(),
        };
        self.own_lines().iter().fold(base, |text, line| text + line + "\n")
    }

    pub fn resolv_conf(&self) -> String {
        self.resolver.apply(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// On the host's own network the host is at hand; elsewhere net-attach knows where it is.
    fn own_lines(&self) -> Vec<String> {
        let mut lines = names::host_lines(&self.hosts);
        let of_gateway = names::gateway_names(&self.hosts);
        if self.network == NetworkMode::Host && !of_gateway.is_empty() {
            lines.push(format!("127.0.0.1\t{}", of_gateway.join(" ")));
        }
        lines
    }

    /// The files of a container that was changed. The lines its networks put into `hosts` stay.
    pub fn rewrite(&self, old: &Config, bundle: &Path) -> Result<()> {
        let old = oci::wishes::Wishes::parse(old).ok();
        let old =
            old.map(|wishes| Etc { hosts: wishes.hosts, resolver: wishes.resolver, network: wishes.network });
        let Some(old) = old else { return Ok(()) };
        if old.hosts != self.hosts {
            let before = std::fs::read_to_string(bundle.join("hosts")).unwrap_or_default();
            let gone = old.own_lines();
            let kept = before.lines().filter(|line| !gone.iter().any(|own| own == line));
            let text = kept
                .map(str::to_owned)
                .chain(self.own_lines())
                .fold(String::new(), |text, line| text + &line + "\n");
            atomic::write(&bundle.join("hosts"), text.as_bytes(), 0o644)?;
        }
        if old.resolver != self.resolver {
            atomic::write(&bundle.join("resolv.conf"), self.resolv_conf().as_bytes(), 0o644)?;
        }
        Ok(())
    }
}
