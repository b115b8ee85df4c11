//! Quadlets and records into each other.

use crate::compare::canonical;
use crate::read::{Origin, quadlet};
use crate::section::Unit;
use crate::service::{Machine, Wishes, service};
use crate::specifier::Specifiers;
use crate::{syntax, write};
use proptest::prelude::*;
use record::Record;
use serde_json::{Value, json};

fn origin() -> Origin {
    Origin { specifiers: Specifiers { name: Some("web".to_owned()) }, directory: "/units".into() }
}

fn read(text: &str) -> Value {
    let record = quadlet(text, &origin()).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    serde_json::from_str(&record.to_line()).unwrap()
}

/// What `[Container]` with an image and these lines asks for.
fn config(lines: &str) -> Value {
    read(&format!("[Container]\nImage=a\n{lines}\n"))["config"].take()
}

fn refused(text: &str) -> String {
    quadlet(text, &origin()).unwrap_err().to_string()
}

fn record(config: &Value) -> Record {
    let value = json!({"staves": 1, "image": {"reference": "docker.io/library/a:1"}, "config": config});
    Record::parse(&value.to_string()).unwrap()
}

#[test]
fn a_whole_file() {
    let text = "[Unit]\nAfter=db.service\n\n[Container]\nImage=docker.io/library/nginx:1\nExec=nginx -g \\\n  \"daemon off;\"\n\
        Environment=\"A=b c\" B=1\nVolume=./html:/srv:ro\nPull=newer\nNotify=healthy\nReloadSignal=HUP\n\n\
        [Service]\nRestart=always\nNice=5\n[Install]\nWantedBy=multi-user.target\n[Quadlet]\nDefaultDependencies=no\n";
    assert_eq!(
        read(text),
        json!({
            "staves": 1,
            "image": {"reference": "docker.io/library/nginx:1"},
            "config": {
                "name": "systemd-web", "command": ["nginx", "-g", "daemon off;"], "env": ["A=b c", "B=1"],
                "mounts": [{"type": "bind", "source": "/units/html", "target": "/srv", "read_only": true, "create_source": true}],
                "restart": "always"
            },
            "unit": {
                "name": "web", "unit": ["After=db.service"], "service": ["Nice=5"], "install": ["WantedBy=multi-user.target"],
                "pull": "newer", "notify": "healthy", "reload_signal": "HUP", "default_dependencies": false
            }
        })
    );
}

#[test]
fn repeated_and_empty_settings() {
    for (lines, member, expected) in [
        ("Environment=A=1\nEnvironment=\nEnvironment=B=2", "env", json!(["B=2"])),
        ("PublishPort=80:80\nPublishPort=81:81", "ports", json!(["80:80", "81:81"])),
        ("HostName=a\nHostName=b", "hostname", json!("b")),
        ("HostName=a\nHostName=", "hostname", Value::Null),
        ("HostName=\"a\"", "hostname", json!("a")),
        ("Exec=a\nExec=b 'c d'", "command", json!(["b", "c d"])),
        ("ReadOnly=yes\nReadOnly=no", "read_only", Value::Null),
        ("Entrypoint=", "entrypoint", json!([""])),
        ("Entrypoint=[\"a\", \"b\"]", "entrypoint", json!(["a", "b"])),
        ("AddCapability=CHOWN KILL\nAddCapability=BPF", "cap_add", json!(["CHOWN", "KILL", "BPF"])),
        ("DropCapability=all", "cap_drop", json!(["all"])),
        ("HealthCmd=none", "healthcheck", json!({"test": ["NONE"]})),
        ("HealthCmd=[\"a\", \"b\"]", "healthcheck", json!({"test": ["CMD", "a", "b"]})),
        (
            "HealthCmd=a | b\nHealthRetries=2",
            "healthcheck",
            json!({"test": ["CMD-SHELL", "a | b"], "retries": 2}),
        ),
        ("Environment=A=%N%% B=$$x C=$HOME", "env", json!(["A=web%", "B=$x", "C=$HOME"])),
        ("User=1\nGroup=2", "user", json!("1:2")),
        ("Mask=/a:/b\nUnmask=ALL", "security_opt", json!(["mask=/a:/b", "unmask=ALL"])),
        ("PodmanArgs=--cpus 1.5 --tty", "cpus", json!("1.5")),
        ("SeccompProfile=./p.json", "security_opt", json!(["seccomp=/units/p.json"])),
        (
            "Mount=type=bind,src=./a,dst=/b",
            "mounts",
            json!([{"type": "bind", "source": "/units/a", "target": "/b"}]),
        ),
        ("AddDevice=-/dev/there-is-none /dev/null", "devices", json!(["/dev/null"])),
        ("AutoUpdate=registry", "labels", json!({"io.containers.autoupdate": "registry"})),
        ("X-Mine=1", "env", Value::Null),
    ] {
        assert_eq!(config(lines)[member], expected, "{lines}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (lines, line, words) in [
        ("Nonsense=1", 3, "no setting Nonsense="),
        ("Pod=a.pod", 3, "no pods"),
        ("\nMemory=lots", 4, "Memory="),
        ("PublishPort=80\nPublishPort=x", 4, "PublishPort="),
        ("Environment=\"A", 3, "not closed"),
        ("Environment=A=%H", 3, "known only when"),
        ("WorkingDir=$HOME", 3, "known only when"),
        ("Volume=data.volume:/d", 3, "another unit"),
        ("Network=my.network", 3, "another unit"),
        ("Notify=true", 3, "not passed on"),
        ("ReadOnly=maybe", 3, "neither yes nor no"),
        ("Group=1", 3, "no User="),
        ("PodmanArgs=--replace", 3, "no record says it"),
        ("PodmanArgs=--pod x", 3, "no pods"),
        ("PodmanArgs=--no-such-flag", 3, "--no-such-flag"),
        ("Exec='a", 3, "not closed"),
        ("EnvironmentFile=/there/is/none", 3, "/there/is/none"),
    ] {
        let fault = refused(&format!("[Container]\nImage=a\n{lines}\n"));
        assert!(fault.contains(&format!("line {line}")) && fault.contains(words), "{lines}: {fault}");
    }
    for (text, words) in [
        ("", "no [Container]"),
        ("[Container]\nHostName=a", "neither Image="),
        ("[Container]\nImage=a\nRootfs=/r", "both"),
        ("[Container]\nImage=a.image", "another unit"),
        ("[Container]\nImage=a\n[Pod]\nA=b", "[Pod]"),
        ("[Container]\nImage=a\nContainerName=a/b", "valid name"),
        ("[Container]\nImage=a\nPull=often", "unit.pull"),
        ("[Container]\nImage=a\nReloadCmd=a\nReloadSignal=HUP", "exclude"),
    ] {
        let fault = refused(text);
        assert!(fault.contains(words), "{text}: {fault}");
    }
}

#[test]
fn every_member_survives_a_quadlet() {
    let config = json!({
        "name": "w", "command": ["a b", "", "$HOME", "100%", "x\ny", "\"q\" 'r' \\"], "entrypoint": ["a", "b"], "env": ["A=b c", "D=\u{85}$x"],
        "env_merge": ["P=${P}:/x"], "unsetenv": ["U"], "workdir": "/w d", "user": "1:2", "group_add": ["3"], "umask": "0027",
        "hostname": "h", "domainname": "d", "tz": "UTC", "tty": true, "interactive": true, "auto_remove": true, "init": true,
        "mounts": ["/srv:/data:ro", {"type": "bind", "source": "/a b", "target": "/b c"}, {"type": "volume", "target": "/anonymous"},
            {"type": "volume", "source": "vol", "target": "/v", "subpath": "x,y"}, {"type": "tmpfs", "target": "/t", "size": 4096, "mode": "1777"},
            {"type": "image", "source": "docker.io/library/b:1", "target": "/i"}],
        "volumes_from": ["other:ro"], "secrets": ["key,src=/k,mode=0400"], "read_only": true, "read_only_tmpfs": true,
        "devices": ["/dev/fuse", "vendor.com/class=a"], "device_cgroup_rules": ["c 1:3 rwm"], "shm_size": "1m",
        "cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", "seccomp=unconfined", "apparmor=p", "mask=/a:/b", "proc-opts=hidepid=2"],
        "memory": 67_108_864, "memory_reservation": "1m", "memory_swap": -1, "oom_score_adj": -5, "cpus": 1.5, "cpu_shares": 5,
        "cpuset_cpus": "0", "blkio_weight": 10, "device_read_bps": ["/dev/sda:1m"], "pids_limit": -1, "ulimits": ["nofile=1:2"],
        "sysctls": {"net.ipv4.ip_forward": "1", "net.ipv4.ping_group_range": "0 5"}, "cgroup_conf": {"memory.high": "5"}, "storage_opts": {"size": "1g"}, "pid": "host", "ipc": "none", "uts": "private",
        "cgroup_parent": "/x", "ports": ["8080:80", 81, {"ip": "::1", "host": 53, "container": 53, "protocol": "udp"}], "publish_all": true,
        "expose": ["90"], "add_host": ["a:1.2.3.4"], "dns": ["1.1.1.1"], "dns_search": ["x"], "dns_option": ["ndots:1"],
        "labels": {"a": "b c", "e": ""}, "annotations": {"x.y": "z"}, "stop_signal": "SIGINT", "stop_timeout": -1, "timeout": 5,
        "restart": "on-failure:3", "log_driver": "local", "log_opts": {"max-size": "1m"}, "runtime": "/usr/bin/crun", "platform": "linux/amd64",
        "healthcheck": {"test": ["CMD", "a", "b c"], "interval": 5, "timeout": "1m30s", "retries": 2, "start_period": 1.5, "start_interval": 2, "on_failure": "stop"}
    });
    let record = record(&config);
    let text = write::text(&record, "").unwrap();
    let again = quadlet(&text, &Origin::default()).unwrap();
    assert_eq!(canonical(&again.config().unwrap()).unwrap(), canonical(&record.config().unwrap()).unwrap());
    assert_eq!(again.image().unwrap().unwrap().reference, "docker.io/library/a:1");
    // After the order is the file's, it is written as it was.
    let text = write::text(&again, "").unwrap();
    assert_eq!(write::text(&quadlet(&text, &Origin::default()).unwrap(), "").unwrap(), text);
}

#[test]
fn what_a_quadlet_cannot_say_is_told() {
    for (config, words) in [
        (json!({"mine": 1}), "config.mine"),
        (json!({"mounts": [{"type": "volume", "target": "/a", "mine": 1, "size": 5}]}), "/a"),
    ] {
        let fault = write::text(&record(&config), "").unwrap_err().to_string();
        assert!(fault.contains(words), "{config}: {fault}");
    }
    let none = Record::parse(r#"{"staves":1,"config":{}}"#).unwrap();
    assert!(write::text(&none, "").unwrap_err().to_string().contains("no image"));
}

fn unit_of(record: &Record) -> String {
    let machine = Machine { tools: "/usr/bin".to_owned(), directories: vec!["/var/lib/staves".to_owned()] };
    service(
        record,
        &Wishes { prefix: "c".to_owned(), separator: "-".to_owned(), ..Wishes::default() },
        &machine,
        false,
    )
    .unwrap()
    .text
}

/// `StandardInputText=` as systemd makes it: escapes first, then specifiers.
fn standard_input(unit: &str) -> String {
    let lines = syntax::parse(unit).unwrap();
    let text = &lines.iter().find(|line| line.key == "StandardInputText").unwrap().value;
    text.replace("\\\\", "\\").replace("%%", "%")
}

#[test]
fn restart_policies() {
    for (policy, expected) in [
        (Value::Null, "Restart=on-failure\n"),
        (json!("no"), "Restart=no\n"),
        (json!("unless-stopped"), "Restart=always\n"),
        (json!("on-failure:2"), "StartLimitBurst=3\nStartLimitIntervalSec=30\n"),
    ] {
        let text = unit_of(&record(&json!({"name": "a", "restart": policy})));
        assert!(text.contains(expected), "{policy}: {text}");
        // The shim of the container leaves it to systemd.
        assert!(!standard_input(&text).contains("restart"), "{text}");
    }
}

#[test]
fn a_section_that_is_more_than_settings_is_refused() {
    for unit in [
        json!({"service": ["Nice=5\nExecStartPre=/bin/evil"]}),
        json!({"unit": ["no assignment"]}),
        json!({"unit": ["A=b\\"]}),
        json!({"install": ["[Service]=x"]}),
        json!({"name": "../x"}),
        json!({"name": "a\nb"}),
        json!({"pull": "x"}),
        json!({"reload_command": []}),
    ] {
        let mut record = record(&json!({"name": "a"}));
        record.set("unit", &unit).unwrap();
        assert!(Unit::of(&record).is_err(), "{unit}");
    }
    let mut record = record(&json!({"name": "a"}));
    for settings in [json!(["ExecStart=/bin/x"]), json!(["Type=forking"]), json!(["KillMode=none"])] {
        record.set("unit", &json!({"service": settings})).unwrap();
        let machine = Machine { tools: "/usr/bin".to_owned(), directories: vec![] };
        assert!(service(&record, &Wishes::default(), &machine, false).is_err(), "{settings}");
    }
}

proptest! {
    #[test]
    fn any_container_survives_a_quadlet(
        command in proptest::collection::vec("[^\0]{0,12}", 0..4),
        value in "[^\0]{0,12}",
        label in "[^\0]{0,12}",
        check in "[^\0]{1,12}",
        entrypoint in proptest::option::of(proptest::collection::vec("[^\0]{1,8}", 1..3)),
        workdir in "/[^\0]{0,12}",
        target in "/[a-z :,\"'\\\\%$]{1,8}x",
        source in "/[a-z :,\"'\\\\%$]{1,8}",
        hostname in "[a-z]{1,5}",
        memory in 6_291_456_i64..1 << 40,
        read_only in any::<bool>(),
    ) {
        let config = json!({
            "name": "w", "command": command, "entrypoint": entrypoint, "env": [format!("A={value}")], "labels": {"l": label, "m": value},
            "workdir": workdir, "hostname": hostname, "memory": memory, "read_only": read_only,
            "mounts": [{"type": "bind", "source": source, "target": target, "read_only": read_only}],
            "healthcheck": {"test": ["CMD-SHELL", check]}, "annotations": {"x": label},
        });
        let record = record(&config);
        match write::text(&record, "") {
            Ok(text) => {
                let again = quadlet(&text, &Origin::default()).unwrap();
                prop_assert_eq!(canonical(&again.config().unwrap()).unwrap(), canonical(&record.config().unwrap()).unwrap());
            }
            // Mounts at odd places are refused, and nothing else is.
            Err(fault) => prop_assert!(fault.to_string().contains("mount"), "{}", fault),
        }
        let unit = unit_of(&record);
        let text = standard_input(&unit);
        let embedded = Record::parse(&text).unwrap();
        prop_assert_eq!(canonical(&embedded.config().unwrap()).unwrap(), canonical(&record.config().unwrap()).unwrap());
    }

    #[test]
    fn no_quadlet_makes_it_panic(lines in proptest::collection::vec(("[A-Z][A-Za-z]{2,9}|Exec|Environment|Volume|Mount|PodmanArgs|Image", "[^\0]{0,16}"), 0..6)) {
        let text: String = lines.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("\n");
        let _ = quadlet(&format!("[Container]\n{text}"), &origin());
    }
}
