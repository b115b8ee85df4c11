//! Networks of driver `routed` with real traffic: who reaches whom and as whom it is seen, over both families.

mod life;
mod lost;
mod reach;

use pipelines::calls::{At, Call};
use pipelines::engine::have;
use pipelines::{Bench, OtherHost, ip};

/// A machine of one's own with another host beside it, 203.0.113.2 and 2001:db8::2, which asks us for all containers.
fn machine() -> Option<(Bench, OtherHost)> {
    let bench = Bench::new()?;
    if !have(&["nft", "jq", "curl", "socat"]) {
        return None;
    }
    let outside = OtherHost::new();
    ip("address add 2001:db8::1/64 dev up0 nodad");
    At::Outside(&outside)
        .sh("set -e; ip address add 2001:db8::2/64 dev eth0 nodad
             ip route add 10.0.0.0/8 via 203.0.113.1; ip route add fd00::/8 via 2001:db8::1")
        .expect(0);
    Some((bench, outside))
}

/// Makes a network of both families: 10.N.0.0/24 and fd00:N::/64.
fn create(bench: &Bench, name: &str, number: u8, flags: &str) {
    bench
        .sh(&format!("net-create -q --subnet 10.{number}.0.0/24 --subnet fd00:{number}::/64 {flags} {name}"))
        .expect(0);
}

const ROUTED: &str = "--driver routed";

/// A container that runs, and its addresses on the first of its networks.
#[derive(Clone, Debug)]
struct Container {
    pid: u32,
    v4: String,
    v6: String,
}

impl Container {
    fn at(&self) -> At<'static> {
        At::Inside(self.pid)
    }

    /// Its addresses, each with a port.
    fn places(&self, port: u16) -> [String; 2] {
        [format!("{}:{port}", self.v4), format!("[{}]:{port}", self.v6)]
    }

    /// What a server says to whom it sees by this container's addresses.
    fn seen(&self, word: &str) -> [String; 2] {
        [format!("{word} {}", self.v4), format!("{word} {}", self.v6)]
    }
}

/// Of what `ctr-inspect` prints.
fn look(bench: &Bench, name: &str) -> Container {
    let told = bench.sh(&format!("ctr-inspect {name}")).expect(0).json();
    let address = |number: usize| {
        let text = told["networks"][0]["addresses"][number].as_str().unwrap_or_default();
        text.split('/').next().unwrap_or_default().to_owned()
    };
    let pid = told["container"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    Container { pid: pid.unwrap_or_else(|| panic!("{told}")), v4: address(0), v6: address(1) }
}

fn run(bench: &Bench, name: &str, flags: &str) -> Container {
    bench.sh(&format!("ctr-run -q -d --name {name} {flags} $R/busybox:1 sleep 1000000")).expect(0);
    look(bench, name)
}

/// The same call by both protocols to two places, of IPv4 and IPv6; an answer for each.
fn both<'a>(from: At<'a>, to: &[String; 2], answers: &[String; 2]) -> Vec<Call<'a>> {
    let calls = to.iter().zip(answers);
    calls
        .flat_map(|(to, answer)| ["tcp", "udp"].map(|protocol| Call::new(from, protocol, to, answer)))
        .collect()
}

fn by_tcp(mut calls: Vec<Call<'_>>) -> Vec<Call<'_>> {
    calls.retain(|call| call.protocol == "tcp");
    calls
}

fn shut<'a>(from: At<'a>, to: &[String; 2]) -> Vec<Call<'a>> {
    both(from, to, &[String::new(), String::new()])
}

fn pair(v4: &str, v6: &str) -> [String; 2] {
    [v4.to_owned(), v6.to_owned()]
}

/// The gateways of network N, each with a port.
fn gateways(number: u8, port: u16) -> [String; 2] {
    [format!("10.{number}.0.1:{port}"), format!("[fd00:{number}::1]:{port}")]
}

/// What is said to whom is seen by the gateways' addresses of network N.
fn by_gateway(word: &str, number: u8) -> [String; 2] {
    [format!("{word} 10.{number}.0.1"), format!("{word} fd00:{number}::1")]
}

fn ours(port: u16) -> [String; 2] {
    [format!("203.0.113.1:{port}"), format!("[2001:db8::1]:{port}")]
}

fn theirs(port: u16) -> [String; 2] {
    [format!("203.0.113.2:{port}"), format!("[2001:db8::2]:{port}")]
}

/// All that a network makes on the host.
fn on_the_host(bench: &Bench) -> Vec<String> {
    let all = "ip -br link | cut -d' ' -f1; for family in -4 -6; do ip $family route; ip $family neigh show nud permanent; ip $family rule; done; nft list ruleset";
    let told = bench.sh(all).expect(0).stdout;
    told.lines().filter(|line| !line.contains("up0")).map(str::to_owned).collect()
}

fn edit_network(bench: &Bench, name: &str, edit: &str) {
    let file = format!("$STAVES_ROOT/networks/{name}/network.json");
    bench.sh(&format!("f={file}; jq '{edit}' $f >$f.new && mv $f.new $f")).expect(0);
}
