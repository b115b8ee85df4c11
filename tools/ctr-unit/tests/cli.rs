//! The tool as a program: its files as systemd checks them, and a container that systemd runs.

use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::{Place, Ran, busybox, find_program, skip};

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-unit"));
    place.furnish(&mut command);
    command.args(arguments);
    command
}

fn unit(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(&mut command(place, arguments))
}

fn pipe(place: &Place, arguments: &[&str], record: &Value) -> Ran {
    let path = place.path().join("record");
    fs::write(&path, record.to_string()).unwrap();
    Ran::of(command(place, arguments).stdin(fs::File::open(path).unwrap()))
}

fn container(place: &Place, config: &Value) {
    let image = json!({"reference": "docker.io/library/busybox:1"});
    place.container(&"a".repeat(64), "web", &json!({"config": config, "image": image}));
}

/// `systemd-analyze verify` has nothing to say.
fn verify(directory: &Path, name: &str, text: &str) {
    let Some(program) = find_program("systemd-analyze") else {
        return skip("systemd-analyze is not installed");
    };
    let file = directory.join(name);
    fs::write(&file, text).unwrap();
    let ran = Ran::of(Command::new(program).args(["verify", "--man=no"]).arg(&file)).expect(0);
    let about: Vec<&str> = ran.stderr.lines().filter(|line| line.contains(name)).collect();
    assert!(about.is_empty(), "{about:?}\n{text}");
}

#[test]
fn a_unit_of_a_container_that_exists() {
    let place = Place::new();
    container(&place, &json!({"stop_signal": "INT", "stop_timeout": 5, "restart": "always"}));
    let text = unit(&place, &["web"]).expect(0).stdout;
    let id = "a".repeat(64);
    assert!(text.starts_with(&format!("# container-{id}.service\n")), "{text}");
    for line in [
        "Type=notify".to_owned(),
        "Restart=always".to_owned(),
        "TimeoutStopSec=35".to_owned(),
        "SuccessExitStatus=130".to_owned(),
        format!("ctr-update --quiet --restart no {id}"),
        format!("ctr-start --attach --sdnotify {id}"),
        format!("ctr-stop --quiet {id}"),
        format!("Environment=STAVES_ROOT={}", place.root().display()),
    ] {
        assert!(text.contains(&line), "{line}:\n{text}");
    }
    verify(place.path(), "web.service", &text);
}

#[test]
fn flags_of_podmans() {
    let place = Place::new();
    container(&place, &json!({}));
    let flags = [
        "--name",
        "--container-prefix",
        "c",
        "--separator",
        "_",
        "--restart-policy",
        "on-abnormal",
        "--restart-sec",
        "7",
        "--start-timeout",
        "70",
        "-t",
        "3",
        "--after",
        "db.service",
        "--requires",
        "x.service",
        "--wants",
        "y.service",
        "-e",
        "A=b %c",
        "--no-header",
        "web",
    ];
    let text = unit(&place, &flags).expect(0).stdout;
    for line in [
        "After=db.service",
        "Requires=x.service",
        "Wants=y.service",
        "Restart=on-abnormal",
        "RestartSec=7",
        "TimeoutStartSec=70",
        "TimeoutStopSec=33",
        "Environment=\"A=b %%c\"",
        "ctr-start --attach --sdnotify web",
        "ctr-stop --quiet --timeout=3 web",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    assert!(text.starts_with("[Unit]\n"), "{text}");
    assert_eq!(unit(&place, &[&["-q"], flags.as_slice()].concat()).expect(0).stdout, "c_web.service\n");
    unit(&place, &["--after", "a b", "web"]).expect(2);
    unit(&place, &["--restart-policy", "sometimes", "web"]).expect(2);
    unit(&place, &["--container-prefix", "../x", "web"]).expect(3);
}

#[test]
fn a_unit_that_makes_its_container() {
    let place = Place::new();
    let config = json!({"command": ["sh", "-c", "echo 100% \"$A\" \\ 'x'\nexit"], "env": ["A=\u{7f}"], "restart": "unless-stopped"});
    container(&place, &config);
    let text = unit(&place, &["--new", "--name", "web"]).expect(0).stdout;
    for line in [
        "ctr-create --replace --name web | ",
        "ctr-rm --force --volumes --quiet web",
        "TimeoutStartSec=15min",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    verify(place.path(), "web.service", &text);
    let none = json!({"staves": 1, "config": {"name": "web"}});
    assert!(pipe(&place, &[], &none).expect(3).stderr.contains("names no image"));
    let nameless = json!({"staves": 1, "image": {"reference": "a"}});
    assert!(pipe(&place, &[], &nameless).expect(3).stderr.contains("no name"));
    let evil =
        json!({"staves": 1, "image": {"reference": "a\nExecStartPre=/bin/evil"}, "config": {"name": "web"}});
    pipe(&place, &[], &evil).expect(3);
    let evil =
        json!({"staves": 1, "image": {"reference": "a"}, "config": {"name": "web\nExecStartPre=/bin/evil"}});
    pipe(&place, &[], &evil).expect(3);
}

#[test]
fn files_and_records() {
    let place = Place::new();
    container(&place, &json!({}));
    let directory = place.path().join("units");
    fs::create_dir(&directory).unwrap();
    let at = directory.to_str().unwrap();
    let plan = unit(&place, &["-n", "--files", "--directory", at, "--dry-run", "web"]).expect(0).json();
    assert_eq!(plan, json!({"step": "write", "path": directory.join("container-web.service")}));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    let path = unit(&place, &["-n", "--files", "--directory", at, "web"]).expect(0).stdout;
    let printed = unit(&place, &["-n", "web"]).expect(0).stdout;
    assert_eq!(fs::read_to_string(path.trim()).unwrap(), printed);
    let record = unit(&place, &["-n", "--output", "json", "web"]).expect(0).json();
    assert_eq!(record["unit_file"], json!({"name": "container-web.service", "content": printed}));
    unit(&place, &["web", "web"]).expect(2);
    unit(&place, &["nobody"]).expect(4);
    pipe(&place, &[], &json!("x")).expect(3);
    Ran::of(command(&place, &[]).stdin(Stdio::null())).expect(3);
}

#[test]
fn quadlets_in_and_out() {
    let place = Place::new();
    let file = place.path().join("web.container");
    fs::write(place.path().join("env"), "F=1\n").unwrap();
    fs::write(&file, "[Container]\nImage=busybox:1\nEnvironmentFile=env\nEnvironment=A=1\nExec=sleep 5\n[Service]\nRestart=no\n").unwrap();
    let file = file.to_str().unwrap();
    let record = unit(&place, &["--read", file]).expect(0).json();
    assert_eq!(record["image"]["reference"], "docker.io/library/busybox:1");
    let expected =
        json!({"name": "systemd-web", "command": ["sleep", "5"], "env": ["F=1", "A=1"], "restart": "no"});
    assert_eq!(record["config"], expected);
    let text = pipe(&place, &[], &record).expect(0).stdout;
    assert!(text.starts_with("# web.service\n"), "{text}");
    assert!(!text.contains("[Install]") && text.contains("Restart=no\n"), "{text}");
    verify(place.path(), "web.service", &text);
    assert_eq!(unit(&place, &["--read", file, "--format", "service"]).expect(0).stdout, text);
    let quadlet = pipe(&place, &["--format", "quadlet", "--no-header"], &record).expect(0).stdout;
    fs::write(place.path().join("web.container"), &quadlet).unwrap();
    assert_eq!(unit(&place, &["--read", file]).expect(0).json(), record);
    fs::write(place.path().join("web.container"), "[Container]\nImage=a\nNonsense=1\n").unwrap();
    let wrong = unit(&place, &["--read", file]).expect(3).stderr;
    assert!(wrong.contains("web.container") && wrong.contains("line 3"), "{wrong}");
    unit(&place, &["--read", "/there/is/none.container"]).expect(4);
    fs::write(place.path().join("big.container"), vec![b'#'; 2 << 20]).unwrap();
    unit(&place, &["--read", place.path().join("big.container").to_str().unwrap()]).expect(3);
}

/// What a service's manager needs beside systemd itself: namespaces, and a control group of its own to be in.
const MANAGER: &str = r#"
set -e
mkdir -p /run/systemd; mount -t tmpfs none /run/systemd; mkdir /run/systemd/system
mkdir -p "$D/run/systemd/user" "$D/home"; chmod 700 "$D/run"
cp "$D"/*.service "$D/run/systemd/user/"
export XDG_RUNTIME_DIR="$D/run" HOME="$D/home"
env -u NOTIFY_SOCKET /lib/systemd/systemd --user --unit=basic.target --log-target=console >"$D/log" 2>&1 &
manager=$!
for i in $(seq 200); do systemctl --user is-active -q basic.target 2>/dev/null && break; sleep .05; done
set +e
. "$D/script"
systemctl --user stop 'web*' 2>/dev/null
kill $manager; wait $manager
exit 0
"#;

/// Runs a script beside a manager of services that knows the units in `directory`; what it printed.
fn with_systemd(place: &Place, directory: &Path, script: &str) -> Option<String> {
    let group = Path::new("/sys/fs/cgroup/systemd");
    let group = if group.is_dir() { group } else { Path::new("/sys/fs/cgroup") };
    for program in ["systemctl", "unshare"] {
        if find_program(program).is_none() {
            skip(&format!("{program} is not installed"));
            return None;
        }
    }
    let own = group.join(format!("staves-unit-{}", std::process::id()));
    if !Path::new("/lib/systemd/systemd").exists() || fs::create_dir(&own).is_err() {
        skip("systemd cannot be run here");
        return None;
    }
    fs::write(directory.join("script"), script).unwrap();
    fs::write(directory.join("manager"), MANAGER).unwrap();
    // In no cgroup namespace: there the manager would take the machine's whole tree for its own, and tidy it up.
    let enter = format!(
        "echo $$ >{}/cgroup.procs && exec unshare -m -p -f --kill-child --mount-proc sh {}/manager",
        own.display(),
        directory.display()
    );
    let mut command = Command::new("timeout");
    place.furnish(&mut command);
    let ran = Ran::of(
        command.args(["-k", "5", "100", "sh", "-c", &enter]).env("D", directory).stdin(Stdio::null()),
    );
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    remove_groups(&own);
    if log.contains("Failed to create") && log.contains("cgroup") {
        skip("systemd has no control groups here");
        return None;
    }
    assert_eq!(ran.status, 0, "{}\n{}\n{log}", ran.stdout, ran.stderr);
    let _ = std::io::stderr().write_all(log.as_bytes());
    Some(ran.stdout)
}

/// A control group with those below it; its processes have just been killed.
fn remove_groups(group: &Path) {
    for _ in 0..100 {
        let below = fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
        below.for_each(|entry| remove_groups(&entry.path()));
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn systemd_runs_it() {
    let Some(place) = busybox() else { return };
    let directory = place.path().join("units");
    fs::create_dir(&directory).unwrap();
    let quadlet = "[Container]\nImage=busybox:1\nContainerName=w\nNetwork=none\nStopTimeout=5\nPull=never\n\
        Exec=sh -c \"trap 'echo ended; exit 143' TERM; echo 100%% $$X; trap >/tmp/x; while :; do sleep 0.1; done\"\nEnvironment=\"X=a b\"\n\
        HealthCmd=test -e /tmp/x\nHealthInterval=1s\nPodmanArgs=--health-start-interval=1s\nHealthStartPeriod=20s\nNotify=healthy\nReloadCmd=touch /tmp/reloaded\n\
        [Service]\nRestart=on-failure\nRestartSec=100ms\n";
    fs::write(directory.join("web.container"), quadlet).unwrap();
    let file = directory.join("web.container");
    let text = unit(&place, &["--read", file.to_str().unwrap(), "--format", "service"]).expect(0).stdout;
    fs::write(directory.join("web.service"), text).unwrap();
    let script = r#"
        systemctl --user start web; echo "start $?"
        systemctl --user is-active web
        ctr-ls --filter name=w | jq -r '.container.status, .container.health.status'
        systemctl --user reload web; ctr-exec w ls /tmp/reloaded
        ctr-kill -s KILL w >/dev/null
        for i in $(seq 100); do sleep .1; [ "$(systemctl --user show -P NRestarts web)" = 1 ] && systemctl --user is-active -q web && break; done
        echo "again $(systemctl --user show -P NRestarts,SubState web | tr '\n' ' ')"
        systemctl --user stop web; echo "stop $? $(systemctl --user is-failed web)"
        echo "left $(ctr-ls -a -q)"
    "#;
    let Some(out) = with_systemd(&place, &directory, script) else { return };
    assert_eq!(
        out,
        "start 0\nactive\nrunning\nhealthy\n/tmp/reloaded\nagain 1 running \nstop 0 inactive\nleft \n",
        "{}",
        fs::read_to_string(directory.join("log")).unwrap_or_default()
    );
}

#[test]
fn systemd_runs_one_that_exists() {
    let Some(place) = busybox() else { return };
    let directory = place.path().join("units");
    fs::create_dir(&directory).unwrap();
    place.sh("ctr-run --name e --network none --restart always busybox:1 true & until ctr-events --filter event=die | grep -q .; do sleep 0.1; done; ctr-stop -q e; ctr-ls -a -q >/dev/null; wait").expect(0);
    let text = unit(&place, &["--name", "--restart-policy", "no", "e"]).expect(0).stdout;
    fs::write(directory.join("web.service"), text).unwrap();
    let script = r#"
        systemctl --user start web; echo "start $?"
        for i in $(seq 50); do systemctl --user is-active -q web || break; sleep .1; done
        echo "$(systemctl --user show -P Result web) $(ctr-inspect e | jq -r .config.restart) $(ctr-ls -a --filter name=e | jq -r .container.status)"
    "#;
    let Some(out) = with_systemd(&place, &directory, script) else { return };
    assert_eq!(out, "start 0\nsuccess no exited\n");
}
