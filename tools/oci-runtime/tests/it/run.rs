//! run: staying with a container until it ends.

use crate::{Bench, assert_says, wait_until};
use serde_json::json;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use testkit::Ran;

#[test]
fn its_status_is_the_containers() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("run");
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("exec kill -KILL $$", 128 + 9)] {
        bench.configure(&["sh", "-c", script], |config| {
            // The first process of a pid namespace is spared by its own signals.
            if status > 128 {
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| namespace["type"] != "pid");
                config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
                config["linux"]["maskedPaths"] = json!([]);
                config["linux"]["readonlyPaths"] = json!([]);
            }
        });
        bench.run(&id, &[]).expect(status);
        bench.assert_gone(&id);
    }
}

#[test]
fn streams_are_the_callers() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("streams");
    bench.configure(&["sh", "-c", "cat; echo wrong >&2"], |_| {});
    let bundle = bench.bundle().display().to_string();
    let mut child = bench
        .command(&["run", "--bundle", &bundle, &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"typed"[..], &b"wrong\n"[..]));
}

#[test]
fn a_command_that_cannot_be_executed_is_told() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("missing");
    std::fs::write(bench.bundle().join("rootfs/bin/text"), "text").unwrap();
    for (command, words) in [
        ("nosuch", "nosuch: executable file not found in $PATH"),
        ("/no/such", "/no/such: no such file or directory"),
        ("/bin/text", "permission denied"),
        ("/bin", "permission denied"),
    ] {
        bench.configure(&[command], |_| {});
        let ran = bench.run(&id, &[]).expect(1);
        assert_says(&ran, "run failed: ");
        assert_says(&ran, words);
        bench.assert_gone(&id);
    }
}

#[test]
fn it_may_be_kept_or_left() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("kept");
    bench.configure(&["true"], |_| {});
    bench.run(&id, &["--keep"]).expect(0);
    assert_eq!(bench.status(&id), "stopped");
    bench.ran(&["delete", &id]).expect(0);
    bench.configure(&["sleep", "1000"], |_| {});
    let pid_file = bench.path().join("pid").display().to_string();
    bench.make(&[
        "run",
        "-d",
        "--pid-file",
        &pid_file,
        "--bundle",
        &bench.bundle().display().to_string(),
        &id,
    ]);
    let state = bench.state(&id);
    assert_eq!(state["status"], "running");
    assert_eq!(std::fs::read_to_string(pid_file).unwrap(), state["pid"].to_string());
    bench.ran(&["delete", "-f", &id]).expect(0);
    bench.assert_gone(&id);
}

#[test]
fn signals_go_to_the_container() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("signals");
    bench.configure(&["sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"], |_| {});
    let out = bench.path().join("out");
    let bundle = bench.bundle().display().to_string();
    let mut child = bench
        .command(&["run", "--bundle", &bundle, &id])
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    wait_until(|| std::fs::read_to_string(&out).unwrap() == "ready\n", "it does not run");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(9));
    bench.assert_gone(&id);
}

#[test]
fn descriptors_are_passed_on() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("fds");
    bench.configure(
        &["sh", "-c", "cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; test ! -e /proc/self/fd/5"],
        |_| {},
    );
    let bundle = bench.bundle().display().to_string();
    let root = bench.root().display().to_string();
    let run = |options: &str| {
        let program = crate::PROGRAM;
        let script = format!(
            "exec 3<<<three 4<<<four 5<<<five; {options} exec {program} --root {root} run --bundle {bundle} $FLAGS {id}"
        );
        Ran::of(Command::new("bash").args(["-c", &script]).stdin(Stdio::null()))
    };
    assert_eq!(run("FLAGS=--preserve-fds=2;").expect(0).stdout, "three\nfour\n\n");
    let ran = run("export LISTEN_FDS=1 LISTEN_PID=$$; FLAGS='--preserve-fds 1';").expect(0);
    assert_eq!(ran.stdout, "three\nfour\n1 1\n");
    let ran = run("FLAGS=--preserve-fds=4;").expect(1);
    assert_says(&ran, "unable to stat preserved-fd 3 (of 4)");
    // Hooks get none of them, and the command all the same.
    bench.configure(&["sh", "-c", "cat <&3; cat <&4"], |config| {
        config["hooks"] = json!({"startContainer": [
            {"path": "/bin/sh", "args": ["sh", "-c", "test ! -e /proc/self/fd/3"]}]});
    });
    assert_eq!(run("FLAGS=--preserve-fds=2;").expect(0).stdout, "three\nfour\n");
    bench.configure(&["true"], |config| config["hooks"] = json!({}));
    // Told of somebody else's.
    bench.configure(&["sh", "-c", "test ! -e /proc/self/fd/3 && test -z \"$LISTEN_FDS\""], |_| {});
    run("export LISTEN_FDS=1 LISTEN_PID=1;").expect(0);
}

#[test]
fn with_a_terminal_it_stands_between() {
    let Some(bench) = Bench::new() else { return };
    if testkit::find_program("script").is_none() {
        testkit::skip("there is no script(1) to make a terminal");
        return;
    }
    let id = bench.id("tty");
    bench.configure(
        &["sh", "-c", "test -t 0 && test -t 1 && read line && echo got $line && exit 5"],
        |config| {
            config["process"]["terminal"] = json!(true);
        },
    );
    let run = format!(
        "{} --root {} run --bundle {} {id}",
        crate::PROGRAM,
        bench.root().display(),
        bench.bundle().display()
    );
    let mut script = Command::new("script");
    let input = std::fs::File::from(std::os::fd::OwnedFd::from(typed("hello\n")));
    assert!(input.as_raw_fd() >= 0);
    let ran = Ran::of(script.args(["-qec", &run, "/dev/null"]).stdin(input)).expect(5);
    assert!(ran.stdout.contains("got hello"), "{}", ran.stdout);
    bench.assert_gone(&id);
    // However soon it prints, newlines come as they are.
    bench.configure(&["echo", "x"], |config| config["process"]["terminal"] = json!(true));
    let prints = format!("for i in 1 2 3 4 5 6 7 8; do {run} | tr '\\r\\n' 'rn'; done");
    let ran =
        Ran::of(Command::new("script").args(["-qec", &prints, "/dev/null"]).stdin(Stdio::null())).expect(0);
    // script(1) writes that its input has ended, which a terminal echoes.
    let printed = ran.stdout.replace("^@", "").replace("^D", "");
    assert!(printed.contains("xnxnxnxnxnxnxnxn"), "{}", ran.stdout);
    let bundle = bench.bundle().display().to_string();
    let ran = bench.ran(&["run", "-d", "--bundle", &bundle, &id]).expect(1);
    assert_says(&ran, "will detach without setting console socket");
    let ran = bench.ran(&["run", "--console-socket", "/x", "--bundle", &bundle, &id]).expect(1);
    assert_says(&ran, "cannot use console socket");
}

/// A pipe with something in it that is not closed before the test ends.
fn typed(text: &str) -> std::io::PipeReader {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    std::mem::forget(writer);
    reader
}

#[test]
fn processes_that_lost_their_parent_are_reaped() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("reap");
    bench.configure(&["sh", "-c", "(sleep 0.05 &) ; sleep 0.2; exit 3"], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    });
    bench.run(&id, &[]).expect(3);
    bench.run(&id, &["--no-subreaper"]).expect(3);
    bench.assert_gone(&id);
}
