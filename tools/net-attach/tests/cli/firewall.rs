//! Who reaches whom, over both families, and what becomes of other tables.

use crate::lab::{Container, Lab, ask_by_udp, isolated, wait_for};
use std::process::Command;

/// What a network is called, its number in addresses, and members of its definition.
const NETWORKS: [(&str, u8, &str); 4] = [
    ("web", 90, ""),
    ("other", 91, ""),
    ("alone", 92, r#","isolate":true"#),
    ("inner", 93, r#","internal":true"#),
];

/// A network of both families and the lab's driver: 10.N.0.0/24 and fd00:N::/64 on the device NAME0.
pub fn define(lab: &Lab, name: &str, number: u8, more: &str) {
    let dir = lab.root().join("networks").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let driver = lab.driver;
    let json = format!(
        r#"{{"name":"{name}","driver":"{driver}","device":"{name}0","subnets":[{{"subnet":"10.{number}.0.0/24"}},{{"subnet":"fd00:{number}::/64"}}]{more}}}"#
    );
    std::fs::write(dir.join("network.json"), json).unwrap();
}

/// A container's address of a family.
pub fn address(attachment: &serde_json::Value, ipv6: bool) -> String {
    let addresses = attachment["addresses"].as_array().unwrap().iter().filter_map(|a| a.as_str());
    let one = addresses.map(|a| a.split('/').next().unwrap()).find(|a| a.contains(':') == ipv6).unwrap();
    if ipv6 { format!("[{one}]") } else { one.to_owned() }
}

/// A neighbour of both families: we are 192.0.2.1 and 2001:db8::1, it is .2 and ::2, and it asks us for all the rest.
pub fn neighbour(lab: &mut Lab) -> u32 {
    let pid = lab.neighbour();
    lab.must(None, "ip addr add 2001:db8::1/64 dev lan0 nodad");
    lab.must(Some(pid), "ip addr add 2001:db8::2/64 dev wire nodad");
    lab.must(Some(pid), "ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1");
    pid
}

/// Says a word and who calls, over both protocols and families.
pub fn serve(lab: &mut Lab, at: Option<u32>, port: u16, word: &str) {
    for (listen, read) in [("UDP6-RECVFROM", "read x; "), ("TCP6-LISTEN", "")] {
        let script =
            format!("{listen}:{port},fork,reuseaddr,ipv6only=0 SYSTEM:'{read}echo {word} $SOCAT_PEERADDR'");
        let script = format!("exec socat {script}");
        match at {
            Some(pid) => {
                let pid = pid.to_string();
                lab.spawn(Command::new("nsenter").args(["-t", &pid, "-n", "--", "sh", "-c", &script]))
            }
            None => lab.spawn(Command::new("sh").args(["-c", &script])),
        };
    }
    wait_for("a server", || lab.sh(at, &format!("ss -H -lntu sport = :{port}")).stdout.lines().count() == 2);
}

/// The word and who the server saw, or nothing.
pub fn call(lab: &Lab, from: Option<u32>, protocol: &str, to: &str) -> String {
    let script = match protocol {
        "udp" => ask_by_udp(to),
        _ => format!("timeout 10 socat -u TCP:{to},connect-timeout=1 -"),
    };
    // An address of IPv4 as a socket of both families sees it, and the long form of IPv6.
    let told = lab.sh(from, &script).stdout;
    told.trim().replace("[0000:0000:0000:0000:0000:ffff:", "[").replace(":0000", ":0")
}

/// As [`call`] tells it.
pub fn seen(address: &str) -> &'static str {
    match address {
        "192.0.2.1" => "[c000:0201]",
        "192.0.2.2" => "[c000:0202]",
        "2001:db8::1" => "[2001:0db8:0:0:0:0:0:0001]",
        "2001:db8::2" => "[2001:0db8:0:0:0:0:0:0002]",
        _ => panic!("{address}"),
    }
}

struct Host {
    neighbour: u32,
    web: Container,
    beside: Container,
    other: Container,
    alone: Container,
    inner: Container,
    /// Addresses of `web` and `beside`, IPv4 then IPv6.
    web_at: [String; 2],
    beside_at: [String; 2],
}

/// Containers on all kinds of networks, two of them with ports.
fn host(lab: &mut Lab) -> Host {
    for (name, number, more) in NETWORKS {
        define(lab, name, number, more);
    }
    let neighbour = neighbour(lab);
    let on = |name: &str| format!(r#"{{"network":"{name}"}}"#);
    let (web, beside) = (lab.container(1, &on("web")), lab.container(2, &on("web")));
    let (other, alone) = (lab.container(3, &on("other")), lab.container(4, &on("alone")));
    let inner = lab.container(5, &on("inner"));
    let ports = [
        "8080:80",
        "8080:80/udp",
        "127.0.0.1:8081:80",
        "192.0.2.1:8082:80",
        "[2001:db8::1]:8083:80",
        "0.0.0.0:8084:80",
        "[::]:8085:80",
        "9000-9999:9000-9999",
        "7000-7009:7010-7019/udp",
    ];
    let flags: Vec<&str> = ports.iter().flat_map(|port| ["-p", *port]).collect();
    let made = lab.attach(&web, &flags);
    let web_at = [address(&made, false), address(&made, true)];
    let made = lab.attach(&beside, &[]);
    let beside_at = [address(&made, false), address(&made, true)];
    lab.attach(&other, &[]);
    lab.attach(&alone, &["-p", "8090:80"]);
    lab.attach(&inner, &[]);
    for (container, word) in [(&web, "web"), (&beside, "beside"), (&alone, "alone"), (&inner, "inner")] {
        serve(lab, Some(container.pid), 80, word);
    }
    Host { neighbour, web, beside, other, alone, inner, web_at, beside_at }
}

#[test]
fn ports_are_reached_from_everywhere_and_nothing_else_is() {
    isolated("firewall::ports_are_reached_from_everywhere_and_nothing_else_is", |lab| {
        let host = host(lab);
        let outside = Some(host.neighbour);
        serve(lab, Some(host.web.pid), 9999, "last");
        serve(lab, Some(host.web.pid), 7019, "moved");
        for protocol in ["tcp", "udp"] {
            let of = |from, to: &str| call(lab, from, protocol, to);
            // From other hosts, who are seen as they are.
            assert_eq!(of(outside, "192.0.2.1:8080"), format!("web {}", seen("192.0.2.2")), "{protocol}");
            assert_eq!(
                of(outside, "[2001:db8::1]:8080"),
                format!("web {}", seen("2001:db8::2")),
                "{protocol}"
            );
            // From the host, its other networks, a neighbour in the network, and itself.
            let places = [
                ("the host", None),
                ("another network", Some(host.other.pid)),
                ("an isolated network", Some(host.alone.pid)),
                ("beside", Some(host.beside.pid)),
                ("itself", Some(host.web.pid)),
            ];
            for (place, from) in places {
                for to in ["192.0.2.1", "10.90.0.1", "[2001:db8::1]", "[fd00:90::1]"] {
                    let told = of(from, &format!("{to}:8080"));
                    assert!(told.starts_with("web "), "{protocol} from {place} to {to}: {told}");
                }
            }
            assert!(of(None, "127.0.0.1:8080").starts_with("web "), "{protocol}");
            // Unpublished: not from outside, even by the containers' own addresses, nor from other networks.
            for (own, published) in [(&host.beside_at, false), (&host.web_at, true)] {
                for to in own {
                    assert_eq!(
                        of(outside, &format!("{to}:80")),
                        "",
                        "{protocol} {to}, published: {published}"
                    );
                    assert_eq!(of(Some(host.other.pid), &format!("{to}:80")), "", "{protocol} {to}");
                    assert_ne!(of(None, &format!("{to}:80")), "", "{protocol} {to} from the host");
                }
            }
            for to in &host.beside_at {
                assert!(
                    of(Some(host.web.pid), &format!("{to}:80")).starts_with("beside "),
                    "{protocol} {to}"
                );
            }
        }
        for to in ["192.0.2.1", "[2001:db8::1]"] {
            assert!(call(lab, outside, "tcp", &format!("{to}:9999")).starts_with("last "), "{to}");
            assert!(call(lab, outside, "udp", &format!("{to}:7009")).starts_with("moved "), "{to}");
        }
        // A client that tries localhost's IPv6 address is told at once.
        let begin = std::time::Instant::now();
        let refused = lab.sh(None, "socat -u TCP6:[::1]:8080,connect-timeout=5 -");
        assert!(refused.stderr.contains("refused"), "{}", refused.stderr);
        assert!(begin.elapsed().as_secs() < 3);
        // Out: as the host.
        serve(lab, outside, 6000, "outside");
        for (to, ours) in [("192.0.2.2", "192.0.2.1"), ("[2001:db8::2]", "2001:db8::1")] {
            let told = call(lab, Some(host.web.pid), "tcp", &format!("{to}:6000"));
            assert_eq!(told, format!("outside {}", seen(ours)));
        }
    });
}

#[test]
fn ports_of_one_address_are_on_that_one_alone() {
    isolated("firewall::ports_of_one_address_are_on_that_one_alone", |lab| {
        let host = host(lab);
        let outside = Some(host.neighbour);
        let reached = |from, to: &str| !call(lab, from, "tcp", to).is_empty();
        for (to, from_host, from_outside) in [
            ("127.0.0.1:8081", true, false),
            ("127.0.0.2:8081", false, false),
            ("192.0.2.1:8081", false, false),
            ("10.90.0.1:8081", false, false),
            ("192.0.2.1:8082", true, true),
            ("127.0.0.1:8082", false, false),
            ("10.90.0.1:8082", false, false),
            ("[2001:db8::1]:8083", true, true),
            ("[fd00:90::1]:8083", false, false),
            ("192.0.2.1:8083", false, false),
            ("192.0.2.1:8084", true, true),
            ("[2001:db8::1]:8084", false, false),
            ("[2001:db8::1]:8085", true, true),
            ("192.0.2.1:8085", false, false),
        ] {
            assert_eq!(reached(None, to), from_host, "from the host to {to}");
            if !to.starts_with("127.") {
                assert_eq!(reached(outside, to), from_outside, "from outside to {to}");
            }
        }
        // A neighbour that sends what is for loopback addresses over the wire, and a container that does.
        for (pid, device, gateway) in
            [(host.neighbour, "wire", "192.0.2.1"), (host.beside.pid, "eth0", "10.90.0.1")]
        {
            lab.sh(Some(pid), "ip addr del 127.0.0.1/8 dev lo; ip link set lo down");
            let set = format!(
                "mount -t sysfs none /sys; mount -o remount,rw /proc/sys; echo 1 > /proc/sys/net/ipv4/conf/{device}/route_localnet"
            );
            lab.sh(Some(pid), &format!("unshare -m sh -c '{set}'"));
            let routes = format!(
                "ip route replace 127.0.0.0/8 via {gateway} && ip route get 127.0.0.1 | grep -q {device}"
            );
            assert_eq!(lab.sh(Some(pid), &routes).status, 0);
            lab.sh(None, "nft add table inet probe; nft add chain inet probe c '{ type filter hook prerouting priority -400; }'; nft add rule inet probe c ip daddr 127.0.0.1 iifname != lo counter name seen 2>/dev/null || { nft add counter inet probe seen; nft add rule inet probe c ip daddr 127.0.0.1 iifname != lo counter name seen; }");
            assert_eq!(call(lab, Some(pid), "tcp", "127.0.0.1:8081"), "");
            let seen = lab.sh(None, "nft list counter inet probe seen").stdout;
            assert!(
                seen.contains("packets") && !seen.contains("packets 0 "),
                "it did not come to us: {seen}"
            );
            lab.sh(None, "nft delete table inet probe");
        }
    });
}

#[test]
fn isolated_and_internal_networks() {
    isolated("firewall::isolated_and_internal_networks", |lab| {
        let host = host(lab);
        let outside = Some(host.neighbour);
        serve(lab, None, 6000, "host");
        serve(lab, outside, 6001, "outside");
        let inner = Some(host.inner.pid);
        // A container can give itself a way out.
        lab.must(inner, "ip route replace default via 10.93.0.1; ip -6 route replace default via fd00:93::1");
        lab.must(outside, "ip route replace 10.93.0.0/24 via 192.0.2.1");
        for (to, inside) in [("192.0.2.1", "10.93.0.1"), ("[2001:db8::1]", "[fd00:93::1]")] {
            let reached =
                |from, to: &str| call(lab, from, "tcp", to).split(' ').next().unwrap_or("").to_owned();
            // Published ports of an isolated network: for other hosts and this one, not for other networks.
            assert_eq!(reached(outside, &format!("{to}:8090")), "alone");
            assert_eq!(reached(None, &format!("{to}:8090")), "alone");
            assert_eq!(reached(Some(host.alone.pid), &format!("{to}:8090")), "alone");
            assert_eq!(reached(Some(host.other.pid), &format!("{to}:8090")), "", "{to}");
            assert_eq!(reached(Some(host.alone.pid), &format!("{to}:8080")), "web");
            // From an internal one the host by its bridge's address, and nothing else.
            assert_eq!(reached(inner, &format!("{inside}:6000")), "host");
            assert_eq!(reached(inner, &format!("{to}:6000")), "", "{to}");
            assert_eq!(reached(inner, &format!("{to}:8080")), "", "{to}");
        }
        for to in ["192.0.2.2:6001", "[2001:db8::2]:6001", "10.90.0.1:6000"] {
            assert_eq!(call(lab, inner, "tcp", to), "", "{to}");
        }
        let record = lab.sh(None, &format!("cat {}/networks/inner/leases/*", lab.root().display())).stdout;
        assert!(record.contains(&host.inner.id));
        let refused = lab.tool("net-attach", &["-p", "8091:80", &host.inner.name]);
        assert_eq!((refused.status, refused.stdout.as_str()), (3, ""), "{}", refused.stderr);
        assert!(refused.stderr.contains("internal"), "{}", refused.stderr);
    });
}

/// Sends a line as `from` and waits for no answer; the connection is that of everybody with the same addresses and ports.
fn send(lab: &Lab, at: u32, line: &str, to: &str) {
    let sent = lab.sh(Some(at), &format!("echo {line} | timeout 3 socat -u - UDP:{to}"));
    assert_eq!(sent.status, 0, "{to}: {}", sent.stderr);
}

#[test]
fn an_internal_network_does_not_send_in_the_name_of_another() {
    isolated("firewall::an_internal_network_does_not_send_in_the_name_of_another", in_the_name_of_another);
}

pub fn in_the_name_of_another(lab: &mut Lab) {
    let host = host(lab);
    let inner = host.inner.pid;
    let heard = lab.dir.join("heard");
    let hear = format!(
        "exec nsenter -t {} -n socat UDP6-RECVFROM:6002,fork,ipv6only=0 SYSTEM:'read x; echo $x >>{}; echo $x'",
        host.neighbour,
        heard.display()
    );
    lab.spawn(Command::new("sh").args(["-c", &hear]));
    lab.must(
        Some(inner),
        "ip route replace default via 10.93.0.1; ip -6 route replace default via fd00:93::1",
    );
    let [four, six] = host.web_at.clone();
    let bare = six.trim_matches(['[', ']']);
    lab.must(Some(inner), &format!("ip addr add {four}/32 dev eth0; ip addr add {bare}/128 dev eth0 nodad"));
    for (to, from) in [("192.0.2.2", &four), ("[2001:db8::2]", &six)] {
        let to = format!("{to}:6002,bind={from}:45000");
        // A connection of another network's container, answered, so that it counts as established.
        wait_for("an answer", || {
            let ask = format!("(echo mine; sleep 0.2) | timeout 10 socat -t 2 -T 2 - UDP:{to}");
            lab.sh(Some(host.web.pid), &ask).stdout == "mine\n"
        });
        send(lab, inner, "theirs", &to);
        let end = format!("end{}", from.len());
        send(lab, host.web.pid, &end, &to);
        let told = || std::fs::read_to_string(&heard).unwrap_or_default();
        wait_for("the last word", || told().contains(&end));
        assert!(!told().contains("theirs"), "{}", told());
    }
    // Nor does it answer in the name of another host, in a connection of the host's.
    lab.must(Some(inner), "ip addr add 192.0.2.2/32 dev eth0");
    let pid = lab.spawn(Command::new("sh").args([
        "-c",
        &format!(
            "(echo mine; sleep 3) | timeout 4 socat -t 3 -T 3 - UDP:192.0.2.2:6002,sourceport=45001 >{}",
            lab.dir.join("answers").display()
        ),
    ]));
    let answers = || std::fs::read_to_string(lab.dir.join("answers")).unwrap_or_default();
    wait_for("an answer", || answers().contains("mine"));
    send(lab, inner, "theirs", "192.0.2.1:45001,bind=192.0.2.2:6002");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(answers(), "mine\n");
    lab.kill(pid);
}

#[test]
fn connections_through_a_port_end_with_it() {
    isolated("firewall::connections_through_a_port_end_with_it", |lab| {
        define(lab, "web", 90, "");
        let outside = Some(neighbour(lab));
        let at = "web:ip=10.90.0.77,ip6=fd00:90::77";
        let mut first = lab.container(1, "{}");
        lab.attach(&first, &["--network", at, "-p", "5001:53/udp"]);
        serve(lab, Some(first.pid), 53, "first");
        let ways = ["192.0.2.1:5001,sourceport=40000", "[2001:db8::1]:5001,sourceport=40000"];
        wait_for("the port", || ways.iter().all(|to| call(lab, outside, "udp", to).starts_with("first ")));
        // Taken out of the record of a container that runs.
        let record = lab.tool("net-attach", &[&first.name]).stdout;
        let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["config"]["ports"] = serde_json::json!([]);
        assert_eq!(lab.pipe("net-attach", &[], &record.to_string()).status, 0);
        for to in ways {
            assert_eq!(call(lab, outside, "udp", to), "", "{to}");
        }
        lab.attach(&first, &["-p", "5001:53/udp"]);
        wait_for("the port", || ways.iter().all(|to| call(lab, outside, "udp", to).starts_with("first ")));
        // Gone with its container: another one that gets its addresses has not published it.
        lab.stop(&mut first);
        assert_eq!(lab.tool("net-detach", &[&first.name]).status, 0);
        let second = lab.container(2, "{}");
        lab.attach(&second, &["--network", at]);
        serve(lab, Some(second.pid), 53, "second");
        for to in ways {
            assert_eq!(call(lab, outside, "udp", to), "", "{to}");
        }
    });
}

#[test]
fn what_passed_while_the_table_was_gone_ends() {
    isolated("firewall::what_passed_while_the_table_was_gone_ends", |lab| {
        let host = host(lab);
        let (from, outside) = (Some(host.web.pid), Some(host.neighbour));
        let leases = |name: &str| lab.root().join("networks").join(name).join("leases");
        let address = |name: &str, ipv6: bool| {
            let mut names = std::fs::read_dir(leases(name))
                .unwrap()
                .flatten()
                .map(|e| e.file_name().into_string().unwrap());
            names.find(|address| address.contains(':') == ipv6).unwrap()
        };
        let ways = [
            format!("{}:80,sourceport=46000", address("alone", false)),
            format!("[{}]:80,sourceport=46000", address("alone", true)),
        ];
        let udp = |to: &String| call(lab, from, "udp", to);
        for to in &ways {
            assert_eq!(udp(to), "", "{to}");
        }
        // Whoever asks for connections' state keeps the kernel tracking them.
        lab.sh(None, "nft flush ruleset; nft 'table inet theirs { chain c { type filter hook forward priority 0; ct state established accept; }; }'");
        for to in &ways {
            assert!(udp(to).starts_with("alone "), "{to}");
        }
        assert_eq!(lab.tool("net-reload", &[]).status, 0);
        for to in &ways {
            assert_eq!(udp(to), "", "{to}");
        }
        assert!(call(lab, outside, "tcp", "192.0.2.1:8090").starts_with("alone "));
    });
}

#[test]
fn sctp_is_published_too() {
    isolated("firewall::sctp_is_published_too", sctp);
}

pub fn sctp(lab: &mut Lab) {
    define(lab, "web", 90, "");
    let outside = neighbour(lab);
    let web = lab.container(1, r#"{"network":"web"}"#);
    lab.attach(&web, &["-p", "3868:5868/sctp"]);
    // Raw, because few kernels have its sockets: the first packet of an association (RFC 9260, 3.3.2).
    let script = lab.dir.join("sctp.py");
    std::fs::write(&script, SCTP).unwrap();
    let script = script.display();
    for (family, to) in [("4", "192.0.2.1"), ("6", "2001:db8::1")] {
        let got = lab.dir.join(format!("got{family}"));
        let listen = format!("timeout 100 python3 {script} listen {family} > {}", got.display());
        let pid = web.pid.to_string();
        let listener = lab.spawn(Command::new("nsenter").args(["-t", &pid, "-n", "--", "sh", "-c", &listen]));
        wait_for("an association", || {
            let sent = lab.sh(Some(outside), &format!("python3 {script} send {family} {to} 3868"));
            assert_eq!(sent.status, 0, "{}", sent.stderr);
            std::fs::read_to_string(&got).is_ok_and(|got| got.contains("port 5868"))
        });
        lab.kill(listener);
    }
}

const SCTP: &str = r#"
import socket, struct, sys
def crc(data):
    c = 0xffffffff
    for byte in data:
        c ^= byte
        for _ in range(8):
            c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
    return c ^ 0xffffffff
family = socket.AF_INET if sys.argv[2] == "4" else socket.AF_INET6
raw = socket.socket(family, socket.SOCK_RAW, 132)
if sys.argv[1] == "listen":
    while True:
        packet = raw.recv(2000)
        sctp = packet[(packet[0] & 15) * 4:] if sys.argv[2] == "4" else packet
        print("port", struct.unpack("!H", sctp[2:4])[0], flush=True)
else:
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65536, 1, 1, 1)
    head = struct.pack("!HHI", 40000, int(sys.argv[4]), 0)
    sum = struct.pack("<I", crc(head + b"\0" * 4 + chunk))
    raw.sendto(head + sum + chunk, (sys.argv[3], 0))
"#;

/// A firewall as docker's or ufw's: iptables' table, its FORWARD dropping what it does not know.
const DROPS: &str = "table FAMILY filter {
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; iifname \"docker0\" accept; }
}";

#[test]
fn beside_a_firewall_that_drops_what_it_does_not_know() {
    isolated("firewall::beside_a_firewall_that_drops_what_it_does_not_know", beside_one_that_drops);
}

pub fn beside_one_that_drops(lab: &mut Lab) {
    for docker in [true, false] {
        let outside = if docker {
            neighbour(lab)
        } else {
            lab.must(None, "ip link del lan0");
            neighbour(lab)
        };
        define(lab, "web", 90, "");
        for family in ["ip", "ip6"] {
            let mut table = DROPS.replace("FAMILY", family);
            if !docker {
                let lines = table.lines().filter(|line| !line.contains("chain DOCKER"));
                table = lines.collect::<Vec<_>>().join("\n").replace("jump DOCKER-USER;", "");
            }
            lab.must(None, &format!("nft -f - <<'END'\n{table}\nEND"));
        }
        lab.must(
            None,
            "nft 'table inet mine { chain c { type filter hook forward priority 10; tcp dport 23 drop; }; }'",
        );
        let before = lab.must(None, "nft list ruleset | sed 's/counter packets.* bytes [0-9]*/counter/'");
        let web = lab.container(1 + usize::from(docker), r#"{"network":"web"}"#);
        let attached = lab.tool("net-attach", &["-p", "8080:80", &web.name]);
        assert_eq!(attached.status, 0, "{}", attached.stderr);
        let chain = if docker { "DOCKER-USER" } else { "FORWARD" };
        assert!(attached.stderr.contains(&format!("added to its chain {chain}")), "{}", attached.stderr);
        serve(lab, Some(web.pid), 80, "web");
        serve(lab, Some(outside), 6000, "outside");
        for (to, at) in [("192.0.2.1", "192.0.2.2"), ("[2001:db8::1]", "[2001:db8::2]")] {
            assert!(call(lab, Some(outside), "tcp", &format!("{to}:8080")).starts_with("web "), "{to}");
            assert!(call(lab, Some(web.pid), "tcp", &format!("{at}:6000")).starts_with("outside "), "{at}");
        }
        // Made again it is there once, and what we drop is dropped.
        let again = lab.tool("net-reload", &[]);
        assert_eq!((again.status, again.stderr.as_str()), (0, ""));
        let listed = lab.must(None, "nft list ruleset");
        assert_eq!(
            listed
                .lines()
                .filter(|line| line.contains("0x02000000 ==") || line.contains("& 0x02000000 == 0x02000000"))
                .count(),
            2,
            "{listed}"
        );
        let own = address(&lab.attach(&web, &[]), false);
        assert_eq!(call(lab, Some(outside), "tcp", &format!("{own}:80")), "");
        // All as it was once the table goes.
        let mut web = web;
        lab.remove(&mut web);
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        let after = lab.must(None, "nft list ruleset | sed 's/counter packets.* bytes [0-9]*/counter/'");
        assert_eq!(after, before);
        lab.must(None, "nft flush ruleset");
    }
}

#[test]
fn beside_dockerd_whoever_is_first() {
    isolated("firewall::beside_dockerd_whoever_is_first", |lab| {
        if !lab
            .sh(None, "dockerd --version && docker --version && iptables --version")
            .stdout
            .contains("iptables")
        {
            skip("dockerd, docker or iptables is not installed");
            return;
        }
        for docker_first in [true, false] {
            let outside = Some(lab.neighbour());
            lab.must(None, "echo 0 > /proc/sys/net/ipv4/ip_forward");
            let mut daemon = docker_first.then(|| dockerd(lab)).flatten();
            if docker_first && daemon.is_none() {
                skip("dockerd does not come up here");
                return;
            }
            let mut web = lab.container(1 + usize::from(docker_first), "{}");
            let attached = lab.tool("net-attach", &["-p", "8080:80", &web.name]);
            assert_eq!(attached.status, 0, "{}", attached.stderr);
            assert_eq!(attached.stderr.contains("DOCKER-USER"), docker_first, "{}", attached.stderr);
            if !docker_first {
                daemon = dockerd(lab);
            }
            serve(lab, Some(web.pid), 80, "web");
            serve(lab, outside, 6000, "outside");
            assert!(
                call(lab, outside, "tcp", "192.0.2.1:8080").starts_with("web "),
                "docker first: {docker_first}"
            );
            assert!(call(lab, Some(web.pid), "tcp", "192.0.2.2:6000").starts_with("outside "));
            lab.remove(&mut web);
            assert_eq!(lab.tool("net-prune", &[]).status, 0);
            assert!(!lab.sh(None, "iptables -S").stdout.contains("staves"));
            if let Some(daemon) = daemon {
                lab.kill(daemon);
            }
            lab.must(None, "nft flush ruleset; ip link del lan0; ip link del docker0");
        }
    });
}

/// A dockerd of the lab's own, in this network; everything it starts ends with it. `None` if it does not answer.
fn dockerd(lab: &mut Lab) -> Option<u32> {
    let dir = lab.dir.join("docker");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let at = dir.display();
    let script = format!(
        "exec unshare -p -f --mount-proc --kill-child dockerd --data-root {at}/data --exec-root {at}/exec -p {at}/pid -H unix://{at}/socket --storage-driver vfs"
    );
    let pid = lab.spawn(Command::new("sh").args(["-c", &script]));
    let answers = || lab.sh(None, &format!("timeout 5 docker -H unix://{at}/socket version")).status == 0;
    (0..100)
        .any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            answers()
        })
        .then_some(pid)
}

#[allow(clippy::print_stderr)]
pub fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[test]
fn another_table_that_drops_is_told_of() {
    isolated("firewall::another_table_that_drops_is_told_of", |lab| {
        lab.must(None, "nft 'table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }'");
        let web = lab.container(1, "{}");
        let attached = lab.tool("net-attach", &[&web.name]);
        assert!(attached.stderr.contains("nft insert rule inet filter forward"), "{}", attached.stderr);
        // What is said works.
        let outside = Some(lab.neighbour());
        serve(lab, outside, 6000, "outside");
        assert_eq!(call(lab, Some(web.pid), "tcp", "192.0.2.2:6000"), "");
        let command = attached.stderr.split("other hosts: ").nth(1).unwrap().lines().next().unwrap();
        lab.must(None, command);
        assert!(call(lab, Some(web.pid), "tcp", "192.0.2.2:6000").starts_with("outside "), "{command}");
    });
}

#[test]
fn reloading_puts_everything_back() {
    isolated("firewall::reloading_puts_everything_back", |lab| {
        let host = host(lab);
        let outside = Some(host.neighbour);
        let rules = |lab: &mut Lab| lab.must(None, "nft -s list table inet staves");
        let before = rules(lab);
        let counts = |lab: &Lab, arguments: &[&str]| {
            let outcome = lab.tool("net-reload", arguments);
            assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
            let lines =
                outcome.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            lines.map(|line| line["reloaded"].clone()).collect::<Vec<_>>()
        };
        let total = |reloaded: &[serde_json::Value], member: &str| {
            reloaded.iter().map(|one| one[member].as_u64().unwrap()).sum::<u64>()
        };
        // Nothing to do, nothing done.
        let idle = counts(lab, &[]);
        assert_eq!(idle.len(), NETWORKS.len());
        assert_eq!(total(&idle, "containers"), 5);
        assert_eq!(
            (total(&idle, "published"), total(&idle, "unpublished"), total(&idle, "connected")),
            (0, 0, 0)
        );
        assert_eq!(rules(lab), before);
        // All of the firewall gone, with other tables beside it.
        lab.must(None, "nft flush ruleset && nft 'table ip theirs { chain c { counter; }; }'");
        let back = counts(lab, &[]);
        // Both families of two ports, a range and ten ports with other numbers; three of one family; and of the other network.
        assert_eq!(total(&back, "published"), 2 * (2 + 1 + 10) + 5 + 2);
        assert_eq!(rules(lab), before);
        assert!(lab.must(None, "nft list tables").contains("table ip theirs"));
        assert!(call(lab, outside, "tcp", "192.0.2.1:8080").starts_with("web "));
        // A bridge, with its ports and addresses, and a kernel parameter.
        lab.must(None, "ip link del web0; echo 0 > /proc/sys/net/ipv4/ip_forward");
        let reloaded = lab.tool("net-reload", &["web"]);
        assert!(reloaded.stderr.contains("ip_forward was off"), "{}", reloaded.stderr);
        assert_eq!(reloaded.json()["reloaded"]["connected"], 2);
        for to in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            wait_for("the bridge", || call(lab, outside, "tcp", to).starts_with("web "));
        }
        assert!(call(lab, Some(host.web.pid), "tcp", "192.0.2.1:8080").starts_with("web "), "hairpin");
        // Elements of nobody go, the administrator's chain stays.
        lab.must(None, "nft add element inet staves ports '{ udp . 4000 : 10.90.0.77 . 40 }'");
        lab.must(None, "nft add rule inet staves user ip daddr 192.0.2.2 drop");
        assert_eq!(total(&counts(lab, &["web"]), "unpublished"), 1);
        serve(lab, outside, 6000, "outside");
        assert_eq!(call(lab, Some(host.web.pid), "tcp", "192.0.2.2:6000"), "");
        assert!(call(lab, Some(host.web.pid), "tcp", "[2001:db8::2]:6000").starts_with("outside "));
        // And keeps the table.
        for mut container in [host.web, host.beside, host.other, host.alone, host.inner] {
            lab.remove(&mut container);
        }
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        let left = rules(lab);
        assert!(left.contains("192.0.2.2 drop") && !left.contains("web0"), "{left}");
        lab.must(None, "nft flush chain inet staves user; nft delete table ip theirs");
        assert_eq!(counts(lab, &[]).len(), 0);
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        lab.assert_clean();
        let missing = lab.tool("net-reload", &["nowhere"]);
        assert_eq!((missing.status, missing.stdout.as_str()), (4, ""));
    });
}
