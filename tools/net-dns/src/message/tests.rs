use super::*;
use crate::zone::tests::{ip, lease, network};
use proptest::prelude::*;

fn zone() -> Zone {
    let mut zone = Zone::new(&network());
    zone.set(ip("10.90.0.2"), Some(&lease(&["web", "4f1c00000000", "www.shop.example"])));
    zone.set(ip("fd00:90::2"), Some(&lease(&["web", "4f1c00000000"])));
    zone.set(ip("10.90.0.3"), Some(&lease(&["worker_1", "many"])));
    for last in 4..100 {
        zone.set(IpAddr::from([10, 90, 0, last]), Some(&lease(&["many"])));
    }
    zone
}

fn query(name: &str, kind: RecordType, edns: bool) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let labels = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    message.add_query(Query::query(Name::from_labels(labels).unwrap(), kind));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn ask(name: &str, kind: RecordType) -> Option<Message> {
    let mut reply = Vec::new();
    let packet = query(name, kind, false);
    match Responder::default().respond(&zone(), &packet, Transport::Tcp, &mut reply) {
        Verdict::Reply => Some(Message::from_vec(&reply).unwrap()),
        Verdict::Forward { question_end } => {
            assert_eq!(question_end, packet.len());
            None
        }
        Verdict::Drop => panic!("{name} was dropped"),
    }
}

fn found(name: &str, kind: RecordType) -> Vec<String> {
    let message = ask(name, kind).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert_eq!((message.metadata.id, message.metadata.recursion_desired), (77, true));
    let mut found: Vec<_> = message.answers.iter().map(|record| record.data.to_string()).collect();
    found.sort();
    found
}

#[test]
fn names_have_addresses() {
    assert_eq!(found("web", RecordType::A), ["10.90.0.2"]);
    assert_eq!(found("WeB.shOp", RecordType::AAAA), ["fd00:90::2"]);
    assert_eq!(found("web", RecordType::ANY).len(), 2);
    assert_eq!(found("www.shop.example", RecordType::A), ["10.90.0.2"]);
    assert_eq!(found("worker_1", RecordType::A), ["10.90.0.3"]);
    assert_eq!(found("host.containers.internal", RecordType::A), ["10.90.0.1"]);
    assert_eq!(found("host.docker.internal", RecordType::AAAA), ["fd00:90::1"]);
    // There, but not so.
    assert!(found("worker_1", RecordType::AAAA).is_empty());
    assert!(found("web", RecordType::MX).is_empty());
}

#[test]
fn addresses_have_names() {
    assert_eq!(found("2.0.90.10.in-addr.arpa", RecordType::PTR), ["web."]);
    let reverse = Name::from(ip("fd00:90::2")).to_ascii();
    assert_eq!(found(&reverse, RecordType::PTR), ["web."]);
    let nobody = ask("200.0.90.10.in-addr.arpa", RecordType::PTR).unwrap();
    assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain);
    assert!(found("0.90.10.in-addr.arpa", RecordType::SOA).is_empty());
    for others in ["1.1.1.1.in-addr.arpa", "90.10.in-addr.arpa", "x.in-addr.arpa", "arpa"] {
        assert!(ask(others, RecordType::PTR).is_none(), "{others}");
    }
}

#[test]
fn what_is_not_ours_is_passed_on() {
    for name in ["example.com", "unknown", "", "web.other", "x.web"] {
        assert!(ask(name, RecordType::A).is_none(), "{name}");
    }
}

#[test]
fn each_address_gets_its_turn() {
    let (zone, mut responder, mut reply) = (zone(), Responder::default(), Vec::new());
    let mut first = std::collections::HashSet::new();
    for _ in 0..97 {
        let packet = query("many", RecordType::A, false);
        responder.respond(&zone, &packet, Transport::Tcp, &mut reply);
        let message = Message::from_vec(&reply).unwrap();
        assert_eq!(message.answers.len(), 97);
        first.insert(message.answers[0].data.to_string());
    }
    assert_eq!(first.len(), 97);
}

#[test]
fn answers_fit_the_packet() {
    let (zone, mut responder, mut reply) = (zone(), Responder::default(), Vec::new());
    for (edns, largest, least) in [(false, 512, 25), (true, 1232, 70)] {
        let packet = query("many", RecordType::A, edns);
        assert_eq!(responder.respond(&zone, &packet, Transport::Udp, &mut reply), Verdict::Reply);
        let message = Message::from_vec(&reply).unwrap();
        assert!(reply.len() <= largest && message.metadata.truncation, "{}", reply.len());
        assert!(message.answers.len() >= least, "{}", message.answers.len());
        assert_eq!(message.edns.is_some(), edns);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (zone, mut reply) = (zone(), Vec::new());
    let mut code = |packet: &[u8]| {
        let verdict = Responder::default().respond(&zone, packet, Transport::Udp, &mut reply);
        (verdict == Verdict::Reply)
            .then(|| Message::from_vec(&reply).unwrap().metadata.response_code)
            .map(u16::from)
    };
    let good = query("web", RecordType::A, true);
    assert_eq!(code(&good), Some(ResponseCode::NoError.into()));
    let with = |index: usize, byte: u8| {
        let mut packet = good.clone();
        packet[index] = byte;
        packet
    };
    assert_eq!(code(&with(2, 0x80)), None, "an answer");
    assert_eq!(code(&with(2, 0x28)), Some(ResponseCode::NotImp.into()), "an update");
    assert_eq!(code(&with(5, 2)), Some(ResponseCode::FormErr.into()), "two questions");
    assert_eq!(code(&with(5, 0)), Some(ResponseCode::FormErr.into()), "none");
    assert_eq!(code(&with(7, 1)), Some(ResponseCode::FormErr.into()), "an answer along");
    assert_eq!(code(&with(12, 0xc0)), Some(ResponseCode::FormErr.into()), "a pointer");
    assert_eq!(code(&good[..11]), None);
    assert_eq!(code(&good[..16]), Some(ResponseCode::FormErr.into()));
    assert_eq!(code(&query("web", RecordType::AXFR, false)), Some(ResponseCode::Refused.into()));
    let version = good.len() - 5;
    assert_eq!(code(&with(version, 1)), Some(ResponseCode::BADVERS.into()));
    assert_eq!(code(&[0; LONGEST_QUERY + 1]), None);
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let packet = query("Example.com", RecordType::A, true);
    let mut reply = Vec::new();
    let Verdict::Forward { question_end } =
        Responder::default().respond(&zone(), &packet, Transport::Udp, &mut reply)
    else {
        panic!("not passed on")
    };
    let response = |name: &str, code: ResponseCode| {
        let mut message = Message::response(9, OpCode::Query);
        message.metadata.response_code = code;
        if !name.is_empty() {
            let labels = name.split('.').map(str::as_bytes);
            message.add_query(Query::query(Name::from_labels(labels).unwrap(), RecordType::A));
        }
        message.to_vec().unwrap()
    };
    let good = response("eXample.com", ResponseCode::NoError);
    assert!(answers(&good, &packet, question_end, 9));
    assert!(!answers(&good, &packet, question_end, 8));
    assert!(!answers(&response("example.org", ResponseCode::NoError), &packet, question_end, 9));
    assert!(!answers(&response("", ResponseCode::NoError), &packet, question_end, 9));
    assert!(answers(&response("", ResponseCode::Refused), &packet, question_end, 9));
    assert!(!answers(&packet, &packet, question_end, 77), "the query itself");
    assert!(!answers(&good[..13], &packet, question_end, 9));
    assert!(is_failure(&response("", ResponseCode::ServFail)) && !is_failure(&good));
    set_id(&mut reply, 5);
}

proptest! {
    #[test]
    fn any_bytes_are_taken(packet in proptest::collection::vec(any::<u8>(), 0..600), tcp: bool) {
        let mut reply = Vec::new();
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let verdict = Responder::default().respond(&zone(), &packet, transport, &mut reply);
        if verdict == Verdict::Reply {
            prop_assert_eq!(id(&reply), id(&packet));
        }
        let _ = answers(&packet, &packet, 17, id(&packet));
    }

    /// Bytes that look more like a query.
    #[test]
    fn damaged_queries_are_taken(index in 2_usize..40, byte: u8, cut in 0_usize..40, name in "[a-z.]{0,20}") {
        let mut packet = query(&name, RecordType::A, true);
        let length = packet.len();
        packet[index % length] = byte;
        packet.truncate(length - cut.min(length));
        let mut reply = Vec::new();
        if let Verdict::Forward { question_end } =
            Responder::default().respond(&zone(), &packet, Transport::Udp, &mut reply)
        {
            prop_assert!(question_end <= packet.len());
        }
    }
}
