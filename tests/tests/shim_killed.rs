//! `ctr-shim` killed with SIGKILL under a container in each of its states. The container is listed with what is true of it, can be
//! stopped, started again and removed, and nothing of it is left.

use pipelines::{Bench, Leftovers, Ran, wait_until};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One container, `c`.
struct Case {
    bench: Bench,
    leftovers: Leftovers,
    // Processes are recognised as descendants of this one, so tests that share it take turns (nextest gives each its own).
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Case {
    fn new() -> Option<Case> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let bench = Bench::new()?;
        bench
            .sh("img-pull $R/busybox:1 | img-unpack >$DIR/image; ctr-run --rm -p 8080:80 $R/busybox:1 true")
            .expect(0);
        bench.sh("net-prune").expect(0);
        Some(Case { bench, leftovers: Leftovers::new(), _turn: turn })
    }

    /// Once for each of the ways there are to go on from a killed shim: `set_up` makes the container and brings it where it is to
    /// be; `status` and `exit_code` are what is true of it afterwards.
    #[track_caller]
    fn go(&mut self, set_up: &str, status: &str, exit_code: Option<i32>) {
        for way in [
            "ctr-rm -q -f c",
            "ctr-stop -q -t 1 c && ctr-rm -q c",
            "ctr-stop -q -t 1 c && ctr-start -q c && [ $(jq -r .container.status <<<$(ctr-inspect c)) = running ] && ctr-exec c true && ctr-rm -q -f c",
            "ctr-start -q c; ctr-rm -q -f c",
            "ctr-restart -q -t 1 c && ctr-exec c true && ctr-rm -q -f c",
            // As when another tool looks at it or clears it up at the same time, which needs its shim's lock.
            "flock -x $STAVES_RUN/containers/*/lock sh -c 'echo >$DIR/held; sleep 0.3' & until [ -e $DIR/held ]; do sleep 0.01; done; \
             rm $DIR/held; ctr-stop -q -t 0 c && ctr-start -q c && \
             [ $(jq -r .container.status <<<$(ctr-inspect c)) = running ] && ctr-exec c true && wait && ctr-rm -q -f c",
            "flock -s $STAVES_RUN/containers/*/lock sleep 0.3 & sleep 0.1; ctr-start -q c; ctr-rm -q -f c; wait",
            "ctr-ls --all -q | xargs ctr-stop -q -t 1 && ctr-prune -q -f --created",
        ] {
            self.bench.sh(set_up).expect(0);
            self.leftovers.note_ids(&self.bench.place);
            self.kill_shim();
            wait_until(&format!("{status}: {way}"), || self.value(".container.status") == status);
            let wanted = exit_code.map_or("null".to_owned(), |code| code.to_string());
            assert_eq!(self.value(".container.exit_code"), wanted, "{set_up}");
            let runs = matches!(status, "running" | "paused");
            assert_eq!(self.value(".container.pid") != "null", runs, "{set_up}");
            let listed = self.sh("ctr-ls -q").stdout;
            assert_eq!(!listed.is_empty(), runs, "{set_up}: {listed}");
            self.sh("ctr-ls --all --output table && ctr-logs c >/dev/null && ctr-inspect c >/dev/null");
            self.sh(way);
            self.gone(way);
        }
    }

    #[track_caller]
    fn sh(&self, script: &str) -> Ran {
        self.bench.sh(script).expect(0)
    }

    /// A member of the container's record, as jq writes it.
    #[track_caller]
    fn value(&self, member: &str) -> String {
        self.sh(&format!("ctr-inspect --output json c | jq -r '{member}'")).stdout.trim().to_owned()
    }

    fn kill_shim(&self) {
        self.sh("pid=$(jq .shim_pid $STAVES_RUN/containers/*/state.json); kill -9 $pid; while kill -0 $pid 2>/dev/null && \
                 [ $(awk '{print $3}' /proc/$pid/stat) != Z ]; do sleep 0.01; done");
    }

    #[track_caller]
    fn gone(&mut self, after: &str) {
        self.leftovers.note_ids(&self.bench.place);
        self.sh("net-prune");
        let mut found = Vec::new();
        // Processes that were told to end may take a moment.
        for _ in 0..500 {
            found = self.leftovers.find(&self.bench.place);
            if found.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("after {after}, left behind:\n{}", found.join("\n"));
    }
}

/// Runs it in the background as `c`.
fn run(flags: &str, command: &str) -> String {
    format!("ctr-create --name c {flags} -- {command} <$DIR/image | net-attach | ctr-start -q")
}

#[test]
fn waiting_to_be_started() {
    let Some(mut case) = Case::new() else { return };
    case.go("ctr-create -q --name c -- sleep 1000 <$DIR/image", "created", None);
}

#[test]
fn waiting_to_be_started_and_attached() {
    let Some(mut case) = Case::new() else { return };
    case.go("ctr-create --name c -- sleep 1000 <$DIR/image | net-attach -q -p 8080:80", "created", None);
}

/// A process takes a while to die on a busy machine. Until then its container must not seem to be looked after.
#[test]
fn what_waits_to_be_started_holds_neither_the_shims_lock_nor_its_socket() {
    let Some(mut case) = Case::new() else { return };
    case.sh(
        // Flags of 10000 are a listening socket's (proc_net(5)).
        "set -e; ctr-create -q --name c -- sleep 1000 <$DIR/image; state=$(cat $STAVES_RUN/containers/*/state.json)
         held() { ls -l /proc/$(jq .$1 <<<$state)/fd | grep -oE '/lock$|socket:.*' | sort; }
         listening() { for inode in $(awk '$4 == \"00010000\" {print $7}' /proc/net/unix); do echo socket:[$inode]; done | sort; }
         [ $(held shim_pid | grep -c lock) = 1 ]; [ $(comm -12 <(held shim_pid) <(listening) | wc -l) = 1 ]
         [ $(held pid | grep -c socket) != 0 ]; [ -z $(held pid | grep lock) ]; [ -z $(comm -12 <(held pid) <(listening)) ]",
    );
    case.sh("ctr-rm -q -f c");
    case.gone("looking at its descriptors");
}

#[test]
fn running() {
    let Some(mut case) = Case::new() else { return };
    case.go(&run("", "sleep 1000"), "exited", Some(137));
}

#[test]
fn running_with_ports_volumes_and_children() {
    let Some(mut case) = Case::new() else { return };
    let command = "sh -c 'sleep 999 & setsid sleep 998 & httpd -f -p 80'";
    case.go(&run("-p 8080:80 -p 127.0.0.1:5300:53/udp -v /data --tmpfs /t", command), "exited", Some(137));
}

#[test]
fn running_at_a_terminal_with_a_read_only_root() {
    let Some(mut case) = Case::new() else { return };
    case.go(&run("-t -i --read-only --init", "sleep 1000"), "exited", Some(137));
}

#[test]
fn running_in_the_machines_process_namespace() {
    let Some(mut case) = Case::new() else { return };
    case.go(&run("--pid host", "sh -c 'sleep 999 & exec sleep 1000'"), "exited", Some(137));
}

#[test]
fn running_in_a_user_namespace() {
    let Some(mut case) = Case::new() else { return };
    case.go(&run("--userns auto", "sleep 1000"), "exited", Some(137));
}

#[test]
fn paused() {
    let Some(mut case) = Case::new() else { return };
    case.go(
        &format!("{}; ctr-pause -q c", run("-p 8080:80", "sh -c 'sleep 999 & exec sleep 1000'")),
        "exited",
        Some(137),
    );
}

#[test]
fn in_back_off_between_two_runs() {
    let Some(mut case) = Case::new() else { return };
    // Until the wait is long enough (1.6 s) to be met in it on a busy machine, too.
    let script = "sh -c 'n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) >/n; [ $n -ge 5 ] && exec sleep 1000; exit 3'";
    let waits = "until [ $(jq -r .status $STAVES_RUN/containers/*/state.json) = restarting ] && \
                 [ $(jq -r .restart_count $STAVES_RUN/containers/*/state.json) -ge 5 ]; do sleep 0.01; done";
    case.go(&format!("{} && {waits}", run("--restart always", script)), "exited", Some(3));
}

#[test]
fn during_a_health_check() {
    let Some(mut case) = Case::new() else { return };
    // The check's process is a child of the shim, and its zombie keeps the container's process namespace: not here, where nobody waits.
    nix::sys::prctl::set_child_subreaper(false).expect("leave orphans to the machine");
    let waits = "until ctr-top c | grep -q 'sleep 77'; do sleep 0.01; done";
    let flags = "--health-cmd 'sleep 77' --health-interval 10ms --health-timeout 100s";
    case.go(&format!("{} && {waits}", run(flags, "sleep 1000")), "exited", Some(137));
}

#[test]
fn removing_itself_at_its_end() {
    let Some(mut case) = Case::new() else { return };
    case.go(&run("--rm -v /data -p 8080:80", "sleep 1000"), "exited", Some(137));
}

/// The parent-death signal is lost when a process becomes another user, as servers do that begin as root.
const OTHER_USER: &str = "su app -s /bin/sh -c 'echo changed; while :; do sleep 0.1; done'";

#[test]
fn a_container_that_survives() {
    let Some(mut case) = Case::new() else { return };
    let survives =
        format!("{}; until ctr-logs c | grep -q changed; do sleep 0.05; done", run("-p 8080:80", OTHER_USER));
    case.go(&survives, "running", None);
    case.go(&format!("{survives}; ctr-pause -q c"), "paused", None);
    // Everything that needs no shim can be done to it; what does says so.
    case.sh(&survives);
    case.kill_shim();
    case.sh("ctr-exec c true && ctr-top c >/dev/null && ctr-stats --no-stream c >/dev/null && ctr-logs -f c >/dev/null");
    case.sh(
        "[ \"$(ctr-port c 80)\" != '' ] && echo hi >$DIR/f && ctr-cp -q $DIR/f c:/f && ctr-exec c cat /f",
    );
    case.sh("ctr-pause -q c");
    assert_eq!(case.value(".container.status"), "paused");
    case.sh("ctr-unpause -q c");
    assert_eq!(case.value(".container.status"), "running");
    for tool in ["ctr-attach c", "ctr-update -m 64m c"] {
        let ran = case.bench.sh(tool);
        assert!(ran.status != 0 && ran.stderr.contains("shim was killed"), "{tool}: {}", ran.stderr);
    }
    // Whoever clears away has a store of its own, and does not know it.
    case.sh("STAVES_ROOT=$DIR/other/root STAVES_RUN=$DIR/other/run ctr-prune -q -f && ctr-exec c true");
    // Nobody takes its address or its port away.
    case.sh("net-prune && ctr-prune -q -f && ctr-exec c ip address | grep -q 10.89.");
    assert_eq!(case.bench.sh("ctr-run --rm -p 8080:80 $R/busybox:1 true").status, 125);
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| case.bench.sh("ctr-wait c"));
        case.bench.sh("sleep 0.3; ctr-kill -q c").expect(0);
        waiting.join().unwrap()
    });
    assert_eq!(waiting.status, 137, "{}", waiting.stderr);
    case.sh("ctr-rm -q c");
    case.gone("ctr-kill");
}

/// Copying shares the lock of a container that does not run, and clearing away has it alone: for longer than it takes to start one.
#[test]
fn started_while_others_have_the_lock() {
    let Some(mut case) = Case::new() else { return };
    case.sh(&run("", "true"));
    case.sh("ctr-wait c");
    for how in ["-s", "-x"] {
        case.sh(&format!(
            "flock {how} $STAVES_RUN/containers/*/lock sh -c 'echo >$DIR/held; sleep 1.5' & until [ -e $DIR/held ]; do sleep 0.01; done; \
             rm $DIR/held; ctr-start -q c && wait && ctr-wait c"
        ));
    }
    case.leftovers.note_ids(&case.bench.place);
    case.sh("ctr-rm -q -f c");
    case.gone("ctr-start");
}

/// A process calls itself what it likes, also what is no text.
#[test]
fn a_container_that_survives_under_an_odd_name() {
    let Some(mut case) = Case::new() else { return };
    let command =
        r#"su app -s /bin/sh -c 'printf "a\377) Z" >/proc/1/comm; echo named; while :; do sleep 0.1; done'"#;
    let set_up =
        format!("{}; until ctr-logs c | grep -q named; do sleep 0.05; done", run("-p 8080:80", command));
    case.sh(&set_up);
    case.sh(
        "ctr-exec c true && ctr-inspect c | net-attach -q -p 8081:81 && ctr-stop -q -t 0 c && ctr-rm -q c",
    );
    case.go(&set_up, "running", None);
}

/// Stopping and the like while the shim is being killed.
#[test]
fn killed_under_a_request() {
    let Some(mut case) = Case::new() else { return };
    for (verb, wanted) in
        [("ctr-stop -q -t 1 c", "exited"), ("ctr-kill -q c", "exited"), ("ctr-restart -q -t 1 c", "running")]
    {
        for delay in 0..15 {
            case.sh(&run("", "sleep 1000"));
            case.sh(&format!(
                "pid=$(jq .shim_pid $STAVES_RUN/containers/*/state.json); (sleep 0.00{delay:02}; kill -9 $pid 2>/dev/null) & \
                 {verb}; status=$?; wait; case '{verb}' in ctr-kill*) [ $status = 5 ] && exit 0 ;; esac; exit $status"
            ));
            // A restart may have been done before it was killed.
            let status = case.value(".container.status");
            assert!(status == wanted || wanted == "running", "{verb}: {status}");
            case.leftovers.note_ids(&case.bench.place);
            case.sh("ctr-rm -q -f c");
        }
        case.gone(verb);
    }
}
