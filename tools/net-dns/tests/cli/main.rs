//! The resolver asked by dig, from network namespaces on a bridge.

mod lab;

use lab::{Upstream, isolated, kill, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use testkit::{Ran, ip};

#[test]
fn names_are_answered() {
    isolated("names_are_answered", |lab| {
        let web = lab.container(2);
        lab.lease("10.90.0.2", &["web", "aaaaaaaaaaaa", "Front_End", "all"]);
        lab.lease("fd00:90::2", &["web", "aaaaaaaaaaaa", "Front_End", "all"]);
        lab.lease("10.90.0.3", &["db", "all"]);
        lab.lease("10.90.0.4", &["queue", "all"]);
        lab.start();
        for server in ["@10.90.0.1", "@fd00:90::1"] {
            for way in ["", "+tcp "] {
                let ask = |words: &str| lab.short(web, &format!("{way}{words} {server}"));
                assert_eq!(ask("web"), ["10.90.0.2"], "{way}{server}");
                assert_eq!(ask("WEB.shop"), ["10.90.0.2"]);
                assert_eq!(ask("AAAA front_end"), ["fd00:90::2"]);
                assert_eq!(ask("aaaaaaaaaaaa"), ["10.90.0.2"]);
                assert_eq!(ask("all"), ["10.90.0.2", "10.90.0.3", "10.90.0.4"]);
                assert_eq!(ask("-x 10.90.0.3"), ["db."]);
                assert_eq!(ask("-x fd00:90::2"), ["web."]);
                assert_eq!(ask("host.containers.internal"), ["10.90.0.1"]);
                assert_eq!(ask("AAAA host.docker.internal"), ["fd00:90::1"]);
            }
        }
        // There, but nothing of the kind.
        for words in ["AAAA db", "MX web", "TXT all"] {
            let said = lab.dig(web, words);
            assert!(said.contains("NOERROR") && said.contains("ANSWER: 0"), "{words}: {said}");
        }
        assert_eq!(lab.status(web, "-x 10.90.0.99"), "NXDOMAIN");
        let said = lab.dig(web, "+edns +bufsize=4096 web");
        assert!(said.contains("EDNS: version: 0, flags:; udp: 1232"), "{said}");
        assert!(said.contains("flags: qr aa rd ra;"), "{said}");
        assert!(said.contains("web.\t\t\t5\tIN\tA\t10.90.0.2"), "{said}");
        assert!(!lab.dig(web, "+noedns web").contains("EDNS"));
        assert_eq!(lab.status(web, "+edns=7 +noednsnegotiation web"), "BADVERS");
        // Each comes first in its turn.
        let first: std::collections::HashSet<_> =
            (0..6).map(|_| lab.dig(web, "+short all").lines().next().unwrap().to_owned()).collect();
        assert_eq!(first.len(), 3);
        // More than fit.
        for last in 5..100 {
            lab.lease(&format!("10.90.0.{last}"), &["many"]);
        }
        assert!(lab.dig(web, "+ignore +noedns many").contains("flags: qr aa tc"));
        assert_eq!(lab.short(web, "many").len(), 95);
    });
}

#[test]
fn what_is_not_known_is_asked_of_others() {
    isolated("what_is_not_known_is_asked_of_others", |lab| {
        let (host, second, own) =
            (Upstream::new("192.0.2.53"), Upstream::new("192.0.2.54"), Upstream::new("192.0.2.55"));
        let (web, picky) = (lab.container(2), lab.container(3));
        lab.lease("10.90.0.2", &["web"]);
        lab.lease_with("10.90.0.3", &["picky"], &["192.0.2.55"]);
        lab.start();
        assert_eq!(lab.short(web, "web.example"), ["198.51.100.53"]);
        assert_eq!(host.asked(), ["udp web.example. A edns"]);
        assert_eq!(lab.short(web, "+noedns alias.example"), ["198.51.100.53", "web.example."]);
        assert_eq!(host.asked(), ["udp alias.example. A"]);
        assert_eq!(lab.short(web, "+tcp web.example"), ["198.51.100.53"]);
        assert_eq!(host.asked(), ["tcp web.example. A edns"]);
        // A name without a dot as well, as docker does.
        assert_eq!(lab.short(web, "printer"), ["198.51.100.53"]);
        assert_eq!(lab.status(web, "nowhere.example"), "NXDOMAIN");
        // Cut, and asked for once more over TCP.
        assert!(lab.dig(web, "+ignore big.example").contains(" tc "));
        assert_eq!(lab.short(web, "big.example").len(), 200);
        assert_eq!(lab.short(web, "forged.example"), ["198.51.100.53"]);
        host.asked();
        // Lost on the way, sent again.
        assert_eq!(lab.short(web, "lost.example"), ["198.51.100.53"]);
        assert_eq!(lab.status(web, "broken.example"), "SERVFAIL");
        assert!(own.asked().is_empty() && second.asked().is_empty());
        assert_eq!(lab.short(picky, "web.example"), ["198.51.100.55"]);
        assert_eq!(
            (own.asked().len(), host.asked().iter().filter(|asked| asked.contains("web.")).count()),
            (1, 0)
        );

        // Another file is read at once, and the next server asked where one fails, refuses, or is not there.
        lab.resolv_conf("nameserver 192.0.2.53\nnameserver 192.0.2.54\n");
        for name in ["fails.example", "refused.example"] {
            for way in ["", "+tcp "] {
                assert_eq!(lab.short(web, &format!("{way}{name}")), ["198.51.100.54"], "{way}{name}");
            }
        }
        lab.resolv_conf("nameserver 127.0.0.99\nnameserver 192.0.2.54\n");
        for way in ["", "+tcp "] {
            assert_eq!(lab.short(web, &format!("{way}web.example")), ["198.51.100.54"]);
        }
        // Nobody there: told at once over both.
        lab.resolv_conf("nameserver 127.0.0.99\n");
        for way in ["", "+tcp "] {
            assert_eq!(lab.status(web, &format!("{way}web.example")), "SERVFAIL");
        }
        // Somebody who says nothing: told before the C library gives up.
        lab.resolv_conf("nameserver 192.0.2.53\n");
        let since = Instant::now();
        assert_eq!(lab.status(web, "silent.example"), "SERVFAIL");
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        // Over IPv6, and by the network's own wish.
        let _six = Upstream::new("2001:db8::56");
        lab.define(&json!({"dns":{"enabled":true,"servers":["2001:db8::56"]}}));
        assert_eq!(lab.short(web, "web.example"), ["198.51.100.86"]);
        assert_eq!(lab.short(picky, "web.example"), ["198.51.100.55"]);
    });
}

#[test]
fn nothing_leaves_where_it_may_not() {
    isolated("nothing_leaves_where_it_may_not", |lab| {
        let host = Upstream::new("192.0.2.53");
        let web = lab.container(2);
        lab.define(&json!({"internal":true}));
        lab.lease_with("10.90.0.2", &["web"], &["192.0.2.53"]);
        lab.start();
        assert_eq!(lab.short(web, "web"), ["10.90.0.2"]);
        for way in ["", "+tcp "] {
            assert_eq!(lab.status(web, &format!("{way}web.example")), "SERVFAIL");
        }
        assert!(host.asked().is_empty());
        // From the host: names of the network, and nothing that could go round in circles.
        lab.define(&json!({}));
        lab.lease("10.90.0.2", &["web"]);
        lab.resolv_conf("nameserver 10.90.0.1\n");
        let dig = |words: &str| {
            let mut command = lab.place.command("dig");
            Ran::of(command.args(["+tries=1", "+time=5", "@10.90.0.1"]).args(words.split(' '))).stdout
        };
        assert!(dig("web").contains("\t10.90.0.2"));
        assert!(dig("web.example").contains("REFUSED"));
        // Also where a firewall has given what the host sends to itself another of its addresses.
        let by_loopback = dig("web -b 127.0.0.1");
        assert!(by_loopback.contains("\t10.90.0.2"), "{by_loopback}");
        ip("address add 198.51.100.1/32 dev lo");
        assert!(dig("web.example -b 198.51.100.1").contains("REFUSED"));
        assert_eq!(lab.status(web, "web.example"), "SERVFAIL");
        // Strangers are not answered, wherever they come from.
        let stranger = lab.container(9);
        let script = "ip address flush dev eth0; ip address add 203.0.113.9/32 dev eth0; ip route add 10.90.0.1 dev eth0";
        lab.inside(stranger, "sh", &["-ec", script]).expect(0);
        ip("route add 203.0.113.9/32 dev staves1");
        let said = lab.dig(stranger, "+time=1 web");
        assert!(said.contains("timed out"), "{said}");
        // Nor are they where transfers and updates are asked for.
        assert!(
            lab.dig(web, "+noall +comments AXFR shop").contains("REFUSED")
                || lab.dig(web, "AXFR shop").contains("failed")
        );
    });
}

#[test]
fn any_resolver_of_a_container_knows_all_its_networks() {
    isolated("any_resolver_of_a_container_knows_all_its_networks", |lab| {
        let host = Upstream::new("192.0.2.53");
        let web = lab.container(2);
        for words in
            ["link add staves2 type bridge", "address add 10.91.0.1/24 dev staves2", "link set staves2 up"]
        {
            ip(words);
        }
        lab.define(&json!({"name":"back","device":"staves2","subnets":[{"subnet":"10.91.0.0/24"}]}));
        lab.lease("10.90.0.2", &["web"]);
        lab.lease_on("back", "10.91.0.7", &["db"], &[]);
        lab.start();
        Ran::of(lab.place.command("net-dns").arg("back")).expect(0);
        // On one network only it is nobody.
        let shop =
            json!({"name":"shop","interface":"eth0","addresses":["10.90.0.2/24"],"gateway":"10.90.0.1"});
        let back =
            json!({"name":"back","interface":"eth1","addresses":["10.91.0.2/24"],"gateway":"10.91.0.1"});
        lab.attached(&json!([shop]));
        assert_eq!(lab.short(web, "db"), ["198.51.100.53"]);
        lab.attached(&json!([shop, back]));
        host.asked();
        for way in ["", "+tcp "] {
            assert_eq!(lab.short(web, &format!("{way}db")), ["10.91.0.7"]);
            assert_eq!(lab.short(web, &format!("{way}-x 10.91.0.7")), ["db."]);
            assert_eq!(lab.short(web, &format!("{way}AAAA db")), [""; 0]);
            assert_eq!(host.asked(), [""; 0]);
            assert_eq!(lab.short(web, &format!("{way}web.example")), ["198.51.100.53"]);
            host.asked();
        }
        // The way through another network is for its names alone.
        lab.define(&json!({"internal":true}));
        assert_eq!(lab.short(web, "db"), ["10.91.0.7"]);
        assert_ne!(lab.status(web, "web.example"), "NOERROR");
        assert_eq!(host.asked(), [""; 0]);
        // One that has gone is passed over.
        lab.define(&json!({}));
        ip("link del staves2");
        wait_until("the end of the other", || !lab.runs_on("back"));
        assert_eq!(lab.short(web, "web.example"), ["198.51.100.53"]);
    });
}

#[test]
fn changes_are_seen_at_once() {
    isolated("changes_are_seen_at_once", |lab| {
        let _host = Upstream::new("192.0.2.53");
        let web = lab.container(2);
        lab.lease("10.90.0.2", &["web"]);
        lab.start();
        let socket = UdpSocket::bind("10.90.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for number in 0..200 {
            let name = format!("c{number}");
            let address = format!("10.90.0.{}", 10 + number % 50);
            lab.lease(&address, &[&name]);
            socket.send_to(&query(&name), "10.90.0.1:53").unwrap();
            let mut packet = [0; 512];
            let length = socket.recv(&mut packet).unwrap();
            let octets: std::net::Ipv4Addr = address.parse().unwrap();
            assert_eq!(packet[3] & 0x0f, 0, "{name} at {address}");
            assert_eq!(packet[length - 4..length], octets.octets(), "{name} at {address}");
        }
        lab.release("10.90.0.10");
        assert_eq!(lab.status(web, "-x 10.90.0.10"), "NXDOMAIN");
        assert_eq!(lab.short(web, "c199"), ["10.90.0.59"]);
    });
}

#[test]
fn it_lives_as_long_as_it_is_needed() {
    isolated("it_lives_as_long_as_it_is_needed", |lab| {
        let web = lab.container(2);
        lab.lease("10.90.0.2", &["web"]);
        lab.place.sh("exec 9>$DIR/held; net-dns shop").expect(0);
        let first = lab.resolver();
        let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
        assert!(
            status.contains("CapEff:\t0000000000000400") && status.contains("NoNewPrivs:\t1"),
            "{status}"
        );
        assert_eq!(std::fs::read_link(format!("/proc/{first}/cwd")).unwrap(), std::path::Path::new("/"));
        for entry in std::fs::read_dir(format!("/proc/{first}/fd")).unwrap().flatten() {
            let file = std::fs::read_link(entry.path()).unwrap();
            assert!(
                !file.starts_with(lab.place.path().join("held")) && !file.starts_with("/dev/pts"),
                "{file:?}"
            );
        }
        // A second one ends well and changes nothing; nor do many at once.
        lab.start();
        Ran::of(lab.place.command("net-dns").args(["--foreground", "shop"])).expect(0);
        assert_eq!(lab.resolver(), first);
        kill(first);
        wait_until("its end", || !lab.runs());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    lab.start();
                    assert_eq!(lab.short(web, "web"), ["10.90.0.2"]);
                });
            }
        });
        let second = lab.resolver();
        assert_ne!(second, first);
        // A restart of the only container is no end.
        lab.release("10.90.0.2");
        std::thread::sleep(Duration::from_millis(800));
        lab.lease("10.90.0.2", &["web"]);
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!((lab.resolver(), lab.runs()), (second, true));
        lab.release("10.90.0.2");
        wait_until("the end with the last lease", || !lab.runs());
        // Other addresses of the bridge: the same process, at the others.
        lab.lease("10.90.0.2", &["web"]);
        lab.start();
        let third = lab.resolver();
        ip("address add 10.90.0.254/24 dev staves1");
        lab.define(&json!({"subnets":[{"subnet":"10.90.0.0/24","gateway":"10.90.0.254"}]}));
        wait_until("the other address", || lab.short(web, "web @10.90.0.254") == ["10.90.0.2"]);
        assert_eq!(lab.resolver(), third);
        // The bridge gone, the network gone.
        ip("link del staves1");
        wait_until("the end with the bridge", || !lab.runs());
        ip("link add staves1 type bridge");
        ip("address add 10.90.0.254/24 dev staves1");
        ip("link set staves1 up");
        lab.start();
        std::fs::remove_dir_all(lab.store.network_dir("shop")).unwrap();
        wait_until("the end with the network", || !lab.runs());
    });
}

#[test]
fn what_cannot_be_is_told() {
    isolated("what_cannot_be_is_told", |lab| {
        let ran = |words: &[&str]| Ran::of(lab.place.command("net-dns").args(words));
        let taken = UdpSocket::bind("0.0.0.0:53").unwrap();
        let refused = ran(&["shop"]).expect(1);
        assert!(
            refused.stderr.contains("net-dns: shop: start the network's resolver: ")
                && refused.stderr.contains("10.90.0.1:53 (udp)"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains("\nhint: another program has it"), "{}", refused.stderr);
        drop(taken);
        assert!(ran(&["nothing"]).expect(4).stderr.contains("no such network"));
        lab.define(&json!({"dns":{"enabled":false}}));
        assert!(ran(&["shop"]).expect(5).stderr.contains("no names"));
        assert!(ran(&["--foreground", "../x"]).expect(2).stdout.is_empty());
        lab.define(&json!({"device":"staves9", "subnets":[{"subnet":"10.99.0.0/24"}]}));
        assert!(ran(&["shop"]).expect(1).stderr.contains("the network's bridge is not there"));
        assert!(!lab.runs());
    });
}

/// `net-rm` and `net-create` may be quicker than the end of the resolver that nobody needs any more.
#[test]
fn the_one_before_at_the_same_address_is_waited_for() {
    isolated("the_one_before_at_the_same_address_is_waited_for", |lab| {
        let web = lab.container(2);
        lab.lease("10.90.0.2", &["web"]);
        lab.start();
        let first = lab.resolver();
        lab.place.sh(&format!("kill -STOP {first}; rm -r $STAVES_RUN/networks/shop")).expect(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                kill(first);
            });
            lab.start();
        });
        assert_ne!(lab.resolver(), first);
        assert_eq!(lab.short(web, "web"), ["10.90.0.2"]);
    });
}

#[test]
fn hostile_packets_do_no_harm() {
    isolated("hostile_packets_do_no_harm", |lab| {
        let web = lab.container(2);
        lab.lease("10.90.0.2", &["web"]);
        lab.resolv_conf("nameserver 192.0.2.53\n");
        let _host = Upstream::new("192.0.2.53");
        lab.start();
        let resolver = lab.resolver();
        let socket = UdpSocket::bind("10.90.0.1:0").unwrap();
        let good = query("web");
        let mut state: u64 = 88_172_645_463_325_252;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..20_000 {
            let mut packet = good.clone();
            if round % 2 == 0 {
                packet = (0..random() % 300).map(|_| random() as u8).collect();
            } else {
                for _ in 0..=random() % 4 {
                    let index = random() as usize % packet.len();
                    packet[index] = random() as u8;
                }
                packet.truncate(packet.len() - random() as usize % 3);
            }
            let _ = socket.send_to(&packet, "10.90.0.1:53");
        }
        socket.send_to(&vec![0xff; 65_000], "10.90.0.1:53").unwrap();
        assert_eq!(lab.short(web, "web"), ["10.90.0.2"]);
        // More connections than one may have; others have theirs still.
        let server: SocketAddr = "10.90.0.1:53".parse().unwrap();
        let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(server).unwrap()).collect();
        assert_eq!(lab.short(web, "+tcp web"), ["10.90.0.2"]);
        let closed = silent.iter().filter(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut stream: &TcpStream = stream;
            !stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        assert_eq!(closed.count(), 8);
        drop(silent);
        let closed = |what: &str| {
            wait_until(what, || std::fs::read_dir(format!("/proc/{resolver}/fd")).unwrap().count() < 16);
        };
        closed("those connections to be closed");
        // Pieces, several at once, too long, cut.
        let mut stream = wait_for_connection(server);
        let framed = [&(good.len() as u16).to_be_bytes()[..], &good].concat();
        for byte in &framed {
            stream.write_all(&[*byte]).unwrap();
        }
        stream.write_all(&[&framed[..], &framed].concat()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() % 3, 0);
        assert!(all.chunks(all.len() / 3).all(|reply| reply.ends_with(&[10, 90, 0, 2])), "{all:?}");
        let mut stream = wait_for_connection(server);
        stream.write_all(&[0xff; 4]).unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or_default(), 0);
        // Nothing is left open.
        assert_eq!(lab.resolver(), resolver);
        assert_eq!(lab.short(web, "web"), ["10.90.0.2"]);
        closed("its sockets to be closed");
    });
}

#[test]
fn of_a_burst_nothing_is_lost() {
    isolated("of_a_burst_nothing_is_lost", |lab| {
        lab.container(2);
        lab.lease("10.90.0.2", &["web"]);
        lab.start();
        // As many as come while it has no processor.
        let resolver = lab.resolver();
        assert!(lab.place.sh(&format!("kill -STOP {resolver}")).status == 0);
        let sockets: Vec<UdpSocket> = (0..20).map(|_| UdpSocket::bind("10.90.0.1:0").unwrap()).collect();
        for socket in &sockets {
            for _ in 0..100 {
                socket.send_to(&query("web"), "10.90.0.1:53").unwrap();
            }
        }
        assert!(lab.place.sh(&format!("kill -CONT {resolver}")).status == 0);
        let mut answered = 0;
        for socket in &sockets {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            while answered < 2000 && socket.recv(&mut [0; 512]).is_ok_and(|length| length > 12) {
                answered += 1;
                if answered % 100 == 0 {
                    break;
                }
            }
        }
        assert_eq!(answered, 2000);
    });
}

fn wait_for_connection(server: SocketAddr) -> TcpStream {
    // The resolver closes the ones before in its own time.
    let mut open = None;
    wait_until("a connection that stays", || {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let stays =
            (&stream).read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        open = Some(stream);
        stays
    });
    open.unwrap()
}

/// The question for a name's IPv4 address.
fn query(name: &str) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}
