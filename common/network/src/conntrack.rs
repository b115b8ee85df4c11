//! Connection tracking: flows the kernel remembers from before a port was published (linux/netfilter/nfnetlink_conntrack.h).

use crate::netlink::{ACK, Attributes, DUMP, Messages, REQUEST, Socket, attribute};
use crate::port::{Protocol, numbers};
use fault::{Explain, Result};
use record::Port;
use rustix::io::Errno;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const NESTED: u16 = 0x8000;
/// Of both families, as a question.
const ANY_FAMILY: u8 = 0;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// Makes the kernel forget UDP and SCTP flows to published ports: a client that keeps sending, or asking for an
/// association, would keep going where it went before, past the new rule. TCP flows end by themselves.
pub fn forget(ports: &[Port]) -> Result<()> {
    let lasting: Vec<&Port> = ports.iter().filter(|port| port.protocol != Protocol::Tcp.name()).collect();
    if lasting.is_empty() {
        return Ok(());
    }
    let what = || "forget earlier flows to the ports".into();
    let socket = Socket::netfilter()?;
    let mut all = Messages::new();
    all.push(GET, REQUEST | DUMP, &[ANY_FAMILY, 0, 0, 0], &Attributes::new());
    for flow in socket.ask(&all).explain(what)? {
        let Some(tuple) = attribute(flow.body.get(4..).unwrap_or_default(), TUPLE_ORIGINAL) else { continue };
        if !lasting.iter().any(|port| leads_to(tuple, port)) {
            continue;
        }
        let family = flow.body.first().copied().unwrap_or(ANY_FAMILY);
        let mut one = Messages::new();
        one.push(
            DELETE,
            REQUEST | ACK,
            &[family, 0, 0, 0],
            &Attributes::new().with(TUPLE_ORIGINAL | NESTED, tuple),
        );
        match socket.request(&one) {
            // Gone by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            outcome => outcome.explain(what)?,
        }
    }
    Ok(())
}

fn leads_to(tuple: &[u8], port: &Port) -> bool {
    let Some(protocol) = attribute(tuple, TUPLE_PROTOCOL) else { return false };
    let number = attribute(protocol, PROTOCOL_NUMBER).and_then(|value| value.first());
    let to =
        attribute(protocol, DESTINATION_PORT).and_then(|value| value.try_into().ok()).map(u16::from_be_bytes);
    let meant = Protocol::parse(&port.protocol).ok().map(Protocol::number);
    meant.is_some() && number.copied() == meant && to.is_some_and(|to| numbers(port).contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flows_to_the_port_are_meant() {
        let tuple = |number: u8, port: u16| {
            let protocol = Attributes::new()
                .with(PROTOCOL_NUMBER, &[number])
                .with(DESTINATION_PORT, &port.to_be_bytes());
            let mut messages = Messages::new();
            messages.push(0, 0, &[], &Attributes::new().with_nested(TUPLE_PROTOCOL, &protocol));
            messages.body_for_tests()
        };
        let port = Port { host: Some(53), count: Some(2), protocol: "udp".into(), ..Port::default() };
        assert!(leads_to(&tuple(17, 53), &port) && leads_to(&tuple(17, 54), &port));
        let other = Port { protocol: "sctp".into(), ..port.clone() };
        assert!(leads_to(&tuple(132, 53), &other) && !leads_to(&tuple(17, 53), &other));
        assert!(!leads_to(&tuple(17, 55), &port) && !leads_to(&tuple(6, 53), &port) && !leads_to(&[], &port));
    }
}
