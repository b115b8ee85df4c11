//! Plain requests by way of a proxy, as curl and docker send them: to the proxy, with the whole address in the request line (RFC 9112,
//! section 3.2.2). ureq knows `CONNECT` alone, which many proxies allow to port 443 only.

use crate::auth::basic;
use fault::{Explain, Result};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, Error, Proxy, ProxyProtocol};

/// Whether plain requests are handed to it. One that is itself talked to in TLS gets `CONNECT` for them, too.
pub(crate) fn takes(proxy: &Proxy) -> bool {
    proxy.protocol() == ProxyProtocol::Http
}

/// An agent whose plain requests go to the proxy.
pub(crate) fn agent(config: Config, proxy: &Proxy) -> Result<Agent> {
    // Without name and password, which are no part of where it is.
    let place = format!("http://{}:{}/", proxy.host(), proxy.port());
    let place = place.parse().explain(|| format!("understand the proxy's address {place}"))?;
    let authorization =
        proxy.username().map(|user| basic(user, proxy.password().unwrap_or_default())).unwrap_or_default();
    let connector = ().chain(TcpConnector::default()).chain(Forward { authorization });
    Ok(Agent::with_parts(config, connector, ToProxy { place, names: DefaultResolver::default() }))
}

/// Every connection is one to the proxy.
#[derive(Debug)]
struct ToProxy {
    place: Uri,
    names: DefaultResolver,
}

impl Resolver for ToProxy {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, Error> {
        self.names.resolve(&self.place, config, timeout)
    }
}

struct Forward {
    /// Of the proxy; empty for none.
    authorization: String,
}

// Never derived: it may hold a password.
impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<Forwarded<In>>, Error> {
        let host = details.uri.host().unwrap_or_default();
        let port = details.uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let origin = format!("http://{host}{port}");
        let authorization = self.authorization.clone();
        Ok(chained.map(|inner| Forwarded { inner, origin, authorization, may_begin: true }))
    }
}

/// A connection to the proxy on which requests are for one host.
struct Forwarded<T> {
    inner: T,
    origin: String,
    authorization: String,
    /// Nothing was sent since the connection was made or something was received: what is sent next may be a request's head.
    may_begin: bool,
}

impl<T> std::fmt::Debug for Forwarded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarded").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<T: Transport> Transport for Forwarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> std::result::Result<(), Error> {
        let mut amount = amount;
        if std::mem::take(&mut self.may_begin) {
            let output = self.inner.buffers().output();
            let whole =
                output.get(..amount).and_then(|head| absolute(head, &self.origin, &self.authorization));
            if let Some(whole) = whole {
                amount = whole.len();
                let place = output.get_mut(..amount).ok_or_else(|| {
                    Error::Io(std::io::Error::other("the request is too long to be sent to a proxy"))
                })?;
                place.copy_from_slice(&whole);
            }
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> std::result::Result<bool, Error> {
        self.may_begin = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// A request's head with the origin in its first line, and what the proxy is to know of who asks; `None` for what is no head.
fn absolute(bytes: &[u8], origin: &str, authorization: &str) -> Option<Vec<u8>> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = bytes.split_at_checked(end + 2)?;
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let (method, target) = line.strip_suffix(" HTTP/1.1")?.split_once(' ')?;
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_method || !target.starts_with('/') || target.contains(' ') {
        return None;
    }
    let mut head = format!("{method} {origin}{target} HTTP/1.1\r\n");
    if !authorization.is_empty() {
        head.extend(["Proxy-Authorization: ", authorization, "\r\n"]);
    }
    Some([head.as_bytes(), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_the_whole_address() {
        let head = |bytes: &[u8], authorization| {
            absolute(bytes, "http://r.example:5000", authorization)
                .map(|bytes| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(
            head(b"GET /v2/?a=b HTTP/1.1\r\nHost: r.example:5000\r\n\r\n", "").unwrap(),
            "GET http://r.example:5000/v2/?a=b HTTP/1.1\r\nHost: r.example:5000\r\n\r\n"
        );
        assert_eq!(
            head(b"PUT /x HTTP/1.1\r\n\r\nbody", "Basic dTpw").unwrap(),
            "PUT http://r.example:5000/x HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\n\r\nbody"
        );
        for other in
            ["", "GET /x", "a body\r\n", "get /x HTTP/1.1\r\n", "GET x HTTP/1.1\r\n", "GET /x y HTTP/1.1\r\n"]
        {
            assert_eq!(head(other.as_bytes(), ""), None, "{other}");
        }
        assert_eq!(head(b"\xff\xfe /x HTTP/1.1\r\n", ""), None);
    }
}
