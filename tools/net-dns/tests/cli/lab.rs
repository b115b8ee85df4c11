//! A host of its own for each test: a bridge, containers that are no more than network namespaces on it, name servers of others.

// A test says aloud that it is skipped.
#![allow(clippy::print_stderr)]

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Lease, Store};
use testkit::{Place, Ran, die_with_parent, ip};

/// The container that has all the addresses.
const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const INSIDE: &str = "STAVES_TEST_INSIDE";

/// Runs a test in namespaces of its own, by starting this program again for that test alone.
pub fn isolated(test: &str, body: fn(&mut Lab)) {
    if std::env::var_os(INSIDE).is_some() {
        body(&mut Lab::new());
        return;
    }
    if !testkit::is_root() {
        testkit::skip(&format!("{test}: network namespaces take root"));
        return;
    }
    for program in ["unshare", "nsenter", "ip", "dig", "setpriv"] {
        if testkit::find_program(program).is_none() {
            testkit::skip(&format!("{test}: {program} is not installed"));
            return;
        }
    }
    let status = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "--",
        ])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
}

pub struct Lab {
    pub place: Place,
    pub store: Store,
    containers: Vec<Child>,
}

/// A network namespace on the bridge.
#[derive(Clone, Copy)]
pub struct Container {
    pub pid: u32,
}

impl Lab {
    fn new() -> Lab {
        let place = Place::new();
        let store = Store::at(place.root(), place.run());
        ip("link set lo up");
        ip("link add staves1 type bridge");
        ip("address add 10.90.0.1/24 dev staves1");
        ip("address add fd00:90::1/64 dev staves1 nodad");
        ip("link set staves1 up");
        let lab = Lab { place, store, containers: Vec::new() };
        lab.resolv_conf("nameserver 192.0.2.53\n");
        let mounted = Command::new("mount")
            .arg("--bind")
            .args([&lab.host_file(), Path::new("/etc/resolv.conf")])
            .status();
        assert!(mounted.unwrap().success(), "mount over /etc/resolv.conf");
        lab.define(&serde_json::json!({}));
        lab
    }

    fn host_file(&self) -> PathBuf {
        self.place.path().join("resolv.conf")
    }

    /// The host's.
    pub fn resolv_conf(&self, text: &str) {
        std::fs::write(self.host_file(), text).unwrap();
    }

    /// The network `shop`, with these members beside or instead of the usual ones.
    pub fn define(&self, members: &serde_json::Value) {
        let mut network = serde_json::json!({"name":"shop","driver":"bridge","device":"staves1",
            "subnets":[{"subnet":"10.90.0.0/24"},{"subnet":"fd00:90::/64"}],"dns":{"enabled":true}});
        let name = members["name"].as_str().unwrap_or("shop").to_owned();
        for (name, value) in members.as_object().unwrap() {
            network[name] = value.clone();
        }
        let dir = self.store.network_dir(&name);
        self.store.make_dir(&dir).unwrap();
        store::atomic::write(&dir.join("network.json"), network.to_string().as_bytes(), 0o600).unwrap();
    }

    /// A container with an address of each family.
    pub fn container(&mut self, last: u8) -> Container {
        let holder = die_with_parent("unshare").args(["--net", "sleep", "1000000"]).spawn().unwrap();
        let pid = holder.id();
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_until("a namespace", || {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs != ours)
        });
        self.containers.push(holder);
        ip(&format!("link add v{last} master staves1 type veth peer name eth0 netns {pid}"));
        ip(&format!("link set v{last} up"));
        let container = Container { pid };
        let script = format!(
            "ip link set lo up; ip address add 10.90.0.{last}/24 dev eth0; ip address add fd00:90::{last}/64 dev eth0 nodad
             ip link set eth0 up; ip route add default via 10.90.0.1"
        );
        self.inside(container, "sh", &["-ec", &script]).expect(0);
        container
    }

    pub fn inside(&self, container: Container, program: &str, arguments: &[&str]) -> Ran {
        let mut command = self.place.command("nsenter");
        command.args(["-t", &container.pid.to_string(), "-n", program]).args(arguments);
        Ran::of(&mut command)
    }

    /// Takes an address for these names, in the place of what it was leased for.
    pub fn lease(&self, address: &str, names: &[&str]) {
        self.lease_with(address, names, &[]);
    }

    pub fn lease_with(&self, address: &str, names: &[&str], dns: &[&str]) {
        self.lease_on("shop", address, names, dns);
    }

    pub fn lease_on(&self, network: &str, address: &str, names: &[&str], dns: &[&str]) {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let lease = Lease {
            container: ID.into(),
            interface: "eth0".into(),
            names: text(names),
            dns: text(dns),
            ..Lease::default()
        };
        let leases = self.store.leases(network).unwrap();
        let address: IpAddr = address.parse().unwrap();
        if !leases.take(&self.store, address, &lease).unwrap() {
            leases.rewrite(address, &lease).unwrap();
        }
    }

    /// The container everything is leased to has these attachments, as net-attach writes them.
    pub fn attached(&self, networks: &serde_json::Value) {
        let bundle = self.store.container_dir(ID).bundle;
        self.store.make_dir(&bundle).unwrap();
        let record = serde_json::json!({"staves":1,"container":{"id":ID,"name":"web"},"networks":networks});
        let record = record::Record::parse(&record.to_string()).unwrap();
        self.store.container_dir(ID).save(&record).unwrap();
    }

    pub fn release(&self, address: &str) {
        self.store.leases("shop").unwrap().remove(address.parse().unwrap()).unwrap();
    }

    /// Has the resolver run.
    pub fn start(&self) {
        Ran::of(self.place.command("net-dns").arg("shop")).expect(0);
    }

    fn lock(&self) -> PathBuf {
        self.lock_of("shop")
    }

    fn lock_of(&self, network: &str) -> PathBuf {
        self.store.run().join("networks").join(network).join("dns.lock")
    }

    pub fn runs(&self) -> bool {
        self.runs_on("shop")
    }

    pub fn runs_on(&self, network: &str) -> bool {
        store::Lock::is_held(&self.lock_of(network))
    }

    /// Process id of the resolver.
    pub fn resolver(&self) -> i32 {
        std::fs::read_to_string(self.lock()).unwrap().trim().parse().unwrap()
    }

    /// What dig says with these words, in lines.
    pub fn dig(&self, container: Container, words: &str) -> String {
        let mut arguments = vec!["+tries=1", "+time=8"];
        arguments.extend(words.split(' '));
        if !words.contains('@') {
            arguments.push("@10.90.0.1");
        }
        self.inside(container, "dig", &arguments).stdout
    }

    /// The answers alone, sorted.
    pub fn short(&self, container: Container, words: &str) -> Vec<String> {
        let mut lines: Vec<String> =
            self.dig(container, &format!("+short {words}")).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// `NOERROR`, `NXDOMAIN` …; what dig says of itself where there is no answer.
    pub fn status(&self, container: Container, words: &str) -> String {
        let said = self.dig(container, words);
        let status = said.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        status.map_or_else(|| said.clone(), str::to_owned)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(pid) = std::fs::read_to_string(self.lock()).ok().and_then(|text| text.trim().parse().ok())
            && self.runs()
        {
            kill(pid);
        }
        for container in &mut self.containers {
            let _ = container.kill();
            let _ = container.wait();
        }
        let _ = Command::new("umount").arg("/etc/resolv.conf").stderr(Stdio::null()).status();
    }
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(90), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A name server of somebody else, on an address of loopback's. `web.example` has an address that tells which server said so.
pub struct Upstream {
    /// What it was asked, as `udp web.example. A`.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    pub fn new(address: &str) -> Upstream {
        let family = if address.contains(':') { "128" } else { "32" };
        ip(&format!("address add {address}/{family} dev lo"));
        let address: IpAddr = address.parse().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        // One whose address has just been made may be unsure of it.
        let mut bound = None;
        wait_until("a name server's address", || {
            bound = UdpSocket::bind((address, 53)).ok();
            bound.is_some()
        });
        let udp = bound.unwrap();
        let tcp = TcpListener::bind((address, 53)).unwrap();
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut packet = vec![0; 65535];
            while let Ok((length, from)) = udp.recv_from(&mut packet) {
                for answer in answers(&packet[..length], false, last, &notes) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut packet = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut packet).unwrap();
                for answer in answers(&packet, true, last, &notes) {
                    let _ = stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes());
                    let _ = stream.write_all(&answer);
                }
            }
        });
        Upstream { asked }
    }

    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// What is sent back: mostly one message.
fn answers(packet: &[u8], tcp: bool, last: u8, notes: &Mutex<Vec<String>>) -> Vec<Vec<u8>> {
    let Ok(query) = Message::from_vec(packet) else { return Vec::new() };
    let asked: Query = query.queries[0].clone();
    let name = asked.name().to_string().to_ascii_lowercase();
    let edns = if query.edns.is_some() { " edns" } else { "" };
    notes.lock().unwrap().push(format!(
        "{} {name} {}{edns}",
        if tcp { "tcp" } else { "udp" },
        asked.query_type()
    ));
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.edns.clone_from(&query.edns);
    let owner = asked.name().clone();
    let record = |n: u8| Record::from_rdata(owner.clone(), 60, RData::A(A(Ipv4Addr::new(198, 51, 100, n))));
    answer.add_query(asked.clone());
    match name.as_str() {
        "silent.example." => return Vec::new(),
        // The second time only.
        "lost.example." if notes.lock().unwrap().len() < 2 => return Vec::new(),
        "fails.example." if last == 53 => answer.metadata.response_code = ResponseCode::ServFail,
        "refused.example." if last == 53 => answer.metadata.response_code = ResponseCode::Refused,
        "broken.example." => answer.metadata.response_code = ResponseCode::ServFail,
        "nowhere.example." => answer.metadata.response_code = ResponseCode::NXDomain,
        "big.example." if !tcp => answer.metadata.truncation = true,
        "big.example." => answer.answers = (0..200).map(record).collect(),
        "alias.example." => {
            let target = Name::from_ascii("web.example.").unwrap();
            answer.add_answer(Record::from_rdata(owner.clone(), 60, RData::CNAME(CNAME(target.clone()))));
            answer.add_answer(Record::from_rdata(target, 60, RData::A(A(Ipv4Addr::new(198, 51, 100, last)))));
        }
        _ => {
            answer.add_answer(record(last));
        }
    }
    let good = answer.to_vec().unwrap();
    if name != "forged.example." {
        return vec![good];
    }
    // Somebody guesses: another number, another question, a question instead of an answer.
    let mut number = good.clone();
    number[0] ^= 1;
    let mut question = good.clone();
    question[13] ^= 1;
    let mut not_an_answer = good.clone();
    not_an_answer[2] &= 0x7f;
    vec![number, question, not_an_answer, vec![1, 2, 3], Vec::new(), good]
}
