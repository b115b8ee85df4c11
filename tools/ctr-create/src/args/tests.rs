use super::*;
use clap::{CommandFactory, Parser};

#[derive(Debug, Parser)]
#[command(name = "x", version)]
struct Both {
    #[command(flatten)]
    flags: CreateFlags,
    #[command(flatten)]
    words: CommandWords,
    #[command(flatten)]
    common: cli::Common,
}

fn parse(line: &[&str]) -> std::result::Result<Both, clap::Error> {
    Both::try_parse_from(std::iter::once("x").chain(line.iter().copied()))
}

fn apply_to(record: &str, line: &[&str]) -> Result<Config> {
    let both = parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    let mut config: Config = serde_json::from_str(record).unwrap();
    let variable = |name: &str| (name == "FROM_HERE").then(|| "here".to_owned());
    let caller = Caller {
        variable: &variable,
        environment: &|| vec!["FROM_HERE=here".to_owned()],
        absolute: &|path| Ok(Path::new("/here").join(path)),
    };
    both.flags.apply_for(&caller, &both.words.command, &mut config)?;
    Ok(config)
}

fn json(record: &str, line: &[&str]) -> serde_json::Value {
    serde_json::to_value(apply_to(record, line).unwrap()).unwrap()
}

#[test]
fn the_definition_is_consistent() {
    Both::command().debug_assert();
}

#[test]
fn every_flag_reaches_its_member() {
    let line = "--name n -h h -e A=1 -e FROM_HERE -e GONE -w /w -u 1:2 --group-add 3 --entrypoint /e -t -i --rm --init -l a \
        --label b=c --annotation d=e --stop-signal INT --stop-timeout -1 --log-driver json-file \
        --log-opt max-size=1m --platform linux/amd64 --runtime ./crun --rootfs r -v ./s:/s:ro -v vol:/v --tmpfs /t:size=1m \
        --mount type=bind,src=/m,dst=/m --volumes-from web:ro --volume-driver local --secret db,type=env --secret id=k,src=key --read-only --device /dev/fuse --cap-add NET_ADMIN --cap-drop ALL --privileged \
        --security-opt no-new-privileges --security-opt seccomp=p.json -m 1g --cpus 1.5 -c 512 --cpuset-cpus 0 \
        --pids-limit -1 --ulimit nofile=1 --sysctl net.a=1 --net none -p 80:80 --pid host --ipc none --uts private \
        --health-cmd true --health-interval 1s --health-timeout 2s --health-retries 3 --health-start-period 4s \
        --health-start-interval 5s --health-on-failure kill cmd -x --name";
    let words: Vec<&str> = line.split_whitespace().collect();
    let expected: serde_json::Value = serde_json::from_str(r#"{
        "name":"n","command":["cmd","-x","--name"],"entrypoint":["/e"],"env":["A=1","FROM_HERE=here","GONE"],"workdir":"/w",
        "user":"1:2","group_add":["3"],"hostname":"h","tty":true,"interactive":true,"auto_remove":true,"init":true,
        "mounts":[
            {"type":"bind","source":"/here/./s","target":"/s","read_only":true,"create_source":true},
            {"type":"volume","source":"vol","target":"/v"},
            {"type":"bind","source":"/m","target":"/m"},
            {"type":"tmpfs","target":"/t","size":"1m"}],
        "volumes_from":["web:ro"],"volume_driver":"local","secrets":["db,type=env","id=k,src=/here/key"],
        "read_only":true,"devices":["/dev/fuse"],"cap_add":["NET_ADMIN"],"cap_drop":["ALL"],"privileged":true,
        "security_opt":["no-new-privileges","seccomp=/here/p.json"],"memory":"1g","cpus":"1.5","cpu_shares":512,
        "cpuset_cpus":"0","pids_limit":-1,"ulimits":["nofile=1"],"sysctls":{"net.a":"1"},"network":"none","pid":"host",
        "ipc":"none","uts":"private","ports":["80:80"],"labels":{"a":"","b":"c"},"annotations":{"d":"e"},"stop_signal":"INT",
        "stop_timeout":-1,"log_driver":"json-file","log_opts":{"max-size":"1m"},"runtime":"/here/./crun",
        "rootfs":"/here/r","platform":"linux/amd64",
        "healthcheck":{"test":["CMD-SHELL","true"],"interval":"1s","timeout":"2s","retries":3,
            "start_period":"4s","start_interval":"5s","on_failure":"kill"}}"#).unwrap();
    assert_eq!(json("{}", &words), expected);
}

#[test]
fn every_further_flag_reaches_its_member() {
    let line = "--memory-reservation 1m --memory-swap -1 --memory-swappiness 5 --oom-kill-disable --oom-score-adj -5 --cpu-period 50000 \
        --cpu-quota -1 --cpu-rt-period 2 --cpu-rt-runtime 1 --cpuset-mems 0 --blkio-weight 10 --blkio-weight-device /dev/a:10 \
        --device-read-bps /dev/a:1m --device-write-bps /dev/a:2m --device-read-iops /dev/a:3 --device-write-iops /dev/a:4 \
        --cgroup-conf memory.high=1 --rdt-class c --shm-size 1m --domainname d --add-host a:1.1.1.1 --dns 1.1.1.1 --dns-search s \
        --dns-opt ndots:1 --expose 80 -P --env-host --env-merge A=$B --unsetenv C --unsetenv-all --http-proxy --umask 027 --tz UTC \
        --passwd-entry p --group-entry g --personality LINUX --gpus 1 --device v.com/c=x --device-cgroup-rule=a --cgroupns host \
        --cgroup-parent p --cgroups enabled --timeout 9 --pidfile f --hooks-dir h --isolation default";
    let words: Vec<&str> = line
        .split_whitespace()
        .map(|word| if word.ends_with("rule=a") { "--device-cgroup-rule=a *:* m" } else { word })
        .collect();
    let expected: serde_json::Value = serde_json::from_str(r#"{
        "memory_reservation":"1m","memory_swap":"-1","memory_swappiness":5,"oom_kill_disable":true,"oom_score_adj":-5,
        "cpu_period":50000,"cpu_quota":-1,"cpu_rt_period":2,"cpu_rt_runtime":1,"cpuset_mems":"0","blkio_weight":10,
        "blkio_weight_devices":["/dev/a:10"],"device_read_bps":["/dev/a:1m"],"device_write_bps":["/dev/a:2m"],
        "device_read_iops":["/dev/a:3"],"device_write_iops":["/dev/a:4"],"cgroup_conf":{"memory.high":"1"},"rdt_class":"c",
        "shm_size":"1m","domainname":"d","add_host":["a:1.1.1.1"],"dns":["1.1.1.1"],"dns_search":["s"],"dns_option":["ndots:1"],
        "expose":["80"],"publish_all":true,"env_host":["FROM_HERE=here"],"env_merge":["A=$B"],"unsetenv":["C"],"unsetenv_all":true,
        "umask":"027","tz":"UTC","passwd_entry":"p","group_entry":"g","personality":"LINUX","devices":["v.com/c=x","nvidia.com/gpu=0"],
        "device_cgroup_rules":["a *:* m"],"cgroupns":"host","cgroup_parent":"p","timeout":9,"pidfile":"/here/f",
        "hooks_dir":["/here/h"]}"#).unwrap();
    assert_eq!(json("{}", &words), expected);
    // All of it once more, over what a record has.
    let again = json(&expected.to_string(), &[]);
    assert_eq!(again, expected);
}

/// docker's switches take a value, too.
#[test]
fn switches() {
    assert_eq!(
        json("{}", &["-it", "--rm=false", "--init=true"]),
        serde_json::json!({"tty":true,"interactive":true,"init":true})
    );
    assert_eq!(json("{}", &["-ti", "-i=false", "x"])["interactive"], serde_json::Value::Null);
    assert_eq!(json("{}", &["-itP", "x"])["command"], serde_json::json!(["x"]));
}

#[test]
fn a_flag_wins_and_lists_join() {
    let record = r#"{"name":"old","command":["a"],"env":["A=1"],"mounts":["/x:/m:ro",{"target":"/keep"}],"tty":true,
        "labels":{"a":"1"},"later":5}"#;
    let config = json(record, &["--name", "new", "-e", "B=2", "-v", "/y:/m/", "-l", "a=2"]);
    assert_eq!(config["name"], "new");
    assert_eq!(config["command"], serde_json::json!(["a"]));
    assert_eq!(config["env"], serde_json::json!(["A=1", "B=2"]));
    assert_eq!(config["mounts"][0]["target"], "/keep");
    assert_eq!(
        (&config["mounts"][1]["source"], &config["mounts"][2]),
        (&"/y".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&config["tty"], &config["labels"]["a"], &config["later"]),
        (&true.into(), &"2".into(), &5.into())
    );
    assert_eq!(
        json(record, &[]),
        serde_json::to_value(serde_json::from_str::<Config>(record).unwrap()).unwrap()
    );
}

#[test]
fn the_command_begins_at_the_first_word() {
    for line in [&["--rm", "ls", "--rm", "-l"][..], &["--rm", "--", "ls", "--rm", "-l"]] {
        assert_eq!(json("{}", line)["command"], serde_json::json!(["ls", "--rm", "-l"]));
    }
    assert_eq!(json("{}", &["--", "-x"])["command"], serde_json::json!(["-x"]));
    assert_eq!(json("{}", &["ls", "--", "-l"])["command"], serde_json::json!(["ls", "--", "-l"]));
}

#[test]
fn the_last_of_a_flag_given_twice_counts() {
    assert_eq!(json("{}", &["-m", "1g", "--memory", "2g", "-t", "-t"])["memory"], "2g");
}

#[test]
fn what_is_not_a_flag_is_an_error() {
    for line in
        [&["--no-such", "x"][..], &["--replace"], &["-Q"], &["--pids-limit", "x"], &["--cpu-shares", "-1"]]
    {
        assert!(parse(line).is_err(), "{line:?}");
    }
    let help = parse(&["--help"]).unwrap_err();
    assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp);
    assert!(help.to_string().contains("--security-opt"));
}

#[test]
fn wrong_values_are_usage_errors() {
    for line in [
        "-m lots",
        "--cpus x",
        "-v x/y:/x",
        "-v a:b:c:d",
        "--mount type=x,dst=/y",
        "--tmpfs x",
        "--cap-add FLY",
        "--ulimit n=1",
        "--security-opt label=type:x",
        "--memory-swap 1g",
        "--memory-swappiness 101",
        "--blkio-weight 1",
        "--device-read-bps sda:1",
        "--device-cgroup-rule c",
        "--gpus none",
        "--umask 9",
        "--tz ../etc/passwd",
        "--add-host x",
        "--dns x",
        "--expose 0",
        "--cgroup-parent /../x",
        "--cgroups split",
        "--cgroupns x",
        "--personality BSD",
        "--timeout 0",
        "--read-only-tmpfs",
        "--env-merge X",
        "--link a:b",
        "--storage-opt size=x",
        "--storage-opt size=0",
        "--storage-opt dm.basesize=1g",
        "--disable-content-trust",
        "--isolation hyperv",
        "--security-opt seccomp=",
        "--device fuse",
        "--network n/e/t",
        "--pid none",
        "--restart maybe",
        "--log-driver fluentd",
        "--log-opt max-size",
        "-p 70000:80",
        "-l =x",
        "--sysctl vm.x=1",
        "--stop-signal NO",
        "--rm --restart always",
        "-e =x",
        "-v /a:/x -v /b:/x",
        "--uts host -h name",
        "--platform a/b/c/d/e",
        "--pids-limit -7",
        "--volumes-from :ro",
        "--health-interval x",
        "--health-on-failure explode",
        "--no-healthcheck --health-retries 3",
        "--rm --health-on-failure restart",
        "--volumes-from x:colour",
        "--secret a/b",
        "--secret db,type=x",
        "-v /a:/run/secrets/x --secret x",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let fault = apply_to("{}", &words).expect_err(line);
        assert_eq!(fault.kind(), Kind::Usage, "{line}: {fault}");
    }
}

/// Port 0 of the host is any free one, as docker's.
#[test]
fn a_port_may_be_any() {
    assert_eq!(json("{}", &["-p", "0:80"])["ports"], serde_json::json!(["0:80"]));
}

#[test]
fn environment_files() {
    let path = std::env::temp_dir().join(format!("ctr-create-env-{}", std::process::id()));
    std::fs::write(&path, "A=file\n#x\nFROM_HERE\n").unwrap();
    let name = path.to_str().unwrap();
    assert_eq!(
        json("{}", &["-e", "A=flag", "--env-file", name])["env"],
        serde_json::json!(["A=file", "FROM_HERE=here", "A=flag"])
    );
    std::fs::write(&path, "A B=x\n").unwrap();
    assert_eq!(apply_to("{}", &["--env-file", name]).unwrap_err().kind(), Kind::Usage);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(apply_to("{}", &["--env-file", name]).unwrap_err().kind(), Kind::NotFound);
}
