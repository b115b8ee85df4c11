//! DNS messages: what containers ask, and what name servers answer.
//!
//! Input: how long the query is, two bytes, the first bit telling that it came over TCP; the query; what may be an answer to it.

use super::scratch::Scratch;
use net_dns::message::{self, Responder, Transport, Verdict};
use net_dns::zone::Zone;
use network::Definition;
use std::net::IpAddr;
use std::sync::OnceLock;
use store::{Lease, Store};

static ZONE: OnceLock<Zone> = OnceLock::new();

const NETWORK: &str = r#"{"name":"shop","driver":"bridge","device":"staves1","dns":{"enabled":true},
    "subnets":[{"subnet":"10.90.0.0/16"},{"subnet":"fd00:90::/64"}]}"#;

/// `web` with an address of each family, and `many` with more than fit a packet.
fn zone() -> Zone {
    let scratch = Scratch::new("dns");
    let store = Store::at(scratch.path().join("root"), scratch.path().join("run"));
    let dir = store.network_dir("shop");
    std::fs::create_dir_all(&dir).expect("make directories");
    std::fs::write(dir.join("network.json"), NETWORK).expect("write a file");
    let mut zone = Zone::new(&Definition::load(&store, "shop").expect("a good definition"));
    let lease = |name: &str| Lease { names: vec![name.into()], ..Lease::default() };
    zone.set(IpAddr::from([10, 90, 0, 2]), Some(&lease("web")));
    zone.set(IpAddr::from([0xfd00, 0x90, 0, 0, 0, 0, 0, 2]), Some(&lease("web")));
    for last in 3..100 {
        zone.set(IpAddr::from([10, 90, 0, last]), Some(&lease("many")));
    }
    zone
}

pub fn check(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<2>() else { return };
    let tcp = head[0] & 0x80 != 0;
    let length = usize::from(u16::from_be_bytes(*head) & 0x7fff).min(rest.len());
    let (query, response) = rest.split_at(length);
    let mut reply = Vec::new();
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    match Responder::default().respond(ZONE.get_or_init(zone), query, transport, &mut reply) {
        Verdict::Drop => {}
        Verdict::Reply => {
            assert_eq!(message::id(&reply), message::id(query));
            assert!(reply.len() >= 12 && reply[2] & 0x80 != 0, "{reply:?}");
            assert!(tcp || reply.len() <= 1232, "{} bytes", reply.len());
        }
        Verdict::Forward { question_end } => {
            assert!((17..=query.len()).contains(&question_end));
            if message::answers(response, query, question_end, message::id(query)) {
                assert!(response.len() >= 12 && response[2] & 0x80 != 0);
            }
            // The very question, marked as an answer, is one.
            let mut echo = query[..question_end].to_vec();
            echo[2] |= 0x80;
            assert!(message::answers(&echo, query, question_end, message::id(query)));
        }
    }
}
