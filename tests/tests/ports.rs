//! Out through NAT; in through published ports, from another host, from this host, and from loopback.

use pipelines::{Bench, OtherHost, Ran, wait_until};

fn curl(host: Option<&OtherHost>, url: &str) -> Ran {
    let mut command = match host {
        Some(host) => host.command("curl"),
        None => std::process::Command::new("curl"),
    };
    Ran::of(command.args(["-sS", "--max-time", "20", "--noproxy", "*", url]))
}

const SERVER: &str = "httpd -f -p 80 -h /var/www";

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let Some(bench) = Bench::new() else { return };
    let outside = OtherHost::new();
    bench.sh(&format!("ctr-run -d --name web -p 8080:80 $R/busybox:1 {SERVER}")).expect(0);
    let loopback = "http://127.0.0.1:8080/";
    wait_until("the server to answer", || curl(None, loopback).status == 0);
    let own = format!("http://{}:8080/", OtherHost::OURS);
    for (what, ran) in [
        ("loopback", curl(None, loopback)),
        ("the host's own address", curl(None, &own)),
        ("another host", curl(Some(&outside), &own)),
    ] {
        assert_eq!(ran.stdout, "served by busybox\n", "from {what}: {}", ran.stderr);
    }
    // From another container, by the host's address (hairpin) and directly.
    let address = bench.sh("ctr-inspect web").expect(0).json()["networks"][0]["addresses"][0]
        .as_str()
        .and_then(|address| address.split('/').next().map(str::to_owned))
        .expect("the container has an address");
    for url in [own, format!("http://{address}/")] {
        let ran = bench.sh(&format!("ctr-run --rm $R/busybox:1 timeout 20 wget -q -O - {url}")).expect(0);
        assert_eq!(ran.stdout, "served by busybox\n", "{url}");
    }
    // The container itself, through its own published port.
    let ran =
        bench.sh(&format!("ctr-exec web timeout 20 wget -q -O - http://{}:8080/", OtherHost::OURS)).expect(0);
    assert_eq!(ran.stdout, "served by busybox\n");
    // Gone with the container.
    bench.sh("ctr-rm -f web").expect(0);
    assert_ne!(curl(None, loopback).status, 0);
}

#[test]
fn a_port_on_one_address_is_not_on_others() {
    let Some(bench) = Bench::new() else { return };
    let outside = OtherHost::new();
    bench.sh(&format!("ctr-run -d -p 127.0.0.1:8081:80 $R/busybox:1 {SERVER}")).expect(0);
    wait_until("the server to answer", || curl(None, "http://127.0.0.1:8081/").status == 0);
    assert_ne!(curl(Some(&outside), &format!("http://{}:8081/", OtherHost::OURS)).status, 0);
}

#[test]
fn a_range_of_ports_and_a_free_port() {
    let Some(bench) = Bench::new() else { return };
    let serve = "sh -c 'httpd -p 80 -h /var/www; httpd -f -p 81 -h /var/www'";
    bench.sh(&format!("ctr-run -d --name web -p 9000-9001:80-81 -p 80 $R/busybox:1 {serve}")).expect(0);
    let record = bench.sh("ctr-inspect web").expect(0).json();
    let ports = record["networks"][0]["ports"].as_array().cloned().unwrap_or_default();
    let chosen = ports
        .iter()
        .filter_map(|port| port["host"].as_u64())
        .find(|port| !(9000..=9001).contains(port))
        .unwrap_or_else(|| panic!("no free port was chosen: {record}"));
    for port in [9000, 9001, chosen] {
        let url = format!("http://127.0.0.1:{port}/");
        wait_until(&format!("port {port} to answer"), || curl(None, &url).status == 0);
    }
}

#[test]
fn a_port_in_use_is_a_conflict_and_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.sh(&format!("ctr-run -d --name first -p 8082:80 $R/busybox:1 {SERVER}")).expect(0);
    let ran = bench
        .sh("img-pull $R/busybox:1 | img-unpack | ctr-create --name second -- true | net-attach -p 8082:80")
        .expect(5);
    assert!(ran.stdout.is_empty());
    assert!(ran.stderr.contains("8082"), "{}", ran.stderr);
    let addresses = bench.sh("ls $STAVES_ROOT/networks/bridge/leases | wc -l").expect(0).stdout;
    assert_eq!(addresses.trim(), "1", "the second container gave its address back");
}

#[test]
fn udp_is_published_too() {
    let Some(bench) = Bench::new() else { return };
    // The busybox image has no server for UDP; Debian has perl.
    if pipelines::images().and_then(|images| images.layout("debian")).is_none() {
        return;
    }
    let outside = OtherHost::new();
    let echo = "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(53, INADDR_ANY)) or die; \
                while ($who = recv(S, $_, 1500, 0)) { send(S, $_, 0, $who) }";
    std::fs::write(bench.place.path().join("echo.pl"), echo).expect("write the server");
    bench
        .sh("ctr-run -d --name echo -p 5353:53/udp -v $DIR/echo.pl:/echo.pl $R/debian:12 perl /echo.pl")
        .expect(0);
    for (what, host) in [("another host", Some(&outside)), ("the host itself", None)] {
        wait_until(&format!("an echo from {what}"), || {
            let ask = format!("echo hello | timeout 2 socat -t 1 - UDP:{}:5353", OtherHost::OURS);
            let mut shell = host.map_or_else(|| std::process::Command::new("sh"), |host| host.command("sh"));
            Ran::of(shell.args(["-c", &ask])).stdout == "hello\n"
        });
    }
}

#[test]
fn the_way_out_is_through_nat() {
    let Some(bench) = Bench::new() else { return };
    let outside = OtherHost::new();
    // The other host tells who asks: it must be this host, not the container.
    let listen = outside
        .command("socat")
        .args(["TCP-LISTEN:7000,fork,reuseaddr", "SYSTEM:echo from $SOCAT_PEERADDR"])
        .spawn();
    let mut listen = listen.expect("run socat");
    let ask = format!(
        "ctr-run --rm $R/busybox:1 sh -c 'for i in 1 2 3 4 5 6 7 8 9; do nc -w 5 {} 7000 </dev/null && break; sleep 0.2; done'",
        OtherHost::ADDRESS
    );
    let ran = bench.sh(&ask);
    let _ = listen.kill();
    let _ = listen.wait();
    assert_eq!(ran.stdout, format!("from {}\n", OtherHost::OURS), "{}", ran.stderr);
}

#[test]
fn hosts_and_resolv_conf_are_the_containers_own() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench.sh("ctr-run --rm --hostname box $R/busybox:1 sh -c 'hostname; cat /etc/hostname; cat /etc/hosts; ip -4 -o a show eth0'").expect(0);
    assert!(ran.stdout.starts_with("box\nbox\n"), "{}", ran.stdout);
    let address =
        ran.stdout.split("inet ").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("none").to_owned();
    assert!(
        ran.stdout.lines().any(|line| line.starts_with(&address) && line.contains("box")),
        "no line for {address} in {}",
        ran.stdout
    );
    let ran = bench.sh("ctr-run --rm $R/busybox:1 cat /etc/resolv.conf").expect(0);
    assert!(ran.stdout.contains("nameserver"), "{}", ran.stdout);
}

#[test]
fn networks_can_be_none_the_hosts_or_another_containers() {
    let Some(bench) = Bench::new() else { return };
    let links = "ip -o link | cut -d: -f2 | cut -d@ -f1";
    let none = bench.sh(&format!("ctr-run --rm --network none $R/busybox:1 sh -c '{links}'")).expect(0);
    assert_eq!(none.stdout.trim(), "lo");
    pipelines::ip("link add mark0 type veth peer name mark1");
    let host = bench.sh(&format!("ctr-run --rm --network host $R/busybox:1 sh -c '{links}'")).expect(0);
    assert!(host.stdout.contains("mark0"), "{}", host.stdout);
    bench.sh(&format!("ctr-run -d --name web $R/busybox:1 {SERVER}")).expect(0);
    let ask = "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://127.0.0.1/ && break; sleep 0.2; done";
    let other =
        bench.sh(&format!("ctr-run --rm --network container:web $R/busybox:1 sh -c '{ask}'")).expect(0);
    assert_eq!(other.stdout, "served by busybox\n");
}

#[test]
fn ports_and_addresses_go_with_the_containers_end() {
    let Some(bench) = Bench::new() else { return };
    for (flags, command, end) in [
        ("--rm", "sleep 1000", "ctr-stop -q -t 0 c"),
        ("", "sleep 1000", "ctr-kill -q c"),
        ("--rm", "true", "while ctr-inspect c >/dev/null 2>&1; do sleep 0.05; done"),
        ("", "true", "ctr-wait c"),
    ] {
        bench
            .sh(&format!(
                "ctr-run -q -d --name c {flags} -p 8080:80 -p 127.0.0.1:53:53/udp $R/busybox:1 {command}"
            ))
            .expect(0);
        bench.sh(end).expect(0);
        let left = bench.sh("ls $STAVES_RUN/ports $STAVES_ROOT/networks/*/leases | grep -v : | grep .");
        assert_eq!(left.stdout, "", "{flags} {command}");
        let elements = bench.sh("nft list map inet staves ports; nft list map inet staves ports_at").stdout;
        assert!(!elements.contains("elements"), "{flags} {command}: {elements}");
        bench.sh("ctr-rm -q -f c || [ $? = 4 ]").expect(0);
    }
}
