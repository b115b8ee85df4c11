//! DNS messages (RFC 1035, section 4; RFC 6891): what is answered here, what is refused, what is passed on. Bytes in, bytes
//! out: nothing here touches a socket.

use crate::zone::{self, LONGEST_NAME, Zone};
use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::net::IpAddr;

/// Seconds. An address is given to another container as soon as it is free, and asking again costs microseconds: what caches
/// names (a JVM, systemd-resolved) shall not outlast a restart.
pub const TTL: u32 = 5;

/// Longest query that is read: a question, and what EDNS puts beside it.
pub const LONGEST_QUERY: usize = 4096;

/// Largest answer over UDP that no path breaks into pieces (DNS flag day 2020).
const LARGEST_UDP: u16 = 1232;

/// Without EDNS (RFC 1035, section 4.2.1).
const LARGEST_PLAIN_UDP: u16 = 512;

/// Addresses in one answer. With more of them under one name each gets its turn.
const MOST_ANSWERS: usize = 1024;

const HEADER: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What is to be done about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send what was written.
    Reply,
    /// Ask others. The question ends at this byte of the packet.
    Forward { question_end: usize },
    /// Nobody waits for an answer.
    Drop,
}

/// Answers from names, one packet after the other.
#[derive(Debug, Default)]
pub struct Responder {
    /// Of the name asked for, in lower case; kept for its memory.
    key: Vec<u8>,
    /// Which of several addresses comes first.
    turn: usize,
}

impl Responder {
    /// Looks at a packet; an answer is written to `reply`.
    pub fn respond(
        &mut self,
        zone: &Zone,
        packet: &[u8],
        transport: Transport,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        if packet.len() < HEADER || packet.len() > LONGEST_QUERY {
            return Verdict::Drop;
        }
        let mut decoder = BinDecoder::new(packet);
        let Ok(header) = Header::read(&mut decoder) else { return Verdict::Drop };
        let metadata = header.metadata;
        // To answer an answer is how two servers talk for ever.
        if metadata.message_type != MessageType::Query {
            return Verdict::Drop;
        }
        if metadata.op_code != OpCode::Query {
            return refuse(packet, ResponseCode::NotImp, reply);
        }
        let counts = header.counts;
        // A question, and beside it no more than EDNS and a signature.
        if counts.queries != 1 || counts.answers != 0 || counts.authorities != 0 || counts.additionals > 2 {
            return refuse(packet, ResponseCode::FormErr, reply);
        }
        let Ok(query) = Query::read(&mut decoder) else {
            return refuse(packet, ResponseCode::FormErr, reply);
        };
        let question_end = decoder.index();
        // A pointer instead of labels: there is nothing before the first name that it could point to.
        if question_end != HEADER + written_length(query.name()) + 4 {
            return refuse(packet, ResponseCode::FormErr, reply);
        }
        let records = Message::read_records(&mut decoder, counts.additionals.into(), true, OpCode::Query);
        let Ok((_, edns, _)) = records else { return refuse(packet, ResponseCode::FormErr, reply) };
        // They are answered by many messages, or change what is nobody's to change.
        if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
            return refuse(packet, ResponseCode::Refused, reply);
        }
        let found = if edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            Found::Nothing(ResponseCode::BADVERS)
        } else if query.query_class() != DNSClass::IN {
            return Verdict::Forward { question_end };
        } else {
            match self.look_up(zone, &query) {
                Some(found) => found,
                None => return Verdict::Forward { question_end },
            }
        };
        let mut message = Message::response(metadata.id, OpCode::Query);
        message.metadata.recursion_desired = metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = metadata.checking_disabled;
        message.metadata.authoritative = true;
        let name = query.name().clone();
        message.add_query(query);
        match found {
            Found::Nothing(code) => message.metadata.response_code = code,
            Found::Records(records) => {
                message.answers =
                    records.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)).collect();
            }
        }
        let largest = match (transport, &edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => LARGEST_PLAIN_UDP,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(LARGEST_PLAIN_UDP, LARGEST_UDP),
        };
        if let Some(asked) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST_UDP).set_dnssec_ok(asked.flags().dnssec_ok);
            message.set_edns(edns);
        }
        write(message, largest.into(), reply)
    }

    /// `None` for what is not ours to answer.
    fn look_up(&mut self, zone: &Zone, query: &Query) -> Option<Found> {
        if !zone::key(query.name(), &mut self.key) {
            return None;
        }
        if let Some(addresses) = zone.addresses(&self.key) {
            let (v4, v6) = match query.query_type() {
                RecordType::A => (true, false),
                RecordType::AAAA => (false, true),
                RecordType::ANY => (true, true),
                // The name is there, a record of this type is not.
                _ => (false, false),
            };
            let wanted: Vec<IpAddr> =
                addresses.iter().copied().filter(|ip| if ip.is_ipv4() { v4 } else { v6 }).collect();
            return Some(Found::Records(self.in_turn(&wanted)));
        }
        if !self.key.ends_with(b".arpa") {
            return None;
        }
        let asked = query.name().parse_arpa_name().ok()?;
        if !zone.holds(asked.network(), asked.prefix_len()) {
            return None;
        }
        if asked.prefix_len() < asked.max_prefix_len() {
            // Between our addresses and the root: it exists, and has nothing.
            return Some(Found::Records(Vec::new()));
        }
        Some(match zone.name_of(asked.addr()) {
            None => Found::Nothing(ResponseCode::NXDomain),
            Some(name) if query.query_type() == RecordType::PTR || query.query_type() == RecordType::ANY => {
                let name = Name::from_labels(name.trim_end_matches('.').split('.').map(str::as_bytes));
                Found::Records(name.ok().map(|name| RData::PTR(PTR(name))).into_iter().collect())
            }
            Some(_) => Found::Records(Vec::new()),
        })
    }

    /// All of them, another one first each time.
    fn in_turn(&mut self, addresses: &[IpAddr]) -> Vec<RData> {
        let start = if addresses.len() > 1 {
            self.turn = self.turn.wrapping_add(1);
            self.turn % addresses.len()
        } else {
            0
        };
        let (before, after) = addresses.split_at(start);
        let data = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => RData::A(A(*ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(*ip)),
        };
        after.iter().chain(before).take(MOST_ANSWERS).map(data).collect()
    }
}

enum Found {
    /// Perhaps none.
    Records(Vec<RData>),
    Nothing(ResponseCode),
}

/// As many answers as there is room for; TC tells that there are more.
fn write(mut message: Message, largest: usize, reply: &mut Vec<u8>) -> Verdict {
    loop {
        let Ok(bytes) = message.to_vec() else { return Verdict::Drop };
        if bytes.len() <= largest || message.answers.is_empty() {
            *reply = bytes;
            return Verdict::Reply;
        }
        // No record is smaller than an address with a pointer for its name.
        let surplus = (bytes.len() - largest).div_ceil(28).max(1);
        message.answers.truncate(message.answers.len().saturating_sub(surplus));
        message.metadata.truncation = true;
    }
}

/// An answer that is no more than a code, with the question if that can be read.
fn refuse(packet: &[u8], code: ResponseCode, reply: &mut Vec<u8>) -> Verdict {
    let mut decoder = BinDecoder::new(packet);
    let Ok(header) = Header::read(&mut decoder) else { return Verdict::Drop };
    let mut message = Message::error_msg(header.metadata.id, header.metadata.op_code, code);
    message.metadata.recursion_desired = header.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    if header.counts.queries > 0
        && let Ok(query) = Query::read(&mut decoder)
        && written_length(query.name()) <= LONGEST_NAME
    {
        message.add_query(query);
    }
    // With EDNS or without: a client that is refused has nothing to lose by it.
    match message.to_vec() {
        Ok(bytes) => {
            *reply = bytes;
            Verdict::Reply
        }
        Err(_) => Verdict::Drop,
    }
}

/// Bytes of a name that is written out.
fn written_length(name: &Name) -> usize {
    name.iter().map(|label| label.len() + 1).sum::<usize>() + 1
}

/// Nobody could be asked.
pub fn server_failure(query: &[u8], reply: &mut Vec<u8>) -> Verdict {
    refuse(query, ResponseCode::ServFail, reply)
}

/// There is too much to do, or nobody may be asked.
pub fn refused(query: &[u8], reply: &mut Vec<u8>) -> Verdict {
    refuse(query, ResponseCode::Refused, reply)
}

/// Whether a packet is an answer to this query, whose question ends at a byte that [`Verdict::Forward`] told: number, kind and
/// question are the same. An error may come without the question.
pub fn answers(response: &[u8], query: &[u8], question_end: usize, id: u16) -> bool {
    let Some(header) = response.get(..HEADER) else { return false };
    let Some(question) = query.get(HEADER..question_end) else { return false };
    let is_response = header[2] & 0x80 != 0 && header[2] & 0x78 == 0;
    if header[..2] != id.to_be_bytes() || !is_response {
        return false;
    }
    let count = u16::from_be_bytes([header[4], header[5]]);
    let Some(name_end) = question.len().checked_sub(4) else { return false };
    match response.get(HEADER..question_end) {
        Some(theirs) if count == 1 => {
            // Letters in another case are the same name (RFC 4343).
            theirs[..name_end].eq_ignore_ascii_case(&question[..name_end])
                && theirs[name_end..] == question[name_end..]
        }
        _ => count == 0 && code(response) != 0,
    }
}

/// SERVFAIL and REFUSED: another server may know better.
pub fn is_failure(response: &[u8]) -> bool {
    matches!(code(response), 2 | 5)
}

/// NXDOMAIN: nobody has this name or address.
pub fn is_unknown(reply: &[u8]) -> bool {
    code(reply) == 3
}

/// The response code without EDNS's upper half.
fn code(response: &[u8]) -> u8 {
    response.get(3).map_or(0, |byte| byte & 0x0f)
}

/// Gives a message another number.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(bytes) = message.get_mut(..2) {
        bytes.copy_from_slice(&id.to_be_bytes());
    }
}

pub fn id(message: &[u8]) -> u16 {
    message.get(..2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests;
