//! Which address a registry's name stands for.

use std::net::IpAddr;

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
