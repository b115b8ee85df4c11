//! Proxies from the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, each in lower case too, with the
//! meanings Go gives them (golang.org/x/net/http/httpproxy), which docker's and podman's users know.
//!
//! Connections in TLS go through by `CONNECT`, plain requests are the proxy's own to forward (`forward.rs`).

use crate::endpoint::is_this_machine;
use crate::transport::is_https;
use fault::{Fault, Result};
use std::net::IpAddr;
use ureq::Proxy;
use ureq::http::Uri;

/// Read from the environment once.
#[derive(Default)]
pub(crate) struct Proxies {
    https: Option<(&'static str, String)>,
    http: Option<(&'static str, String)>,
    exceptions: Vec<Exception>,
}

/// What `NO_PROXY` lists.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpAddr, u8),
    /// A host and all below it; the flag: only what is below.
    Domain {
        name: String,
        only_below: bool,
        port: Option<u16>,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
}

// Never derived: an address may hold a password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies").field("exceptions", &self.exceptions).finish_non_exhaustive()
    }
}

impl Proxies {
    pub(crate) fn from_env() -> Proxies {
        Proxies::new(&|name| std::env::var(name).ok())
    }

    fn new(variable: &dyn Fn(&str) -> Option<String>) -> Proxies {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                variable(name).filter(|text| !text.trim().is_empty()).map(|text| (*name, text))
            })
        };
        let exceptions = first(&["NO_PROXY", "no_proxy"]).map(|(_, text)| text).unwrap_or_default();
        Proxies {
            https: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http: first(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            exceptions: exceptions.split([',', ' ']).filter_map(|text| exception(text.trim())).collect(),
        }
    }

    /// The proxy on the way to an address.
    ///
    /// # Errors
    /// [`fault::Kind::Usage`] for a variable that names no proxy this can use. Its value may hold a password and is not told.
    pub(crate) fn of(&self, url: &str) -> Result<Option<Proxy>> {
        let configured = if is_https(url) { &self.https } else { &self.http };
        let Some((variable, text)) = configured else { return Ok(None) };
        if self.is_exception(url) {
            return Ok(None);
        }
        let bad = || {
            Fault::usage(format!("{variable} is not the address of a proxy"))
                .hint("http://[USER:PASSWORD@]HOST:PORT, or https://…; SOCKS proxies are not supported")
        };
        let whole =
            if text.contains("://") { text.trim().to_owned() } else { format!("http://{}", text.trim()) };
        if !whole.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http")) {
            return Err(bad());
        }
        Proxy::new(&whole).map(Some).map_err(|_| bad())
    }

    fn is_exception(&self, url: &str) -> bool {
        let Ok(uri) = url.parse::<Uri>() else { return true };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if is_https(url) { 443 } else { 80 });
        let address: Option<IpAddr> = host.parse().ok();
        if is_this_machine(&host) || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.exceptions.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Network(network, bits) => {
                address.is_some_and(|address| is_in(address, *network, *bits))
            }
            Exception::Address { address: other, port: wanted } => {
                address == Some(*other) && wanted.is_none_or(|wanted| wanted == port)
            }
            Exception::Domain { name, only_below, port: wanted } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|before| before.ends_with('.'));
                (below || (!only_below && host == *name)) && wanted.is_none_or(|wanted| wanted == port)
            }
        })
    }
}

fn exception(text: &str) -> Option<Exception> {
    let text = text.to_ascii_lowercase();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Exception::All);
    }
    if let Some((network, bits)) = text.split_once('/') {
        let (network, bits) = (network.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        return (bits <= if network.is_ipv4() { 32 } else { 128 })
            .then_some(Exception::Network(network, bits));
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return Some(Exception::Address { address, port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text.as_str(), None),
    };
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(Exception::Address { address, port });
    }
    let only_below = host.starts_with('.') || host.starts_with("*.");
    let name = host.trim_start_matches('*').trim_start_matches('.').to_owned();
    (!name.is_empty()).then_some(Exception::Domain { name, only_below, port })
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let shift = 32 - u32::from(bits);
            u32::from(address).checked_shr(shift) == u32::from(network).checked_shr(shift)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let shift = 128 - u32::from(bits);
            u128::from(address).checked_shr(shift) == u128::from(network).checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &'static [(&'static str, &'static str)]) -> Proxies {
        Proxies::new(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_scheme_chooses_the_variable() {
        let set =
            proxies(&[("https_proxy", "http://u:p%40@p.example:3128"), ("ALL_PROXY", "q.example:8080")]);
        let of = |url: &str| set.of(url).unwrap().map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
        assert_eq!(of("https://r.example/v2/").as_deref(), Some("p.example:3128"));
        assert_eq!(set.of("https://r.example").unwrap().unwrap().password(), Some("p@"));
        assert_eq!(of("http://r.example:5000/v2/").as_deref(), Some("q.example:8080"));
        for near in ["http://localhost:5000/", "https://127.9.9.9/", "http://[::1]:5000/v2/"] {
            assert_eq!(of(near), None, "{near}");
        }
        let bad = proxies(&[("HTTPS_PROXY", "socks5://u:secret@p.example")]);
        let fault = bad.of("https://r.example").unwrap_err();
        assert_eq!(fault.kind(), fault::Kind::Usage);
        assert!(
            fault.to_string().contains("HTTPS_PROXY") && !fault.to_string().contains("secret"),
            "{fault}"
        );
        assert!(bad.of("http://r.example").unwrap().is_none());
    }

    #[test]
    fn exceptions_are_those_of_go() {
        let set = proxies(&[
            ("ALL_PROXY", "p.example"),
            (
                "NO_PROXY",
                "a.example, .b.example,*.c.example,d.example:5000,10.0.0.0/8,192.0.2.1:80,2001:db8::/32,,/x,0.0.0.0/99",
            ),
        ]);
        let passes = |url: &str| set.of(url).unwrap().is_none();
        for direct in [
            "https://a.example/",
            "https://x.A.example/",
            "https://x.b.example/",
            "https://x.c.example/",
            "https://d.example:5000/",
            "http://10.1.2.3/",
            "http://192.0.2.1/",
            "https://[2001:db8:1::2]:5000/",
        ] {
            assert!(passes(direct), "{direct}");
        }
        for through in [
            "https://xa.example/",
            "https://b.example/",
            "https://c.example/",
            "https://d.example/",
            "http://11.0.0.1/",
            "https://192.0.2.1/",
            "https://[2001:db9::1]/",
            "https://10.example/",
        ] {
            assert!(!passes(through), "{through}");
        }
        assert!(proxies(&[("ALL_PROXY", "p"), ("no_proxy", "*")]).of("https://r.example").unwrap().is_none());
        let everything = proxies(&[("ALL_PROXY", "p"), ("no_proxy", "0.0.0.0/0")]);
        assert!(everything.of("https://8.8.8.8").unwrap().is_none());
    }
}
