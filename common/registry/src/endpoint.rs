//! Where a repository is: which addresses a registry's name stands for, and which mirrors to ask first.

use crate::hosts_toml::{self, Host};
use crate::registries_conf::Location;
use crate::repository::Target;
use crate::transport::{Transport, authority};
use fault::Result;
use oci::Reference;
use std::net::IpAddr;
use ureq::http::Method;

/// A place to ask for one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The registry, by the name credentials are kept under.
    pub(crate) domain: String,
    /// The repository there.
    pub(crate) path: String,
    /// Addresses to try, best first: `https://host:port`.
    pub(crate) bases: Vec<String>,
    /// Between an address and a repository: `/v2`.
    pub(crate) prefix: String,
    /// After everything: nothing, or which registry a mirror of several is to be one of.
    pub(crate) query: String,
    /// Whether it has manifests by digest, and blobs.
    pub(crate) pull: bool,
    /// Whether it knows what tags stand for.
    pub(crate) resolve: bool,
}

impl Endpoint {
    /// What a request goes to, at one of the addresses: below the repository, or the registry if there is none.
    pub(crate) fn url(&self, base: &str, what: &str) -> String {
        let Endpoint { path, prefix, query, .. } = self;
        let slash = if path.is_empty() { "" } else { "/" };
        format!("{base}{prefix}/{path}{slash}{what}{query}")
    }

    /// The same for what a request is about.
    pub(crate) fn address(&self, base: &str, target: Target<'_>) -> String {
        match target {
            Target::Below(what) | Target::Anew(what) => self.url(base, what),
            Target::At(url) => url.to_owned(),
        }
    }

    /// Whether this is asked of a mirror; only reading what is named by digest or tag ever is.
    pub(crate) fn serves(&self, method: &Method, what: &str) -> bool {
        let is_get = *method == Method::GET;
        match what.split_once('/') {
            Some(("manifests", identifier)) if is_get || *method == Method::HEAD => {
                if identifier.contains(':') { self.pull } else { self.resolve }
            }
            Some(("blobs", digest)) if is_get => self.pull && digest.contains(':'),
            _ => false,
        }
    }
}

/// Where to ask for a repository: mirrors in their order, then the registry itself.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) mirrors: Vec<Endpoint>,
    pub(crate) own: Endpoint,
}

/// Reads what is configured for a repository, and tells the transport how to talk to the hosts.
pub(crate) fn places(transport: &Transport, reference: &Reference) -> Result<Places> {
    let locations = transport.registries()?.locations(reference)?;
    let mut mirrors: Vec<Endpoint> =
        locations.mirrors.into_iter().map(|location| at(transport, location, None)).collect();
    let domain = locations.own.domain.clone();
    let hosts = hosts_toml::load(&domain)?;
    for host in &hosts.hosts {
        let location = Location { insecure: host.skip_verify, ..locations.own.clone() };
        let mut endpoint = at(transport, location, Some(host));
        endpoint.query = format!("?ns={}", crate::transport::encode(&domain));
        if endpoint.pull || endpoint.resolve {
            mirrors.push(endpoint);
        }
    }
    let own = at(transport, locations.own, hosts.server.as_ref());
    Ok(Places { mirrors, own })
}

fn at(transport: &Transport, location: Location, host: Option<&Host>) -> Endpoint {
    let Location { domain, path, insecure } = location;
    let tls_verify = transport.options.tls_verify && !insecure && !host.is_some_and(|host| host.skip_verify);
    let usual = candidates(&domain, tls_verify);
    let (bases, domain) = match host.filter(|host| !host.base.is_empty()) {
        Some(host) if usual.contains(&host.base) => (vec![host.base.clone()], domain),
        // Another host, with credentials of its own.
        Some(host) => (vec![host.base.clone()], authority(&host.base)),
        None => (usual, domain),
    };
    for base in &bases {
        transport.know(&authority(base), host, insecure);
    }
    Endpoint {
        domain,
        path,
        bases,
        prefix: host.map_or_else(|| "/v2".to_owned(), |host| host.prefix.clone()),
        query: String::new(),
        pull: host.is_none_or(|host| host.pull),
        resolve: host.is_none_or(|host| host.resolve),
    }
}

/// A repository at the registry itself, for writing; the registry as a whole, for logging in and its catalog, if `path` is
/// empty.
pub(crate) fn itself(transport: &Transport, domain: &str, path: &str) -> Result<Endpoint> {
    let name = if path.is_empty() { domain.to_owned() } else { format!("{domain}/{path}") };
    let insecure = transport.registries()?.is_insecure(&name)?;
    let hosts = hosts_toml::load(domain)?;
    let location = Location { domain: domain.to_owned(), path: path.to_owned(), insecure };
    Ok(at(transport, location, hosts.server.as_ref()))
}

/// The addresses to try, best first.
pub(crate) fn candidates(domain: &str, tls_verify: bool) -> Vec<String> {
    let host = match domain {
        // The name images are known by is not the machine that serves them.
        oci::reference::DEFAULT_DOMAIN => "registry-1.docker.io",
        other => other,
    };
    let schemes: &[&str] = match (is_this_machine(domain), tls_verify) {
        // Plain first: nothing secret is sent unasked, and a server that wants TLS says so at once.
        (true, _) => &["http", "https"],
        (false, true) => &["https"],
        (false, false) => &["https", "http"],
    };
    schemes.iter().map(|scheme| format!("{scheme}://{host}")).collect()
}

/// Loopback by name or address: what is sent there does not leave the machine.
pub(crate) fn is_this_machine(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_plain() {
        assert_eq!(candidates("docker.io", true), ["https://registry-1.docker.io"]);
        assert_eq!(candidates("localhost:5000", true)[0], "http://localhost:5000");
        assert_eq!(candidates("example.org", false), ["https://example.org", "http://example.org"]);
        for domain in ["127.0.0.1:5000", "127.8.9.1", "[::1]:5000", "localhost"] {
            assert!(is_this_machine(domain), "{domain}");
        }
        for domain in
            ["localhost.example.org", "127.example.org", "10.0.0.1:5000", "[2001:db8::1]", "128.0.0.1"]
        {
            assert!(!is_this_machine(domain), "{domain}");
        }
    }
}
