//! Published ports over both families, out of nothing but tools, and again after the firewall was emptied.

use pipelines::{Bench, OtherHost, Ran, ip, wait_until};

const SERVER: &str = "httpd -f -p 80 -h /var/www";
const SERVED: &str = "served by busybox\n";

fn curl(host: Option<&OtherHost>, url: &str) -> Ran {
    let mut command = host.map_or_else(|| std::process::Command::new("curl"), |host| host.command("curl"));
    Ran::of(command.args(["-sS", "--max-time", "5", "--noproxy", "*", url]))
}

/// The other host, with addresses of IPv6 too: ours is 2001:db8::1.
fn other_host() -> OtherHost {
    let outside = OtherHost::new();
    ip("address add 2001:db8::1/64 dev up0 nodad");
    let added =
        outside.command("ip").args(["address", "add", "2001:db8::2/64", "dev", "eth0", "nodad"]).status();
    assert!(added.expect("run ip").success());
    outside
}

#[test]
fn a_network_of_both_families_survives_a_flush() {
    let Some(bench) = Bench::new() else { return };
    let outside = other_host();
    bench.sh("net-create --ipv6 front").expect(0);
    bench
        .sh(&format!(
            "ctr-run -d --name web --network front -p 8080:80 -p 9000-9001:80-81 $R/busybox:1 {SERVER}"
        ))
        .expect(0);
    let places = ["http://203.0.113.1:8080/", "http://[2001:db8::1]:8080/", "http://203.0.113.1:9000/"];
    let check = || {
        for url in places {
            wait_until(url, || curl(Some(&outside), url).stdout == SERVED);
        }
        // Of localhost's two addresses IPv6 is refused at once.
        assert_eq!(curl(None, "http://localhost:8080/").stdout, SERVED);
        for url in &places[..2] {
            assert_eq!(
                bench.sh(&format!("ctr-exec web wget -q -O - '{url}'")).expect(0).stdout,
                SERVED,
                "{url}"
            );
        }
    };
    check();
    bench.sh("nft flush ruleset").expect(0);
    assert_ne!(curl(Some(&outside), places[0]).stdout, SERVED);
    let told = bench.sh("net-reload").expect(0).json();
    // Two ports: one element a family, and two for the range that has other numbers inside.
    assert_eq!((&told["reloaded"]["network"], &told["reloaded"]["published"]), (&"front".into(), &6.into()));
    check();
    assert_eq!(bench.sh("net-reload").expect(0).json()["reloaded"]["published"], 0);
    bench.sh("ctr-rm -f web && net-rm front").expect(0);
    assert_eq!(bench.sh("nft list tables").expect(0).stdout, "");
}

#[test]
fn a_network_that_becomes_internal_ends_what_goes_outside() {
    let Some(bench) = Bench::new() else { return };
    let outside = OtherHost::new();
    let mut speaker = outside
        .command("socat")
        .args(["TCP-LISTEN:9000,fork,reuseaddr", "SYSTEM:while echo tick; do sleep 0.05; done"])
        .spawn()
        .expect("run socat");
    bench.sh("net-create back").expect(0);
    bench
        .sh(&format!(
            "ctr-run -d --name listener --network back $R/busybox:1 sh -c 'while :; do nc {} 9000; sleep 0.1; done'",
            OtherHost::ADDRESS
        ))
        .expect(0);
    let heard = || bench.sh("ctr-logs listener").expect(0).stdout.lines().count();
    wait_until("the listener to hear", || heard() > 5);
    bench
        .sh("f=$STAVES_ROOT/networks/back/network.json; jq '.internal = true' $f >$f.new && mv $f.new $f && net-reload back")
        .expect(0);
    wait_until("silence", || {
        let before = heard();
        std::thread::sleep(std::time::Duration::from_millis(500));
        heard() == before
    });
    bench.sh("ctr-rm -f listener && net-rm back").expect(0);
    let _ = speaker.kill();
    let _ = speaker.wait();
}
