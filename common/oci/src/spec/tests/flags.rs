//! What further flags make of a specification.

use super::*;

#[test]
fn limits_of_control_groups() {
    let spec = spec(
        r#"{"command":["x"],"memory_reservation":"32m","memory_swappiness":10,"oom_kill_disable":true,"cpu_period":50000,"cpu_quota":20000,
        "cpuset_mems":"0","cpu_rt_period":5,"cpu_rt_runtime":4,"blkio_weight":100,"cgroup_conf":{"memory.high":"1","a.b":"2"},"rdt_class":"c",
        "oom_score_adj":7,"umask":"0027","personality":"linux32","domainname":"d.e","cgroup_parent":"batch/jobs",
        "device_cgroup_rules":["b 8:* rw"]}"#,
    );
    let resources = &spec["linux"]["resources"];
    assert_eq!(
        resources["memory"],
        json!({"reservation": 33_554_432, "swappiness": 10, "disableOOMKiller": true})
    );
    assert_eq!(
        resources["cpu"],
        json!({"quota": 20000, "period": 50000, "mems": "0", "realtimePeriod": 5, "realtimeRuntime": 4})
    );
    assert_eq!(
        (&resources["blockIO"]["weight"], &resources["unified"]["memory.high"]),
        (&json!(100), &json!("1"))
    );
    let rule = json!({"allow": true, "type": "b", "major": 8, "access": "rw"});
    assert_eq!(resources["devices"].as_array().unwrap().last().unwrap(), &rule);
    assert_eq!(
        (&spec["process"]["oomScoreAdj"], &spec["process"]["user"]["umask"]),
        (&json!(7), &json!(0o27))
    );
    assert_eq!(
        (&spec["linux"]["personality"]["domain"], &spec["domainname"]),
        (&json!("LINUX32"), &json!("d.e"))
    );
    assert_eq!(spec["linux"]["intelRdt"]["closID"], "c");
    assert!(spec["linux"]["cgroupsPath"].as_str().unwrap().starts_with("/batch/jobs/0123456789ab"));
    let swap = |config: &str, facts: &Facts| {
        with(None, config, facts)
            .map(|made| made.json().unwrap()["linux"]["resources"]["memory"]["swap"].clone())
    };
    let counted = Facts { swap_accounting: true, ..facts() };
    assert_eq!(swap(r#"{"command":["x"],"memory":"64m","memory_swap":"-1"}"#, &counted).unwrap(), -1);
    assert_eq!(swap(r#"{"command":["x"],"memory":"64m"}"#, &counted).unwrap(), 128 << 20);
    assert!(swap(r#"{"command":["x"],"memory":"64m","memory_swap":"-1"}"#, &facts()).is_err());
    // Not a block device.
    assert!(with(None, r#"{"command":["x"],"device_read_bps":["/dev/fuse:1m"]}"#, &facts()).is_err());
}

#[test]
fn devices_by_name_bring_along_what_they_need() {
    let spec = spec(r#"{"command":["x"],"devices":["v.com/c=a"]}"#);
    assert!(strings(&spec["process"]["env"]).contains(&"CDI=1"));
    assert_eq!(strings(&mount(&spec, "/l").unwrap()["options"]), ["ro", "rbind"]);
    assert_eq!(spec["hooks"]["createContainer"][0], json!({"path": "/hook", "args": ["hook", "x"]}));
    assert!(spec["process"]["user"]["additionalGids"].as_array().unwrap().contains(&json!(44)));
    let node = spec["linux"]["devices"].as_array().unwrap().last().unwrap();
    assert_eq!(node["path"], "/dev/given");
    assert_eq!(spec["linux"]["resources"]["devices"].as_array().unwrap().last().unwrap()["access"], "r");
    assert!(with(None, r#"{"command":["x"],"devices":["v.com/c=none"]}"#, &facts()).is_err());
}

#[test]
fn variables_in_their_order() {
    let variables = |config: &str| {
        let made = with(Some(&image()), config, &facts()).unwrap().json().unwrap();
        strings(&made["process"]["env"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let host = variables(
        r#"{"env_host":["A=host","B=host"],"env_merge":["PATH=${PATH}:/x"],"unsetenv":["HOSTNAME"]}"#,
    );
    assert_eq!(host, ["PATH=/bin:/x", "A=image", "B=host", "HOME=/var/www"]);
    assert_eq!(variables(r#"{"unsetenv_all":true,"env":["X=1"]}"#), ["X=1"]);
    assert_eq!(variables(r#"{"unsetenv":["A","HOME","HOSTNAME"],"env":["A=2"]}"#), ["PATH=/bin", "A=2"]);
}

#[test]
fn security_options_change_paths_and_mounts() {
    let masked = |option: &str| {
        let made = spec(&format!(r#"{{"command":["x"],"security_opt":["{option}"],"cgroupns":"private"}}"#));
        let list = |name: &str| {
            strings(&made["linux"][name]).iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()
        };
        (list("maskedPaths"), list("readonlyPaths"), made)
    };
    let (hidden, read_only, _) = masked("systempaths=unconfined");
    assert!(hidden.is_empty() && read_only.is_empty());
    let (hidden, _, _) = masked("mask=/srv");
    assert!(hidden.contains(&"/srv".to_owned()) && hidden.len() == 13);
    let (hidden, read_only, _) = masked("unmask=/proc/*");
    assert!(hidden.iter().all(|path| path.starts_with("/sys")) && read_only.is_empty());
    let (_, _, made) = masked("writable-cgroups");
    assert!(!options(&made, "/sys/fs/cgroup").contains(&"ro"));
    let (_, _, made) = masked("proc-opts=hidepid=2");
    assert!(options(&made, "/proc").contains(&"hidepid=2"));
    assert!(with(None, r#"{"command":["x"],"security_opt":["writable-cgroups"]}"#, &facts()).is_err());
}

#[test]
fn files_of_users_and_zones() {
    let made = plain(
        r#"{"command":["x"],"user":"www","passwd_entry":"$USERNAME:x:$UID:$GID::$HOME:/bin/ash","group_entry":"g:x:9:","tz":"UTC"}"#,
    );
    assert_eq!(made.files[0].0, "passwd");
    assert!(made.files[0].1.ends_with("\nwww:x:33:33::/var/www:/bin/ash\n"), "{}", made.files[0].1);
    assert!(made.files[1].1.ends_with("\ng:x:9:\n"));
    let spec = made.json().unwrap();
    assert_eq!(mount(&spec, "/etc/passwd").unwrap()["source"], "/c/me/passwd");
    assert_eq!(mount(&spec, "/etc/localtime").unwrap()["source"], "/usr/share/zoneinfo/UTC");
    for wrong in [
        r#"{"command":["x"],"passwd_entry":"a:b"}"#,
        r#"{"command":["x"],"group_entry":"a:b:c:d\nroot:x:0:0"}"#,
    ] {
        assert!(with(None, wrong, &facts()).is_err(), "{wrong}");
    }
    let tmpfs = crate::spec::to_json(
        &plain(r#"{"command":["x"],"read_only":true,"read_only_tmpfs":true,"shm_size":"1m"}"#).spec,
    )
    .unwrap();
    assert!(
        options(&tmpfs, "/var/tmp").contains(&"tmpcopyup")
            && options(&tmpfs, "/dev/shm").contains(&"size=1048576")
    );
}
