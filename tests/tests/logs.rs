//! What a container writes: whole, in order, to everybody who listens, and in its log.

use pipelines::{Bench, Ran, Terminal, wait_until};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

/// Bytes sent through each tool, in MiB.
fn megabytes() -> u64 {
    std::env::var("STAVES_LOG_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(64)
}

/// How many lines `seq` needs to fill so many MiB.
fn lines() -> u64 {
    megabytes() * 125_000
}

fn bench() -> Option<Bench> {
    let bench = Bench::new()?;
    bench.sh("img-pull $R/busybox:1 | img-unpack >$DIR/image").expect(0);
    Some(bench)
}

fn spawn(bench: &Bench, script: &str) -> Child {
    let mut command: Command = bench.place.command("bash");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("run bash")
}

fn ended(child: Child) -> Ran {
    let output = child.wait_with_output().expect("wait");
    Ran {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code().unwrap_or(-1),
    }
}

/// Rates go to stderr: `cargo nextest run --no-capture`.
#[expect(clippy::print_stderr, reason = "what is measured is for whoever asked to see it")]
fn timed(what: &str, act: impl FnOnce() -> Ran) -> Ran {
    let began = std::time::Instant::now();
    let ran = act();
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{what}: {} MiB in {seconds:.2} s, {:.0} MiB/s", megabytes(), megabytes() as f64 / seconds);
    ran
}

#[test]
fn every_byte_through_start_exec_and_logs() {
    let Some(bench) = bench() else { return };
    let size = megabytes() << 20;
    // The container says on stderr what it wrote to stdout.
    let write = format!("head -c {size} /dev/urandom >/tmp/f; sha256sum </tmp/f >&2; cat /tmp/f");
    let ran = timed("ctr-start --attach", || {
        bench.sh(&format!(
            "ctr-create --log-driver none -- sh -c '{write}' <$DIR/image | ctr-start --attach | sha256sum"
        ))
    });
    let ran = ran.expect(0);
    assert!(ran.stdout.len() > 64 && ran.stderr.contains(&ran.stdout), "{} {}", ran.stdout, ran.stderr);
    bench.sh("ctr-create --name box --log-driver none -- sleep 1000 <$DIR/image | ctr-start").expect(0);
    bench.sh(&format!("head -c {size} /dev/urandom >$DIR/file")).expect(0);
    let ran = timed("ctr-exec", || bench.sh("ctr-exec -i box cat <$DIR/file | cmp - $DIR/file"));
    ran.expect(0);
    // A log holds text.
    let seq = format!("seq {}", lines());
    let ran = timed("with a log", || {
        bench.sh(&format!("ctr-create --name l -- {seq} <$DIR/image | ctr-start --attach | sha256sum"))
    });
    let wanted = bench.sh(&format!("{seq} | sha256sum")).expect(0).stdout;
    assert_eq!(ran.expect(0).stdout, wanted);
    let ran = timed("ctr-logs", || bench.sh("ctr-logs l | sha256sum"));
    assert_eq!(ran.expect(0).stdout, wanted);
}

#[test]
fn a_follower_sees_every_line_once_over_many_rotations() {
    let Some(bench) = bench() else { return };
    let wanted = bench.sh("seq 100000 | sha256sum").expect(0).stdout;
    for options in [
        "--log-driver local --log-opt max-size=32k --log-opt max-file=1000",
        "--log-driver json-file --log-opt max-size=20k --log-opt max-file=1000",
    ] {
        bench.sh(&format!("ctr-create --name c {options} -- seq 100000 <$DIR/image >$DIR/created")).expect(0);
        let followers: Vec<Child> = (0..3).map(|_| spawn(&bench, "ctr-logs -f c | sha256sum")).collect();
        bench.sh("ctr-start <$DIR/created").expect(0);
        let late = spawn(&bench, "ctr-logs -f c | sha256sum");
        for follower in followers.into_iter().chain([late]) {
            let ran = ended(follower);
            assert_eq!(ran.stdout, wanted, "{options}: {}", ran.stderr);
        }
        assert_eq!(bench.sh("ctr-logs c | sha256sum").expect(0).stdout, wanted);
        assert_eq!(
            bench.sh("ctr-logs --tail 60000 c | sha256sum").expect(0).stdout,
            bench.sh("seq 40001 100000 | sha256sum").expect(0).stdout
        );
        let files = bench.sh("ls $STAVES_ROOT/containers/*/ | grep -c '^log.json'").expect(0).stdout;
        assert!(files.trim().parse::<u32>().unwrap() > 100, "{files}");
        bench.sh("ctr-rm -q c").expect(0);
    }
}

#[test]
fn a_shim_that_is_killed_leaves_whole_lines() {
    let Some(bench) = bench() else { return };
    for round in 0..5 {
        bench
            .sh("ctr-create --name c --log-driver local --log-opt max-size=100k --log-opt max-file=1000 -- \
                 sh -c 'seq 1 10000000' <$DIR/image | ctr-start")
            .expect(0);
        wait_until("the first line", || bench.sh("ctr-logs --tail 1 c").stdout.contains('\n'));
        std::thread::sleep(std::time::Duration::from_millis(37 * round));
        bench.sh("kill -9 $(jq .shim_pid $STAVES_RUN/containers/*/state.json)").expect(0);
        let ran = bench.sh("ctr-logs c").expect(0);
        let count = ran.stdout.lines().count();
        assert!(count > 0, "{}", ran.stderr);
        let mut numbers = ran.stdout.lines().enumerate();
        assert!(numbers.all(|(at, line)| line == (at + 1).to_string()), "{}", ran.stderr);
        bench.sh("ctr-rm -fq c").expect(0);
    }
}

#[test]
fn several_clients_and_one_that_does_not_read() {
    let Some(bench) = bench() else { return };
    bench
        .sh("ctr-create -i --name c --log-opt max-size=-1 -- sh -c 'read x; seq 1 500000; read y; echo $y' \
             <$DIR/image | ctr-start")
        .expect(0);
    let mut slow = spawn(&bench, "exec ctr-attach --no-stdin --patience 1 c");
    let readers: Vec<Child> =
        (0..2).map(|_| spawn(&bench, "ctr-attach --no-stdin --patience 60 c | sha256sum")).collect();
    wait_until("all to be attached", || {
        bench.sh("ctr-events --filter event=attach").expect(0).stdout.lines().count() == 3
    });
    let wanted = bench.sh("(seq 1 500000; echo bye) | sha256sum").expect(0).stdout;
    // Its first line lets the container write; `slow` reads nothing, and the others still get all.
    let late = spawn(&bench, "(echo go; sleep 4; echo bye) | ctr-attach --patience 60 c | tail -1");
    assert_eq!(ended(late).stdout, "bye\n");
    for reader in readers {
        assert_eq!(ended(reader).stdout, wanted);
    }
    assert_eq!(bench.sh("ctr-logs c | sha256sum").expect(0).stdout, wanted);
    // What it was sent before it was let go of.
    let mut text = String::new();
    slow.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with("1\n2\n") && !text.contains("500000"), "{} bytes", text.len());
    let ran = ended(slow).expect(125);
    assert!(ran.stderr.contains("does not wait for this tool any more"), "{}", ran.stderr);
}

#[test]
fn messages_reach_a_syslog_daemon() {
    let Some(bench) = bench() else { return };
    let path = bench.place.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    bench
        .sh("ctr-create --name web --log-driver syslog --log-opt syslog-address=unixgram://$DIR/log \
             --log-opt syslog-format=rfc5424 --log-opt tag='{{.Name}}' -- sh -c 'echo out; echo err >&2' \
             <$DIR/image | ctr-start --attach")
        .expect(0);
    let mut messages: Vec<String> = (0..2)
        .map(|_| {
            let mut bytes = [0; 1000];
            let count = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        })
        .collect();
    messages.sort();
    assert!(messages[0].starts_with("<27>1 ") && messages[0].ends_with(" web - err\n"), "{messages:?}");
    assert!(messages[1].starts_with("<30>1 ") && messages[1].ends_with(" web - out\n"), "{messages:?}");
    let ran = bench.sh("ctr-logs web").expect(5);
    assert!(ran.stderr.contains("syslog"), "{}", ran.stderr);
    // Nobody there: said before anything runs, and nothing is left.
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    let ran = bench.sh(
        "ctr-create --log-driver syslog --log-opt syslog-address=unixgram://$DIR/log -- true <$DIR/image",
    );
    assert!(
        ran.status != 0 && ran.stderr.contains("log driver syslog: connect to unixgram://"),
        "{}",
        ran.stderr
    );
}

#[test]
fn details_names_and_refused_options() {
    let Some(bench) = bench() else { return };
    bench
        .sh("for n in a b; do ctr-create --name $n --label l=$n -e E='x y' --log-opt labels=l,none --log-opt env=E \
             --log-opt tag={{.Name}} -- sh -c 'echo hello; echo again' <$DIR/image | ctr-start --attach; done")
        .expect(0);
    let ran = bench.sh("ctr-logs --details a").expect(0);
    assert_eq!(ran.stdout, "E=x+y,l=a,tag=a hello\nE=x+y,l=a,tag=a again\n");
    let ran = bench.sh("ctr-logs --names a b").expect(0);
    assert_eq!(ran.stdout, "a hello\na again\nb hello\nb again\n");
    let ran = bench.sh("ctr-logs -f --names --color a b | sort").expect(0);
    assert!(ran.stdout.contains("\u{1b}[32mb\u{1b}[0m hello\n"), "{}", ran.stdout);
    for (options, why) in [
        ("--log-driver passthrough-tty", "not supported"),
        ("--log-driver fluentd", "not supported"),
        ("--log-opt labels-regex=x", "has no option"),
        ("--log-driver local --log-opt tag=x", "has no option"),
        ("--log-opt max-size=x", "not a size"),
        ("--log-driver syslog --log-opt syslog-address=tcp+tls://a:1", "TLS"),
    ] {
        let ran = bench.sh(&format!("ctr-create {options} -- true <$DIR/image"));
        assert!(ran.status != 0 && ran.stderr.contains(why), "{options}: {} {}", ran.status, ran.stderr);
    }
    assert_eq!(bench.sh("ctr-ls -aq | wc -l").expect(0).stdout.trim(), "2");
    // Kept nowhere, but who is attached has it.
    let ran = bench
        .sh("ctr-create --name p --log-driver passthrough -- echo through <$DIR/image | ctr-start --attach");
    assert_eq!(ran.expect(0).stdout, "through\n");
    let ran = bench.sh("ctr-logs p").expect(5);
    assert!(ran.stderr.contains("--log-driver passthrough"), "{}", ran.stderr);
}

#[test]
fn exec_with_its_flags() {
    let Some(bench) = bench() else { return };
    bench
        .sh("ctr-create --name c --user 7 --security-opt no-new-privileges -- sleep 1000 <$DIR/image | ctr-start")
        .expect(0);
    let ask = |flags: &str, command: &str| {
        bench.sh(&format!("ctr-exec {flags} c sh -c '{command}'")).expect(0).stdout.trim().to_owned()
    };
    assert_eq!(ask("", "id -u"), "7");
    assert_eq!(ask("-u 5:6 -w /tmp", "id -u; id -g; pwd"), "5\n6\n/tmp");
    bench.sh("printf 'A=file\\nB=file\\n' >$DIR/env").expect(0);
    assert_eq!(ask("--env-file $DIR/env -e B=flag", "echo $A $B"), "file flag");
    let status = "grep -E CapBnd\\|Seccomp:\\|NoNewPrivs /proc/self/status | tr -d \"\\n\\t \"";
    let own = bench.sh("grep CapBnd /proc/self/status | tr -d '\\n\\t '").expect(0).stdout;
    let ordinary = ask("-u 0", status);
    assert!(ordinary.contains("Seccomp:2") && ordinary.contains("NoNewPrivs:1"), "{ordinary}");
    let privileged = ask("--privileged -u 0", status);
    assert!(privileged.contains("Seccomp:0") && privileged.contains("NoNewPrivs:0"), "{privileged}");
    assert!(privileged.contains(&own), "{privileged} {own}");
    assert_eq!(bench.sh("ctr-exec -d c sh -c 'sleep 0.2; echo x >/tmp/done'").expect(0).stdout, "");
    wait_until("the detached command", || bench.sh("ctr-exec c cat /tmp/done").stdout == "x\n");
    assert_eq!(bench.sh("echo in | ctr-exec -i c cat").expect(0).stdout, "in\n");
    assert_eq!(bench.sh("ctr-exec c sh -c 'kill -9 $$'").status, 137);
}

#[test]
fn a_command_at_a_terminal() {
    let Some(bench) = bench() else { return };
    let Some(terminal) = Terminal::new(&bench.place) else { return };
    bench.sh("ctr-create --name c -- sleep 1000 <$DIR/image | ctr-start").expect(0);
    terminal.line("ctr-exec -it --detach-keys ctrl-x -e PS1='in> ' c sh");
    terminal.wait_for("in> ");
    terminal.resize(90, 33);
    terminal.line("stty size");
    terminal.wait_for("33 90");
    terminal.press("C-x");
    terminal.wait_for("outer$");
}
