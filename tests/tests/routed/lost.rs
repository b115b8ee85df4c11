//! What is lost and made again, and what is edited.

use crate::{
    Container, ROUTED, both, by_gateway, create, edit_network, gateways, look, machine, ours, pair, run,
    shut, theirs,
};
use pipelines::calls::{At, Call, Servers, check};
use pipelines::wait_until;
use serde_json::json;
use std::time::Duration;

/// What was done to a network behind our back, and a call that is not answered then.
struct Harm {
    what: &'static str,
    /// `$L` is the host's end of the container `web`, `$V4` and `$V6` are its addresses.
    script: &'static str,
    unanswered: fn(&Container) -> Option<(At<'static>, String)>,
    /// How many links `net-reload` connects again.
    connected: u32,
    /// net-attach looks at ways, links and rules alone.
    mends: &'static [&'static str],
}

const BOTH: &[&str] = &["net-reload", "net-attach -q web two"];

const HARMS: [Harm; 9] = [
    Harm {
        what: "rules",
        script: "nft flush ruleset",
        unanswered: |_| Some((At::Host, "203.0.113.1:8080".into())),
        connected: 0,
        mends: BOTH,
    },
    Harm {
        what: "routes",
        script: "ip route del $V4; ip -6 route del $V6",
        unanswered: |web| Some((At::Host, format!("[{}]:80", web.v6))),
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "neighbours",
        script: "ip neigh replace $V4 dev $L lladdr 02:00:00:00:00:99; ip neigh replace $V6 dev $L lladdr 02:00:00:00:00:99",
        unanswered: |web| Some((At::Host, format!("{}:80", web.v4))),
        connected: 0,
        mends: &["net-reload"],
    },
    Harm {
        what: "a link that is down",
        script: "ip link set $L down",
        unanswered: |web| Some((At::Host, format!("{}:80", web.v4))),
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "a link of another group",
        script: "ip link set $L group 0",
        unanswered: |_| Some((At::Host, "127.0.0.1:8080".into())),
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "a link on somebody's bridge",
        script: "ip link add theirs type bridge; ip link set theirs up; ip link set $L master theirs",
        unanswered: |_| None,
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "a device that is down",
        script: "ip link set apart0 down",
        unanswered: |_| None,
        connected: 0,
        mends: &["net-reload"],
    },
    Harm {
        what: "a device that is gone",
        script: "ip link del apart0",
        unanswered: |web| Some((web.at(), "10.90.0.1:81".into())),
        connected: 2,
        mends: BOTH,
    },
    Harm {
        what: "loopback's way",
        script: "echo 0 >/proc/sys/net/ipv4/conf/$L/route_localnet; echo 0 >/proc/sys/net/ipv4/conf/apart0/route_localnet",
        unanswered: |_| Some((At::Host, "127.0.0.1:8080".into())),
        connected: 0,
        mends: BOTH,
    },
];

#[test]
fn what_is_lost_is_made_again() {
    let Some((bench, outside)) = machine() else { return };
    create(&bench, "apart", 90, "--driver routed --device apart0");
    let web = run(&bench, "web", "--network apart -p 8080:80 -p 8080:80/udp");
    let two = run(&bench, "two", "--network apart");
    let mut servers = Servers::new();
    servers.serve(web.at(), 80, "web");
    servers.serve(At::Host, 81, "host");
    servers.serve(At::Outside(&outside), 82, "outside");
    let whole = |what: &str| {
        let mut calls = both(At::Outside(&outside), &ours(8080), &pair("web 203.0.113.2", "web 2001:db8::2"));
        calls.push(Call::new(At::Host, "tcp", "127.0.0.1:8080", "web 10.90.0.1"));
        calls.extend(both(At::Host, &web.places(80), &by_gateway("web", 90)));
        calls.extend(both(two.at(), &web.places(80), &two.seen("web")));
        calls.extend(both(two.at(), &gateways(90, 81), &two.seen("host")));
        calls.extend(both(web.at(), &theirs(82), &pair("outside 203.0.113.1", "outside 2001:db8::1")));
        check(what, &calls);
        let told = bench.sh("ctr-exec two nslookup -type=a web").stdout;
        assert!(told.contains(&web.v4), "{what}: {told}");
    };
    whole("at first");
    let link = bench.sh("ctr-inspect web | jq -r '.networks[0].host_interface'").expect(0).stdout;
    let with = format!("L={}; V4={}; V6={}", link.trim(), web.v4, web.v6);
    for harm in HARMS {
        for mend in harm.mends {
            let what = format!("{}, then {mend}", harm.what);
            bench.sh(&format!("set -e; {with}; {}", harm.script)).expect(0);
            if let Some((from, to)) = (harm.unanswered)(&web) {
                check(&format!("{}, before it is mended", harm.what), &[Call::new(from, "tcp", &to, "")]);
            }
            let mended = bench.sh(mend).expect(0);
            if *mend == "net-reload" {
                assert_eq!(
                    mended.json()["reloaded"]["connected"],
                    harm.connected,
                    "{what}: {}",
                    mended.stdout
                );
                let again = bench.sh(mend).expect(0).json();
                let counts = [&again["reloaded"]["connected"], &again["reloaded"]["published"]];
                assert_eq!(counts, [&json!(0), &json!(0)], "{what}: {again}");
            }
            whole(&what);
            bench.sh("ip link del theirs 2>/dev/null; true").expect(0);
        }
    }
    // What is inside is made again by who attaches it.
    bench.sh(&format!("{with}; ip link del $L")).expect(0);
    bench.sh("net-reload -q").expect(0);
    check("without a link", &shut(At::Host, &web.places(80)));
    bench.sh("net-attach -q web").expect(0);
    assert_eq!(look(&bench, "web").v4, web.v4);
    whole("a link that was gone");
    bench.sh("ctr-rm -q -f web two && net-rm -q apart").expect(0);
    assert_eq!(bench.sh("nft list tables; ip -br link | grep -E '^(stv|apart0)' || true").stdout, "");
}

#[test]
fn an_edited_network_holds_for_those_that_are_there() {
    let Some((bench, outside)) = machine() else { return };
    create(&bench, "apart", 90, ROUTED);
    create(&bench, "bridged", 91, "");
    let web = run(&bench, "web", "--network apart -p 8080:80 -p 8080:80/udp");
    let two = run(&bench, "two", "--network apart");
    let bridged = run(&bench, "bridged", "--network bridged");
    let mut servers = Servers::new();
    servers.serve(web.at(), 80, "web");
    servers.serve(At::Outside(&outside), 82, "outside");
    let mut speaker = outside
        .command("socat")
        .args(["TCP-LISTEN:9000,fork,reuseaddr", "SYSTEM:while echo tick; do sleep 0.05; done"])
        .spawn()
        .expect("run socat");
    let hear = "while :; do nc 203.0.113.2 9000; sleep 0.1; done";
    bench.sh(&format!("ctr-run -q -d --name listener --network apart $R/busybox:1 sh -c '{hear}'")).expect(0);
    let heard = || bench.sh("ctr-logs listener").expect(0).stdout.lines().count();
    wait_until("the listener to hear", || heard() > 3);
    // Which of: a neighbour, the way out, a bridge's container at the port, and somebody outside there.
    for (edit, open) in [
        (".internal = true", [true, false, false, false]),
        (".internal = false", [true, true, true, true]),
        (".isolate = true", [true, true, false, true]),
        (".isolate = false | .no_icc = true", [false, true, true, true]),
        (".no_icc = false", [true, true, true, true]),
    ] {
        edit_network(&bench, "apart", edit);
        bench.sh("net-reload -q apart").expect(0);
        let answers = |place: usize, answers: [String; 2]| if open[place] { answers } else { pair("", "") };
        let mut calls = both(two.at(), &web.places(80), &answers(0, two.seen("web")));
        calls.extend(both(
            web.at(),
            &theirs(82),
            &answers(1, pair("outside 203.0.113.1", "outside 2001:db8::1")),
        ));
        calls.extend(both(bridged.at(), &ours(8080), &answers(2, by_gateway("web", 90))));
        calls.extend(both(
            At::Outside(&outside),
            &ours(8080),
            &answers(3, pair("web 203.0.113.2", "web 2001:db8::2")),
        ));
        check(edit, &calls);
        if edit.contains("internal = true") {
            // What was connected before is not any more.
            wait_until("silence", || {
                let before = heard();
                std::thread::sleep(Duration::from_millis(500));
                heard() == before
            });
        }
    }
    let _ = speaker.kill();
    let _ = speaker.wait();
    bench.sh("ctr-rm -q -f web two bridged listener && net-rm -q apart bridged").expect(0);
}
