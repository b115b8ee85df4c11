//! iperf3 through everything a network has: much data whole, in both directions, over both protocols and families.

use pipelines::engine::have;
use pipelines::{Bench, OtherHost, Ran, ip, wait_until};
use serde_json::Value;

/// A container with the host's programs; the image has none that needs libraries.
const WITH_HOST: &str = "-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro --tmpfs /tmp";

/// Enough to pass through every queue many times.
const AMOUNTS: [(&str, u64); 2] = [("-n 64M", 64 << 20), ("-u -b 200M -l 1200 -n 2M", 2 << 20)];

/// What iperf3 reports, without a failure of its own: bytes arrived, of datagrams all but a few.
#[track_caller]
fn assert_arrived(ran: &Ran, wanted: u64, what: &str) {
    let report: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{what}: {error}: {}{}", ran.stdout, ran.stderr));
    assert!(ran.status == 0 && report["error"].is_null(), "{what}: {}{}", report["error"], ran.stderr);
    let end = &report["end"];
    if let Some(packets) = end["sum"]["packets"].as_u64() {
        let lost = end["sum"]["lost_packets"].as_u64().unwrap_or(packets);
        assert!(
            packets * 1200 >= wanted && lost < packets,
            "{what}: of {packets} datagrams {lost} were lost"
        );
    } else {
        let received = end["sum_received"]["bytes"].as_u64().unwrap_or(0);
        // What is counted is what was taken out of the socket when the sender said that it was done.
        assert!(received >= wanted / 2, "{what}: {received} bytes");
    }
}

/// Runs a client until the server, which does one test at a time, is done with the one before.
fn in_turn(client: impl Fn() -> Ran) -> Ran {
    let mut ran = client();
    for _ in 0..100 {
        if !ran.stdout.contains("busy running a test") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        ran = client();
    }
    ran
}

#[test]
fn data_passes_published_ports_and_between_containers() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["iperf3"]) {
        return;
    }
    let outside = OtherHost::new();
    ip("address add 2001:db8::1/64 dev up0 nodad");
    let added =
        outside.command("ip").args(["address", "add", "2001:db8::2/64", "dev", "eth0", "nodad"]).status();
    assert!(added.expect("run ip").success());
    bench.sh("net-create -q other").expect(0);
    for driver in ["bridge", "routed"] {
        bench.sh(&format!("net-create -q --driver {driver} --ipv6 speed")).expect(0);
        passes(&bench, &outside);
        bench.sh("ctr-rm -q -f server && net-rm -q speed").expect(0);
    }
    bench.sh("net-rm -q other").expect(0);
}

/// By a server on network `speed`, asked from everywhere.
fn passes(bench: &Bench, outside: &OtherHost) {
    bench
        .sh(&format!(
            "ctr-run -q -d --name server --network speed -p 5201:5201 -p 5201:5201/udp {WITH_HOST} $R/busybox:1 /usr/bin/iperf3 -s"
        ))
        .expect(0);
    let listens = || bench.sh("ctr-exec server netstat -ltn").stdout.contains(":5201");
    wait_until("iperf3 to listen", listens);
    let client = |network: &str, words: &str| {
        bench.sh(&format!(
            "ctr-run --rm --network {network} {WITH_HOST} $R/busybox:1 /usr/bin/iperf3 -J {words}"
        ))
    };
    for (amount, wanted) in AMOUNTS {
        for direction in ["", "-R"] {
            let words = |to: &str| format!("{amount} {direction} -c {to}");
            for to in ["203.0.113.1", "2001:db8::1"] {
                let words = words(to);
                let ran =
                    in_turn(|| Ran::of(outside.command("iperf3").arg("-J").args(words.split_whitespace())));
                assert_arrived(&ran, wanted, &format!("from another host: {words}"));
            }
            let loopback = words("127.0.0.1");
            assert_arrived(
                &in_turn(|| bench.sh(&format!("iperf3 -J {loopback}"))),
                wanted,
                &format!("from the host: {loopback}"),
            );
            // By name, by one family and the other, and by the host's port from another network.
            for (network, to) in [("speed", "server -4"), ("speed", "server -6"), ("other", "203.0.113.1")] {
                let words = words(to);
                assert_arrived(
                    &in_turn(|| client(network, &words)),
                    wanted,
                    &format!("from network {network}: {words}"),
                );
            }
        }
    }
}
