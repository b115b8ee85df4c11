//! Real programs in images of their own, made by `tests/fixtures/make-programs`, which tells what is in them.

use std::process::{Command, Stdio};
use testkit::{Place, Ran, is_root, own_network, profile_dir, project, skip, target_dir, wait_until};

/// `OVERLAYFS_SUPER_MAGIC` (statfs(2)).
const OVERLAYFS: i64 = 0x794c_7630;

/// A place with all of these images in its store, on a machine of one's own as far as the network goes. `None`, said aloud, where
/// that cannot be. The images are made now if nobody did yet, which takes a minute and the network.
pub fn place() -> Option<Place> {
    if !is_root() {
        skip("making images of programs takes root");
        return None;
    }
    // Before the network is left, where a Debian mirror is.
    let script = project().join("tests/fixtures/make-programs");
    let fixtures = target_dir().join("fixtures");
    let made = Ran::of(Command::new(&script).arg(&fixtures).arg(profile_dir()).stdin(Stdio::null()));
    if made.status == 77 {
        skip(&format!("no images of programs: {}", made.stderr.trim().lines().last().unwrap_or_default()));
        return None;
    }
    assert_eq!(made.status, 0, "{}:\n{}", script.display(), made.stderr);
    if !own_network() {
        return None;
    }
    let store = made.stdout.trim();
    // On the same file system, so that nothing is copied: what is in a store is never written to, only replaced. But no overlay is
    // mounted over files of another, which a virtual machine's root is; nor does that show whiteouts.
    let linked = rustix::fs::statfs(&fixtures).is_ok_and(|fs| fs.f_type != OVERLAYFS);
    let (place, copy) = if linked {
        (Place::below(&fixtures), format!("cp -al {store}/blobs {store}/layers $DIR/root/"))
    } else {
        (Place::new(), format!("cp -a {store}/blobs $DIR/root/"))
    };
    place
        .sh(&format!(
            "mkdir -p $DIR/root && {copy} && cp -a {store}/oci-layout {store}/index.json $DIR/root/"
        ))
        .expect(0);
    if !linked {
        place.sh("img-ls | img-unpack -q >/dev/null").expect(0);
    }
    Some(place)
}

/// A container with one of the programs.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    pub place: &'a Place,
    /// Name of the container.
    pub name: &'a str,
    pub image: &'a str,
    /// Flags of `ctr-run`.
    pub flags: &'a str,
    pub port: u16,
    /// What it writes when it is ready, and when it has ended as it should.
    pub ready: &'a str,
    pub ended: &'a str,
}

impl Program<'_> {
    /// In the background, until it is ready.
    #[track_caller]
    pub fn run(&self) {
        self.place.sh(&format!("ctr-run -q -d --name {} {} {}", self.name, self.flags, self.image)).expect(0);
        self.wait();
    }

    /// Until it listens, is healthy and says that it is ready, in this run of it.
    #[track_caller]
    pub fn wait(&self) {
        let Program { name, port, ready, .. } = self;
        let ran = self.place.sh(&format!(
            "ctr-wait -q --timeout 80s --for port:{port} --for healthy --for 'log:{ready}' {name}"
        ));
        assert_eq!(ran.status, 0, "{}\nlog:\n{}", ran.stderr, self.log());
    }

    /// What it has written, both streams.
    pub fn log(&self) -> String {
        self.place.sh(&format!("ctr-logs {} 2>&1", self.name)).stdout
    }

    /// A command in it; its output.
    #[track_caller]
    pub fn exec(&self, command: &str) -> String {
        self.place.sh(&format!("ctr-exec {} {command}", self.name)).expect(0).stdout
    }

    /// A member of its record.
    #[track_caller]
    pub fn tells(&self, member: &str) -> String {
        let ran = self.place.sh(&format!("ctr-inspect {} | jq -r '{member}'", self.name)).expect(0);
        ran.stdout.trim().to_owned()
    }

    /// Its address on the bridge.
    #[track_caller]
    pub fn address(&self) -> String {
        self.tells(".networks[0].addresses[0] | split(\"/\")[0]")
    }

    /// By the signal its image names: with status 0, because it wanted to, long before it would have been killed.
    #[track_caller]
    pub fn stop(&self) {
        let already = self.log().matches(self.ended).count();
        self.place.sh(&format!("ctr-stop -q -t 60 {}", self.name)).expect(0);
        let log = self.log();
        assert_eq!(log.matches(self.ended).count(), already + 1, "{log}");
        assert_eq!(self.tells(".container.exit_code"), "0", "{log}");
    }

    #[track_caller]
    pub fn start(&self) {
        self.place.sh(&format!("ctr-start -q {}", self.name)).expect(0);
        self.wait();
    }

    /// An image of it as it runs, with a file more, runs as it does. An archive of it has the program, `path`, and that file,
    /// and nothing of what is in its volume, `hidden`.
    #[track_caller]
    pub fn is_copied(&self, path: &str, hidden: &str) {
        let name = self.name;
        let place = self.place;
        place.sh(&format!("ctr-exec -u 0 {name} sh -c 'echo {name} >/srv/added'")).expect(0);
        place.sh(&format!("ctr-commit -q {name} {name}:committed")).expect(0);
        // The ports of the first are taken.
        let copy = format!("{name}-copy");
        let flags = self.flags.split_whitespace().filter(|flag| !flag.starts_with("-p=")).collect::<Vec<_>>();
        let other = Program {
            name: &copy,
            image: &format!("{name}:committed"),
            flags: &flags.join(" ").replace(&format!("{name}-data:"), ""),
            ..*self
        };
        other.run();
        assert_eq!(other.exec("cat /srv/added"), format!("{name}\n"));
        assert_ne!(other.address(), self.address());
        other.stop();
        other.remove();
        let listed = place.sh(&format!("ctr-export {name} | tar -t")).expect(0).stdout;
        let has = |path: &str| listed.lines().any(|line| line.trim_start_matches("./") == path);
        assert!(has(path) && has("srv/added"), "{path} or srv/added is not in the archive");
        assert!(!has(hidden), "{hidden}, in a volume, is in the archive");
    }

    /// Removed, with its anonymous volumes.
    #[track_caller]
    pub fn remove(&self) {
        self.place.sh(&format!("ctr-rm -f -v {}", self.name)).expect(0);
    }
}

/// What an HTTP server answers; waits for one that is not there yet.
#[track_caller]
pub fn fetched(url: &str) -> String {
    let mut answer = String::new();
    wait_until(url, || {
        let ran = Ran::of(Command::new("curl").args(["-sS", "--max-time", "20", "--noproxy", "*", url]));
        answer = ran.stdout;
        ran.status == 0
    });
    answer
}
