mod flags;

use super::*;
use fault::Kind;
use serde_json::{Value, json};

struct Fake;

impl Lookup for Fake {
    fn all_devices(&self) -> Result<Vec<HostDevice>> {
        Ok(vec![device("/dev/null", 'c', 1, 3), device("/dev/sda", 'b', 8, 0)])
    }

    fn devices_at(&self, path: &str) -> Result<Vec<HostDevice>> {
        match path {
            "/dev/fuse" => Ok(vec![device("/dev/fuse", 'c', 10, 229)]),
            "/dev/snd" => {
                Ok(vec![device("/dev/snd/seq", 'c', 116, 1), device("/dev/snd/timer", 'c', 116, 33)])
            }
            _ => Err(Fault::not_found(format!("no device at {path}"))),
        }
    }

    fn peer(&self, container: &str) -> Result<Peer> {
        match container {
            "web" => Ok(Peer { pid: 77, bundle: "/c/web".into(), hostname: "webhost".into() }),
            other => Err(Fault::not_found("no such container").on(other)),
        }
    }

    fn user_namespace(&self, mode: &UserMode, _: &Identity) -> Result<UserNamespace> {
        if let UserMode::Path(path) = mode {
            return Ok(UserNamespace::Join(path.into()));
        }
        let one = |size| vec![IdMap { container: 0, host: 100_000, size }];
        Ok(UserNamespace::New { uids: one(65_536), gids: one(4) })
    }

    fn profile(&self, path: &str) -> Result<String> {
        match path {
            "/ok.json" => Ok(r#"{"defaultAction":"SCMP_ACT_LOG"}"#.into()),
            _ => Err(Fault::not_found(format!("open {path}"))),
        }
    }

    fn cdi_files(&self) -> Result<Vec<crate::cdi::SpecFile>> {
        let text = r#"{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{"name":"a","containerEdits":{
            "env":["CDI=1"],"deviceNodes":[{"path":"/dev/given","hostPath":"/dev/fuse","permissions":"r"}],
            "mounts":[{"hostPath":"/lib","containerPath":"/l","options":["ro"]}],
            "hooks":[{"hookName":"createContainer","path":"/hook","args":["hook","x"]}],"additionalGIDs":[44]}}]}"#;
        let file =
            crate::cdi::SpecFile { path: "/etc/cdi/v.json".into(), priority: 0, json: Ok(text.into()) };
        Ok(vec![file])
    }

    fn time_zone(&self, name: &str) -> Result<std::path::PathBuf> {
        Ok(std::path::Path::new("/usr/share/zoneinfo").join(name))
    }
}

fn device(path: &str, kind: char, major: i64, minor: i64) -> HostDevice {
    HostDevice { path: path.into(), kind, major, minor, mode: 0o666, uid: 0, gid: 5 }
}

fn facts() -> Facts {
    Facts {
        kernel: (6, 1),
        architecture: Architecture::by_name("x86_64"),
        cgroup_v2: false,
        capabilities: CapSet::ALL,
        apparmor: false,
        cpus: 2,
        swap_accounting: false,
        hard_limits: vec![(PosixRlimitType::RlimitNofile, 4096)],
        hostname: "machine".into(),
        init: Some("/usr/bin/init".into()),
        thermal_throttles: 0,
        ipv4_sysctls: true,
    }
}

fn image() -> Value {
    json!({"architecture":"amd64","os":"linux","config":{
        "Env":["PATH=/bin","A=image","=bad","bad"],"Entrypoint":["/entry"],"Cmd":["-c","x"],"WorkingDir":"/srv//app/","User":"www",
        "Volumes":{"/data":{}},"StopSignal":"SIGQUIT","Labels":null}})
}

fn files() -> UserFiles {
    UserFiles {
        passwd: Some("root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\n".into()),
        group: Some("www:x:33:\nextra:x:50:www\n".into()),
    }
}

fn with(image: Option<&Value>, config: &str, facts: &Facts) -> Result<Generated> {
    let identity = Identity {
        id: "0123456789ab".to_owned() + &"0".repeat(52),
        name: "calm".into(),
        bundle: Some("/c/me".into()),
        root: "rootfs".into(),
        volumes: "/v".into(),
    };
    generate(image, &serde_json::from_str(config).unwrap(), &files(), &identity, facts, &Fake)
}

fn plain(config: &str) -> Generated {
    with(None, config, &facts()).unwrap_or_else(|fault| panic!("{config}: {fault}"))
}

fn spec(config: &str) -> Value {
    plain(config).json().unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn mount<'a>(spec: &'a Value, target: &str) -> Option<&'a Value> {
    spec["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == target)
}

fn options<'a>(spec: &'a Value, target: &str) -> Vec<&'a str> {
    strings(&mount(spec, target).unwrap_or_else(|| panic!("no mount at {target}"))["options"])
}

/// The default specification, whole. Written anew with `STAVES_UPDATE=1`.
#[test]
fn the_default_specification_is_this() {
    let mut spec = spec(r#"{"command":["sh"]}"#);
    // The filter has tests of its own.
    spec["linux"]["seccomp"]["syscalls"] = json!([]);
    let text = serde_json::to_string_pretty(&spec).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spec/default.json");
    if std::env::var_os("STAVES_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(text == expected, "the default specification changed:\n{text}");
}

#[test]
fn arguments_follow_dockers_rules() {
    let image = image();
    for (config, expected) in [
        ("{}", &["/entry", "-c", "x"][..]),
        (r#"{"command":["y"]}"#, &["/entry", "y"]),
        (r#"{"command":[]}"#, &["/entry", "-c", "x"]),
        (r#"{"entrypoint":["/e"]}"#, &["/e"]),
        (r#"{"entrypoint":["/e","1"],"command":["2"]}"#, &["/e", "1", "2"]),
        (r#"{"entrypoint":[""],"command":["2"]}"#, &["2"]),
        (r#"{"entrypoint":[],"command":["2"]}"#, &["2"]),
        (r#"{"init":true,"command":["2"]}"#, &["/sbin/staves-init", "--", "/entry", "2"]),
        (r#"{"init":true,"pid":"host"}"#, &["/entry", "-c", "x"]),
    ] {
        let spec = with(Some(&image), config, &facts()).unwrap().json().unwrap();
        assert_eq!(strings(&spec["process"]["args"]), expected, "{config}");
    }
    for config in ["{}", r#"{"entrypoint":[""]}"#, r#"{"command":[""]}"#] {
        assert_eq!(with(None, config, &facts()).unwrap_err().kind(), Kind::Usage, "{config}");
    }
    assert_eq!(with(Some(&image), r#"{"entrypoint":[""]}"#, &facts()).unwrap_err().kind(), Kind::Usage);
    assert_eq!(with(None, r#"{"command":["a\u0000b"]}"#, &facts()).unwrap_err().kind(), Kind::Input);
}

#[test]
fn environment_user_and_directory() {
    let generated = with(
        Some(&image()),
        r#"{"env":["A=me","NEW=","HOSTNAME=x"],"tty":true,"workdir":"/a/../b"}"#,
        &facts(),
    )
    .unwrap();
    let spec = generated.json().unwrap();
    assert_eq!(
        strings(&spec["process"]["env"]),
        ["PATH=/bin", "HOSTNAME=x", "TERM=xterm", "A=me", "NEW=", "HOME=/var/www"]
    );
    assert_eq!(spec["process"]["user"], json!({"uid":33,"gid":33,"additionalGids":[33,50]}));
    assert_eq!(spec["process"]["cwd"], "/b");
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(generated.stop_signal, 3);
    let capabilities = &spec["process"]["capabilities"];
    assert_eq!(capabilities["bounding"].as_array().unwrap().len(), 14);
    assert_eq!((&capabilities["effective"], &capabilities["permitted"]), (&json!([]), &json!([])));

    let root = with(Some(&image()), r#"{"user":"0","stop_signal":"9","env":["A"]}"#, &facts()).unwrap();
    assert_eq!(root.stop_signal, 9);
    let spec = root.json().unwrap();
    assert_eq!(spec["process"]["capabilities"]["effective"].as_array().unwrap().len(), 14);
    assert!(!strings(&spec["process"]["env"]).iter().any(|variable| variable.starts_with("A=")));
    assert_eq!(spec["process"]["cwd"], "/srv/app");
    assert_eq!(
        with(None, r#"{"command":["x"],"user":"ghost"}"#, &facts()).unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(with(None, r#"{"command":["x"],"workdir":"rel"}"#, &facts()).unwrap_err().kind(), Kind::Input);
}

#[test]
fn capabilities_the_caller_lacks_are_left_out_aloud() {
    let poor = Facts { capabilities: CapSet::default_of_containers(), ..facts() };
    let generated = with(None, r#"{"command":["x"],"cap_add":["SYS_ADMIN","chown"]}"#, &poor).unwrap();
    assert_eq!(generated.warnings.len(), 1);
    assert!(generated.warnings[0].contains("CAP_SYS_ADMIN") && !generated.warnings[0].contains("CHOWN"));
    let generated = with(None, r#"{"command":["x"],"cap_add":["ALL"]}"#, &poor).unwrap();
    assert!(generated.warnings.is_empty());
    assert_eq!(
        generated.json().unwrap()["process"]["capabilities"]["bounding"].as_array().unwrap().len(),
        14
    );
}

#[test]
fn namespaces_by_mode() {
    let kinds = |config: &str| {
        let spec = spec(config);
        spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let all = kinds(r#"{"command":["x"]}"#);
    for kind in ["mount", "network", "uts", "pid", "ipc"] {
        assert!(all.contains(&format!("\"{kind}\"")), "{kind}");
    }
    assert!(!all.contains("cgroup"));
    let host = kinds(r#"{"command":["x"],"network":"host","pid":"host","ipc":"host","uts":"host"}"#);
    assert_eq!(host, r#"{"type":"mount"}"#);
    let joined =
        kinds(r#"{"command":["x"],"network":"container:web","pid":"container:web","ipc":"container:web"}"#);
    for path in ["/proc/77/ns/net", "/proc/77/ns/pid", "/proc/77/ns/ipc"] {
        assert!(joined.contains(path), "{path}");
    }
    let v2 =
        with(None, r#"{"command":["x"]}"#, &Facts { cgroup_v2: true, ..facts() }).unwrap().json().unwrap();
    assert!(v2["linux"]["namespaces"].to_string().contains("cgroup"));
    assert_eq!(
        with(None, r#"{"command":["x"],"pid":"container:no"}"#, &facts()).unwrap_err().kind(),
        Kind::NotFound
    );
}

#[test]
fn host_names() {
    for (config, name, in_spec) in [
        (r#"{"command":["x"]}"#, "0123456789ab", true),
        (r#"{"command":["x"],"hostname":"me.example"}"#, "me.example", true),
        (r#"{"command":["x"],"network":"host"}"#, "machine", true),
        (r#"{"command":["x"],"uts":"host"}"#, "machine", false),
        (r#"{"command":["x"],"network":"container:web"}"#, "webhost", true),
    ] {
        let generated = plain(config);
        assert_eq!(generated.hostname, name, "{config}");
        assert_eq!(generated.spec.hostname().is_some(), in_spec, "{config}");
    }
}

#[test]
fn mounts_are_placed_sorted_and_replaced() {
    let generated = plain(
        r#"{"command":["x"],"mounts":["/h/deep:/a/b/c:ro","/h/a:/a","vol:/v:nocopy","/anon","/h/hosts:/etc/hosts",
            {"type":"tmpfs","target":"/t","size":"1m","options":["exec"],"read_only":true},"/h/s:/s:rslave","type=bind,src=/m,dst=/m"]}"#,
    );
    let spec = generated.json().unwrap();
    let order: Vec<&str> =
        spec["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
    let at = |target: &str| order.iter().position(|t| *t == target).unwrap();
    assert!(at("/proc") < at("/a") && at("/a") < at("/a/b/c") && at("/dev") < at("/dev/shm"));
    assert_eq!(order.iter().filter(|t| **t == "/etc/hosts").count(), 1);
    assert_eq!(mount(&spec, "/etc/hosts").unwrap()["source"], "/h/hosts");
    assert_eq!(mount(&spec, "/etc/resolv.conf").unwrap()["source"], "/c/me/resolv.conf");
    assert_eq!(options(&spec, "/a/b/c"), ["rbind", "rprivate", "rro"]);
    assert_eq!(options(&spec, "/t"), ["nosuid", "nodev", "exec", "size=1048576", "ro", "rprivate"]);
    assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
    let volumes: Vec<_> = generated
        .volumes
        .iter()
        .map(|v| (v.name.len(), v.anonymous, v.target.as_str(), v.populate))
        .collect();
    assert_eq!(volumes, [(3, false, "/v", false), (64, true, "/anon", true)]);
    assert_eq!(mount(&spec, "/v").unwrap()["source"], "/v/vol/_data");
    assert!(generated.binds.iter().any(|b| b.source.to_str() == Some("/h/a") && b.create));
    assert!(generated.binds.iter().any(|b| b.source.to_str() == Some("/m") && !b.create));
    assert!(generated.binds.iter().all(|b| !b.source.starts_with("/c/me")));

    let old = with(None, r#"{"command":["x"],"mounts":["/h:/a:ro"]}"#, &Facts { kernel: (5, 4), ..facts() })
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(options(&old, "/a"), ["rbind", "rprivate", "ro"]);
}

#[test]
fn a_mount_over_etc_keeps_the_names_resolving() {
    let spec = spec(r#"{"command":["x"],"mounts":["/h:/etc","/i:/etc/inner"],"init":true}"#);
    let order: Vec<&str> =
        spec["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
    let at = |target: &str| order.iter().position(|t| *t == target).unwrap();
    assert!(
        at("/etc") < at("/etc/hosts")
            && at("/etc") < at("/etc/inner")
            && at("/dev/shm") < at("/sbin/staves-init")
    );
}

#[test]
fn image_volumes_give_way_to_the_users_mounts() {
    let generated = with(Some(&image()), "{}", &facts()).unwrap();
    assert!(generated.volumes.iter().any(|v| v.anonymous && v.target == "/data"));
    let again = with(Some(&image()), "{}", &facts()).unwrap();
    assert_eq!(generated.volumes, again.volumes);
    let generated = with(Some(&image()), r#"{"mounts":["/h:/data/"]}"#, &facts()).unwrap();
    assert!(generated.volumes.is_empty());
    for path in ["relative", "/proc/sys", "/", "/x/../proc"] {
        let image = json!({"config":{"Cmd":["x"],"Volumes":{path:{}}}});
        assert_eq!(with(Some(&image), "{}", &facts()).unwrap_err().kind(), Kind::Input, "{path}");
    }
}

#[test]
fn dev_of_the_users_own_and_shared_memory() {
    let spec = spec(r#"{"command":["x"],"mounts":["/dev:/dev"]}"#);
    assert!(mount(&spec, "/dev/pts").is_none() && mount(&spec, "/dev/shm").is_none());
    let of = |ipc: &str| self::spec(&format!(r#"{{"command":["x"],"ipc":"{ipc}"}}"#));
    assert!(mount(&of("none"), "/dev/shm").is_none());
    assert_eq!(mount(&of("host"), "/dev/shm").unwrap()["source"], "/dev/shm");
    assert_eq!(mount(&of("container:web"), "/dev/shm").unwrap()["source"], "/proc/77/root/dev/shm");
}

#[test]
fn privileged_opens_everything() {
    let spec = spec(r#"{"command":["x"],"privileged":true,"devices":["/dev/fuse:/dev/fuse2"]}"#);
    assert!(
        spec["linux"]["seccomp"].is_null()
            && spec["linux"]["maskedPaths"].is_null()
            && spec["linux"]["readonlyPaths"].is_null()
    );
    assert!(!options(&spec, "/sys").contains(&"ro") && !options(&spec, "/sys/fs/cgroup").contains(&"ro"));
    assert_eq!(spec["process"]["capabilities"]["effective"].as_array().unwrap().len(), 41);
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow":true,"access":"rwm"}]));
    let paths: Vec<&str> =
        spec["linux"]["devices"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/null", "/dev/sda", "/dev/fuse2"]);
    let filtered = self::spec(r#"{"command":["x"],"privileged":true,"security_opt":["seccomp=builtin"]}"#);
    assert!(filtered["linux"]["seccomp"].is_object());
}

#[test]
fn devices_and_their_rules() {
    let spec = spec(r#"{"command":["x"],"devices":["/dev/fuse:r","/dev/snd:/dev/sound"]}"#);
    let paths: Vec<&str> =
        spec["linux"]["devices"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/fuse", "/dev/sound/seq", "/dev/sound/timer"]);
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[0], json!({"allow":false,"access":"rwm"}));
    assert!(rules.contains(&json!({"allow":true,"type":"c","major":10,"minor":229,"access":"r"})));
    assert!(rules.contains(&json!({"allow":true,"type":"c","major":116,"minor":33,"access":"rwm"})));
    assert_eq!(
        with(None, r#"{"command":["x"],"devices":["/dev/none"]}"#, &facts()).unwrap_err().kind(),
        Kind::NotFound
    );
}

#[test]
fn limits() {
    let swap = Facts { swap_accounting: true, ..facts() };
    let spec = with(
        None,
        r#"{"command":["x"],"memory":"64m","cpus":"1.5","cpu_shares":512,"cpuset_cpus":"0-1","pids_limit":100,
            "ulimits":["nofile=1024:4096","nofile=10"],"sysctls":{"net.core.somaxconn":"9","net.ipv4.ip_unprivileged_port_start":"80"}}"#,
        &swap,
    )
    .unwrap()
    .json()
    .unwrap();
    let resources = &spec["linux"]["resources"];
    assert_eq!(resources["memory"], json!({"limit": 64 << 20, "swap": 128 << 20}));
    assert_eq!(resources["cpu"], json!({"shares":512,"quota":150_000,"period":100_000,"cpus":"0-1"}));
    assert_eq!(resources["pids"], json!({"limit":100}));
    assert_eq!(spec["process"]["rlimits"], json!([{"type":"RLIMIT_NOFILE","hard":10,"soft":10}]));
    let others = with(
        None,
        r#"{"command":["x"],"memory":"64m","memory_swap":-1,"memory_reservation":"32m","cpu_period":50000,"cpu_quota":25000,
            "cpuset_mems":"0","blkio_weight":500}"#,
        &swap,
    );
    let others = others.unwrap().json().unwrap();
    let resources = &others["linux"]["resources"];
    assert_eq!(resources["memory"], json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": -1}));
    assert_eq!(resources["cpu"], json!({"quota":25_000,"period":50_000,"mems":"0"}));
    assert_eq!(resources["blockIO"], json!({"weight":500}));
    assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "80");
    let poor = Facts { capabilities: CapSet::EMPTY, ..facts() };
    let fault = with(None, r#"{"command":["x"],"ulimits":["nofile=5000"]}"#, &poor).unwrap_err();
    assert_eq!(fault.kind(), Kind::Denied);
    assert!(with(None, r#"{"command":["x"],"ulimits":["nofile=5000"]}"#, &facts()).is_ok());
    for cpus in ["0.001", "2.5"] {
        let config = format!(r#"{{"command":["x"],"cpus":"{cpus}"}}"#);
        assert_eq!(with(None, &config, &facts()).unwrap_err().kind(), Kind::Input);
    }
    let host = self::spec(r#"{"command":["x"],"network":"host"}"#);
    assert!(host["linux"]["sysctl"].is_null());
}

#[test]
fn security_options() {
    let spec = spec(
        r#"{"command":["x"],"security_opt":["no-new-privileges","seccomp=unconfined"],"read_only":true}"#,
    );
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert!(spec["linux"]["seccomp"].is_null());
    assert_eq!(spec["root"], json!({"path":"rootfs","readonly":true}));
    assert!(options(&spec, "/etc/hosts").contains(&"ro"));
    let own = self::spec(r#"{"command":["x"],"security_opt":["seccomp=/ok.json"]}"#);
    assert_eq!(own["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_LOG");
    assert_eq!(
        with(None, r#"{"command":["x"],"security_opt":["seccomp=/no"]}"#, &facts()).unwrap_err().kind(),
        Kind::NotFound
    );
    assert!(with(None, r#"{"command":["x"],"security_opt":["apparmor=mine"]}"#, &facts()).is_err());
    let armed = Facts { apparmor: true, ..facts() };
    let spec =
        with(None, r#"{"command":["x"],"security_opt":["apparmor=mine"]}"#, &armed).unwrap().json().unwrap();
    assert_eq!(spec["process"]["apparmorProfile"], "mine");
    assert!(with(None, r#"{"command":["x"],"security_opt":["apparmor=unconfined"]}"#, &facts()).is_ok());
}

#[test]
fn hostile_image_configurations_are_refused() {
    for config in [
        json!({"Env":"x"}),
        json!({"Cmd":[1]}),
        json!({"Volumes":[]}),
        json!({"WorkingDir":"a","Cmd":["x"]}),
        json!({"User":7}),
    ] {
        let image = json!({"config":config});
        assert_eq!(with(Some(&image), "{}", &facts()).unwrap_err().kind(), Kind::Input, "{config}");
    }
    let image = json!({"config":{"StopSignal":"NONE","Cmd":["x"]}});
    assert_eq!(with(Some(&image), "{}", &facts()).unwrap_err().kind(), Kind::Input);
    assert_eq!(
        with(Some(&json!({"config":[]})), r#"{"command":["x"]}"#, &facts()).unwrap_err().kind(),
        Kind::Input
    );
    for image in [json!(null), json!([]), json!({"config":null}), json!({})] {
        assert!(with(Some(&image), r#"{"command":["x"]}"#, &facts()).is_ok());
    }
}

#[test]
fn a_specification_made_before_its_container_becomes_the_containers() {
    let generate_for = |id: &str, bundle: &str| {
        let identity = Identity {
            id: id.repeat(64),
            name: String::new(),
            bundle: Some(bundle.into()),
            root: "rootfs".into(),
            volumes: "/v".into(),
        };
        let config =
            serde_json::from_str(r#"{"command":["x"],"mounts":["/anon","name:/named","/h:/bound"]}"#)
                .unwrap();
        generate(None, &config, &files(), &identity, &facts(), &Fake).unwrap()
    };
    let before = generate_for("a", "");
    let own = generate_for("b", "/c/b");
    let mut edited = before.json().unwrap();
    assert_eq!(mount(&edited, "/etc/hosts").unwrap()["source"], "hosts");
    edited["process"]["args"] = json!(["edited"]);
    let settled = own.settle(edited.clone()).unwrap();
    let mut expected = own.json().unwrap();
    expected["process"] = edited["process"].clone();
    expected["hostname"] = edited["hostname"].clone();
    assert_eq!(settled, expected);
    let hosts = edited["mounts"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .find(|m| m["destination"] == "/etc/hosts")
        .unwrap();
    hosts["source"] = json!("/mine");
    let settled = own.settle(edited).unwrap();
    assert_eq!(mount(&settled, "/etc/hosts").unwrap()["source"], "/mine");
    for wrong in [json!([]), json!({"linux":1}), json!({"root":"x"})] {
        assert_eq!(own.settle(wrong).unwrap_err().kind(), Kind::Input);
    }
    assert!(
        own.settle(json!({"mounts":5})).is_ok()
            && own.settle(json!({"mounts":[5,{"destination":"/etc/hosts"}]})).is_ok()
    );
}

#[test]
fn an_image_for_another_platform_is_refused() {
    let image = image();
    assert!(with(Some(&image), r#"{"platform":"linux/amd64"}"#, &facts()).is_ok());
    assert_eq!(
        with(Some(&image), r#"{"platform":"linux/arm64"}"#, &facts()).unwrap_err().kind(),
        Kind::Input
    );
}

proptest::proptest! {
    /// Whatever an image or a record says, there is a specification or an error.
    #[test]
    fn nothing_hostile_panics(text in "\\PC{0,30}|[-/:=,.0-9a-z%]{0,30}", number in proptest::num::f64::ANY) {
        let image = json!({"os":text,"architecture":text,"config":{
            "Env":[text],"Cmd":[text],"User":text,"WorkingDir":text,"Volumes":{text.clone():{}},"StopSignal":text}});
        for config in [
            json!({"command":[text],"user":text,"workdir":text,"env":[text],"hostname":text}),
            json!({"command":["x"],"mounts":[text],"platform":text}),
            json!({"command":["x"],"mounts":[{"type":text,"source":text,"target":text,"mode":text,"size":number}]}),
            json!({"command":["x"],"memory":number,"cpus":number}),
            json!({"command":["x"],"memory":text,"security_opt":[format!("seccomp={text}")],"ulimits":[text]}),
            json!({"command":["x"],"network":text,"ports":[text],"devices":[text],"sysctls":{text.clone():text}}),
        ] {
            let config = config.to_string();
            if let Ok(generated) = with(Some(&image), &config, &facts()) {
                proptest::prop_assert!(generated.json().is_ok());
            }
            let _ = with(None, &config, &facts());
        }
    }
}

#[test]
fn the_same_wishes_give_the_same_bytes() {
    let config =
        r#"{"command":["x"],"annotations":{"b":"1","a":"2","c":"3"},"sysctls":{"net.a":"1","net.b":"2"}}"#;
    assert_eq!(spec(config).to_string(), spec(config).to_string());
}

#[test]
fn a_user_namespace_changes_what_it_has_to() {
    let spec = |json: &str| with(None, json, &facts()).unwrap().json().unwrap();
    let mount = |spec: &Value, target: &str| {
        let list = spec["mounts"].as_array().unwrap();
        list.iter().find(|mount| mount["destination"] == target).cloned().unwrap_or_default()
    };
    let own = spec(r#"{"command":["x"],"userns":"auto","mounts":["data:/d","/h:/h","/m:/m:idmap"]}"#);
    assert_eq!(own["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]));
    assert!(own["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "user"})));
    assert_eq!(own["linux"]["sysctl"]["net.ipv4.ping_group_range"], "0 3");
    // Group 5 is not mapped.
    assert!(!strings(&mount(&own, "/dev/pts")["options"]).contains(&"gid=5"));
    for (target, is_mapped) in [("/d", true), ("/h", false), ("/m", true), ("/etc/hosts", true)] {
        assert_eq!(strings(&mount(&own, target)["options"]).contains(&"idmap"), is_mapped, "{target}");
    }
    let shared = spec(r#"{"command":["x"],"userns":"path:/n","network":"host","pid":"host","ipc":"host"}"#);
    assert!(shared["linux"]["uidMappings"].is_null());
    assert!(
        shared["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "user", "path": "/n"}))
    );
    assert_eq!(
        (&mount(&shared, "/sys")["type"], &mount(&shared, "/proc")["type"]),
        (&json!("bind"), &json!("bind"))
    );
    assert!(mount(&shared, "/dev/mqueue").is_null());
    let none = spec(r#"{"command":["x"],"mounts":["data:/d"]}"#);
    assert!(!none.to_string().contains("idmap") && none["linux"]["uidMappings"].is_null());
}
