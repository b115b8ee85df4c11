//! exec: further processes.

use crate::{Bench, assert_says, wait_until};
use serde_json::json;
use std::process::{Command, Stdio};
use testkit::Ran;

#[test]
fn a_process_is_the_containers_with_what_the_options_say() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("exec");
    bench.start(&id);
    let ran = |options: &[&str], command: &str| {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        arguments.extend([id.as_str(), "sh", "-c", command]);
        bench.ran(&arguments)
    };
    assert_eq!(ran(&[], "pwd; id -u; echo $HOME").expect(0).stdout, "/\n0\n/\n");
    assert_eq!(ran(&["--cwd", "/bin"], "pwd").expect(0).stdout, "/bin\n");
    assert_eq!(ran(&["-e", "A=1,2", "--env", "PATH=/bin"], "echo $A $PATH").expect(0).stdout, "1,2 /bin\n");
    let groups = ran(&["-u", "1000:1001", "-g", "5", "--additional-gids=6"], "id -u; id -G").expect(0);
    assert_eq!(groups.stdout, "1000\n1001 5 6\n");
    assert_eq!(ran(&["--user", "1000"], "id -u; id -g").expect(0).stdout, "1000\n0\n");
    let effective = |options: &[&str]| {
        let status = ran(options, "cat /proc/self/status").expect(0).stdout;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        (field("CapEff:"), field("NoNewPrivs:"))
    };
    assert_eq!(effective(&[]), ("0000000020000420".to_owned(), "1".to_owned()));
    let more = effective(&["--cap", "CAP_NET_RAW", "-c", "CAP_CHOWN", "--no-new-privs=false"]);
    assert_eq!(more, ("0000000020002421".to_owned(), "0".to_owned()));
    for (options, words) in [
        (&["-u", "root"][..], "bad uid"),
        (&["-u", "1:x"], "bad gid"),
        (&["-u", "-1"], "bad uid"),
        (&["-u", "4294967296"], "bad uid"),
        (&["-u", "1:"], "bad gid"),
        (&["-g", "-3"], "additional-gids must be a positive number -3"),
        (&["--cwd", "relative"], "cwd"),
        (&["--cwd", "/nowhere"], "set in config.json failed: no such file"),
    ] {
        assert_says(&ran(options, "true").expect(255), words);
    }
    assert_says(&bench.ran(&["exec", &id]).expect(255), "exec args cannot be empty");
}

#[test]
fn processors_are_the_containers_and_not_the_callers() {
    let Some(bench) = Bench::new() else { return };
    if std::thread::available_parallelism().map_or(1, Into::into) < 2 {
        testkit::skip("there is one processor only");
        return;
    }
    let id = bench.id("cpus");
    bench.start(&id);
    let exec = ["exec", &id, "cat", "/proc/self/status"];
    let allowed = |ran: Ran| {
        let status = ran.expect(0).stdout;
        status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap().to_owned()
    };
    let all = allowed(bench.ran(&exec));
    let pinned = format!(
        "taskset -p 1 $$ >/dev/null && {} --root {} {}",
        crate::PROGRAM,
        bench.root().display(),
        exec.join(" ")
    );
    assert_eq!(allowed(Ran::of(Command::new("sh").args(["-c", &pinned]).stdin(Stdio::null()))), all);
}

#[test]
fn its_status_is_the_processes() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("status");
    // A container that waits can be entered, too.
    bench.create(&id);
    bench.ran(&["exec", &id, "true"]).expect(0);
    bench.ran(&["start", &id]).expect(0);
    bench.ran(&["exec", &id, "sh", "-c", "exit 42"]).expect(42);
    bench.ran(&["exec", &id, "sh", "-c", "kill -9 $$"]).expect(128 + 9);
    let ran = bench.ran(&["exec", &id, "nosuch"]).expect(255);
    assert_says(&ran, "exec failed: nosuch: executable file not found in $PATH");
    let ran = bench.ran(&["exec", "--pid-file", "/nonexistent/pid", &id, "true"]).expect(255);
    assert_says(&ran, "/nonexistent/pid: no such file or directory");
}

#[test]
fn a_process_may_come_from_a_file() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("file");
    bench.start(&id);
    let file = bench.path().join("process.json");
    let path = file.display().to_string();
    let process = json!({"args": ["sh", "-c", "id -u; pwd; echo $X"], "cwd": "/bin", "env": ["PATH=/bin", "X=y"],
        "user": {"uid": 7, "gid": 8}, "terminal": false});
    std::fs::write(&file, process.to_string()).unwrap();
    assert_eq!(bench.ran(&["exec", "--process", &path, &id]).expect(0).stdout, "7\n/bin\ny\n");
    assert_eq!(bench.ran(&["exec", "-p", &path, &id, "ignored"]).expect(0).stdout, "7\n/bin\ny\n");
    for (text, words) in
        [("{", "process.json"), ("{\"args\": [], \"cwd\": \"/\"}", "no command"), ("[]", "process.json")]
    {
        std::fs::write(&file, text).unwrap();
        assert_says(&bench.ran(&["exec", "--process", &path, &id]).expect(255), words);
    }
    let ran = bench.ran(&["exec", "--process", "/nonexistent", &id]).expect(255);
    assert_says(&ran, "/nonexistent: no such file or directory");
}

#[test]
fn a_process_may_be_left() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("left");
    bench.start(&id);
    // A relative name is one of the caller's directory, though it is written from inside the container.
    let mut command = bench.command(&["exec", "--detach", "--pid-file", "pid", &id, "sleep", "1000"]);
    let status = command.current_dir(bench.path()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    let pid = std::fs::read_to_string(bench.path().join("pid")).unwrap();
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command, "sleep\u{0}1000\u{0}");
    let pids = bench.ran(&["ps", "--format", "json", &id]).expect(0).json();
    assert!(pids.as_array().unwrap().contains(&json!(pid.parse::<i32>().unwrap())), "{pids}");
    let table = bench.ran(&["ps", &id]).expect(0).stdout;
    assert!(table.starts_with("UID") && table.lines().count() == 3, "{table}");
    let own = bench.ran(&["ps", &id, "-o", "pid,args"]).expect(0).stdout;
    assert!(own.contains("PID") && own.contains("sleep 1000"), "{own}");
    bench.ran(&["kill", &id, "KILL"]).expect(0);
    wait_until(
        || !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists(),
        "it outlives its container",
    );
}

#[test]
fn descriptors_are_passed_on() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("fds");
    bench.start(&id);
    let script = format!(
        "exec 3<<<three 4<<<four; exec {} --root {} exec --preserve-fds 1 {id} sh -c 'cat <&3; test ! -e /proc/self/fd/4'",
        crate::PROGRAM,
        bench.root().display()
    );
    let ran = Ran::of(Command::new("bash").args(["-c", &script]).stdin(Stdio::null())).expect(0);
    assert_eq!(ran.stdout, "three\n");
}

#[test]
fn a_terminal_is_made_where_there_is_one() {
    let Some(bench) = Bench::new() else { return };
    if testkit::find_program("script").is_none() {
        testkit::skip("there is no script(1) to make a terminal");
        return;
    }
    let id = bench.id("tty");
    bench.start(&id);
    let exec = format!(
        "stty rows 33 cols 77; {} --root {} exec -t {id} sh -c 'stty size; test -t 0; exit 6'",
        crate::PROGRAM,
        bench.root().display()
    );
    let ran =
        Ran::of(Command::new("script").args(["-qec", &exec, "/dev/null"]).stdin(Stdio::null())).expect(6);
    assert!(ran.stdout.contains("33 77"), "{}", ran.stdout);
    // However soon it prints, newlines come as they are.
    let prints = format!(
        "for i in 1 2 3 4 5 6 7 8; do {0} --root {1} exec -t {id} echo x | tr '\\r\\n' 'rn'; done",
        crate::PROGRAM,
        bench.root().display()
    );
    let ran =
        Ran::of(Command::new("script").args(["-qec", &prints, "/dev/null"]).stdin(Stdio::null())).expect(0);
    assert_eq!(
        (ran.stdout.matches("xn").count(), ran.stdout.matches("xr").count()),
        (8, 0),
        "{}",
        ran.stdout
    );
    let mut without = Command::new("setsid");
    without.args(["--wait", crate::PROGRAM, "--root"]).arg(bench.root()).args(["exec", "-t", &id, "true"]);
    assert_says(&Ran::of(without.stdin(Stdio::null())).expect(255), "open /dev/tty");
    let ran = bench.ran(&["exec", "-t", "-d", &id, "true"]).expect(255);
    assert_says(&ran, "will detach without setting console socket");
}
