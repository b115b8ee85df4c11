//! Every flag that says what a container is like, by what is seen from inside; where dockerd is installed it answers the same
//! questions, and both answers have to be equal.

use pipelines::{Bench, Ran, find_program, skip};
use std::fmt::Write as _;

/// A flag, a question asked inside the container in `sh`, and the answer.
struct Case {
    flags: &'static str,
    probe: &'static str,
    answer: Answer,
    /// Whether docker has the flag, and gives the same answer.
    docker: bool,
}

enum Answer {
    Is(&'static str),
    /// What docker answers; where there is none, anything that is not nothing.
    AsDocker,
    /// The control group's file has this value, in version 1 and in version 2; `None`: it has no such limit.
    Group {
        v1: (&'static str, &'static str),
        v2: Option<(&'static str, &'static str)>,
    },
}

const fn is(flags: &'static str, probe: &'static str, answer: &'static str) -> Case {
    Case { flags, probe, answer: Answer::Is(answer), docker: true }
}

/// One docker has not, or answers otherwise.
const fn ours(flags: &'static str, probe: &'static str, answer: &'static str) -> Case {
    Case { flags, probe, answer: Answer::Is(answer), docker: false }
}

const fn same(flags: &'static str, probe: &'static str) -> Case {
    Case { flags, probe, answer: Answer::AsDocker, docker: true }
}

const fn group(
    flags: &'static str,
    v1: (&'static str, &'static str),
    v2: Option<(&'static str, &'static str)>,
) -> Case {
    Case { flags, probe: "", answer: Answer::Group { v1, v2 }, docker: true }
}

const CAPS: &str = "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status";
const LIMITS: &str = "sed -n '2,$p' /proc/self/limits | sed 's/  */ /g'";

const CASES: &[Case] = &[
    is("", "echo $0 $$; id -u; pwd", "sh 1\n0\n/"),
    is("-e A=b", "echo $A", "b"),
    is("-w /tmp", "pwd", "/tmp"),
    is("-u 1234:5678", "id -u; id -g; id -G", "1234\n5678\n5678"),
    is("--group-add 77", "id -G | tr ' ' '\\n' | grep -x 77", "77"),
    is("--hostname box", "hostname; cat /etc/hostname", "box\nbox"),
    is("--domainname example.org", "cat /proc/sys/kernel/domainname", "example.org"),
    is("--oom-score-adj 500", "cat /proc/self/oom_score_adj", "500"),
    is("--read-only", "touch /x 2>/dev/null; echo $?", "1"),
    is("--tmpfs /t:size=1m", "df -k /t | awk 'END { print $2 }'", "1024"),
    is("--shm-size 16m", "df -k /dev/shm | awk 'END { print $2 }'", "16384"),
    is("", "df -k /dev/shm | awk 'END { print $2 }'", "65536"),
    is("--init", "cat /proc/1/cmdline | tr '\\0' ' ' | grep -c init", "1"),
    // Capabilities.
    same("", CAPS),
    same("--cap-add NET_ADMIN", CAPS),
    same("--cap-drop ALL", CAPS),
    same("--cap-drop ALL --cap-add CHOWN", CAPS),
    same("--cap-add ALL --cap-drop SYS_ADMIN", CAPS),
    same("--cap-drop chown --cap-drop CAP_KILL", CAPS),
    same("-u 1000", CAPS),
    same("-u 1000 --cap-add SYS_PTRACE", CAPS),
    same("--privileged", CAPS),
    same("--privileged --cap-drop SYS_ADMIN", CAPS),
    // Security.
    is("", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | awk '{ print $2 }'", "0\n2"),
    is("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status | awk '{ print $2 }'", "1"),
    is("--security-opt seccomp=unconfined", "grep ^Seccomp: /proc/self/status | awk '{ print $2 }'", "0"),
    is("--security-opt systempaths=unconfined", "grep -c ' /proc/' /proc/mounts", "0"),
    is("--security-opt label=disable", "echo ran", "ran"),
    // Newer ones hide the interrupts, too.
    same("", "grep -o ' /\\(proc\\|sys\\)/[^ ]*' /proc/mounts | grep -vE 'cgroup|interrupts' | sort"),
    same("", "awk '{ print $2, $3 }' /proc/mounts | grep -vE 'cgroup|interrupts' | sort"),
    ours("--security-opt mask=/etc", "ls /etc | wc -l", "0"),
    ours("--security-opt unmask=/proc/kcore", "grep -c /proc/kcore /proc/mounts", "0"),
    ours("--security-opt unmask=/proc/*", "grep -c ' /proc/' /proc/mounts", "0"),
    ours(
        "--security-opt proc-opts=hidepid=2",
        "grep ' /proc ' /proc/mounts | grep -cE 'hidepid=(2|invisible)'",
        "1",
    ),
    ours(
        "--security-opt writable-cgroups --cgroupns private",
        "for d in /sys/fs/cgroup/memory /sys/fs/cgroup; do mkdir $d/x 2>/dev/null && rmdir $d/x && echo ok; done | head -n 1",
        "ok",
    ),
    // Process.
    ours(
        "--env-merge PATH=${PATH}:/opt",
        "echo $PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt",
    ),
    ours("--unsetenv HOSTNAME", "tr '\\0' '\\n' </proc/1/environ | grep -c ^HOSTNAME", "0"),
    ours("--unsetenv-all -e A=b", "cat /proc/1/environ | tr '\\0' '\\n'", "A=b"),
    ours("--env-host -e PATH=/bin", "echo $FROM_HERE", "here"),
    ours("--http-proxy", "echo $https_proxy $NO_PROXY", "http://proxy:1 local"),
    ours("--http-proxy=false", "echo $https_proxy $NO_PROXY", ""),
    ours("--umask 0027", "umask", "0027"),
    ours("--personality LINUX32", "uname -m | grep -c 64", "0"),
    ours(
        "-u 1234 --passwd-entry $USERNAME2:x:$UID:$GID::/:/bin/sh",
        "tail -n 1 /etc/passwd",
        "12342:x:1234:0::/:/bin/sh",
    ),
    ours("--group-entry team:x:99:", "tail -n 1 /etc/group", "team:x:99:"),
    ours("--read-only --read-only-tmpfs", "touch /run/a /tmp/b /var/tmp/c && echo ok", "ok"),
    // Names.
    ours(
        "--add-host db:10.0.0.2 --add-host six:::1",
        "grep -E 'db|six' /etc/hosts",
        "10.0.0.2\tdb\n::1\tsix",
    ),
    ours(
        "--dns 9.9.9.9 --dns-search a.b --dns-option ndots:2",
        "grep -vE '^(#|$)' /etc/resolv.conf",
        "nameserver 9.9.9.9\nsearch a.b\noptions ndots:2",
    ),
    // Limits of the process.
    is("--ulimit nofile=100:200", "ulimit -Sn; ulimit -Hn", "100\n200"),
    is("--ulimit core=0", "ulimit -c", "0"),
    same(
        "--ulimit cpu=100:200 --ulimit fsize=1000000 --ulimit data=100000000 --ulimit stack=1000000",
        LIMITS,
    ),
    same(
        "--ulimit locks=5 --ulimit msgqueue=1000 --ulimit nice=0 --ulimit rtprio=0 --ulimit rttime=1000",
        LIMITS,
    ),
    same("--ulimit memlock=64000 --ulimit rss=100000 --ulimit sigpending=100 --ulimit nproc=1000", LIMITS),
    ours("--ulimit as=500000000", "grep 'Max address' /proc/self/limits | awk '{ print $4 }'", "500000000"),
    // Kernel parameters.
    is("--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward", "1"),
    is(
        "--sysctl kernel.msgmax=65536 --sysctl fs.mqueue.msg_max=20",
        "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max",
        "65536\n20",
    ),
    // Control groups.
    group("-m 64m", ("memory/memory.limit_in_bytes", "67108864"), Some(("memory.max", "67108864"))),
    group(
        "-m 64m --memory-reservation 32m",
        ("memory/memory.soft_limit_in_bytes", "33554432"),
        Some(("memory.low", "33554432")),
    ),
    group(
        "-m 64m --memory-swap 96m",
        ("memory/memory.memsw.limit_in_bytes", "100663296"),
        Some(("memory.swap.max", "33554432")),
    ),
    group(
        "-m 64m",
        ("memory/memory.memsw.limit_in_bytes", "134217728"),
        Some(("memory.swap.max", "67108864")),
    ),
    group("--memory-swappiness 10", ("memory/memory.swappiness", "10"), None),
    group("--cpus 0.5", ("cpu/cpu.cfs_quota_us", "50000"), Some(("cpu.max", "50000 100000"))),
    group(
        "--cpu-period 50000 --cpu-quota 20000",
        ("cpu/cpu.cfs_quota_us", "20000"),
        Some(("cpu.max", "20000 50000")),
    ),
    group("--cpu-period 50000", ("cpu/cpu.cfs_period_us", "50000"), Some(("cpu.max", "max 50000"))),
    group("--cpu-shares 512", ("cpu/cpu.shares", "512"), None),
    group("--cpuset-cpus 0", ("cpuset/cpuset.cpus", "0"), Some(("cpuset.cpus", "0"))),
    group("--cpuset-mems 0", ("cpuset/cpuset.mems", "0"), Some(("cpuset.mems", "0"))),
    group("--pids-limit 50", ("pids/pids.max", "50"), Some(("pids.max", "50"))),
    ours("--cgroupns private", "grep -vc ':/$' /proc/self/cgroup", "0"),
    is("--cgroupns private", "grep -c ':/[^.]' /proc/self/cgroup", "0"),
    // Devices.
    is("--device /dev/null:/dev/zap", "echo x >/dev/zap && ls -l /dev/zap | awk '{ print $5, $6 }'", "1, 3"),
    is("--device /dev/null:/dev/zap:r", "cat /dev/zap && echo read", "read"),
    same(
        "--privileged",
        "ls /dev | grep -vE '^(pts|shm|mqueue|core|fd|stdin|stdout|stderr|console|ptmx)$' | sort",
    ),
    // Ends.
    is("", "exit 7", ""),
    is("--init", "kill -TERM $$; sleep 5", ""),
    is("--init", "kill -KILL $$; sleep 5", ""),
];

/// Answers in their order, each with its status on the last line.
fn ask(bench: &Bench, run: &str, cases: &[&Case], set_up: &str, namespaces: bool) -> Vec<String> {
    let mut script = format!("{set_up}\nexport FROM_HERE=here https_proxy=http://proxy:1 NO_PROXY=local\n");
    for (index, case) in cases.iter().enumerate() {
        write!(script, "echo '== {index}'\n{run}").unwrap();
        for flag in case.flags.split(' ').filter(|flag| !flag.is_empty()) {
            write!(script, " '{flag}'").unwrap();
        }
        let probe = probe(case).replace('\'', "'\\''");
        writeln!(script, " $R/busybox:1 sh -c '{probe}' </dev/null; echo \"status $?\"").unwrap();
    }
    script
        .push_str("echo '== end'; [ ! -e \"$DIR/docker.pid\" ] || { kill $(cat $DIR/docker.pid); wait; }\n");
    let ran = if namespaces {
        let words = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c"];
        Ran::of(bench.place.command("unshare").args(words).arg(&script))
    } else {
        bench.sh(&script)
    };
    let mut answers: Vec<String> = Vec::new();
    for part in ran.stdout.split("== ").skip(1) {
        answers.push(part.split_once('\n').map_or("", |(_, text)| text).trim_end().to_owned());
    }
    assert_eq!(answers.len(), cases.len() + 1, "{}\n{}", ran.stdout, ran.stderr);
    answers.pop();
    answers
}

fn probe(case: &Case) -> String {
    match &case.answer {
        Answer::Group { v1, v2 } => {
            let v2 = v2.map_or("none", |(file, _)| file);
            format!("cat /sys/fs/cgroup/{} 2>/dev/null || cat /sys/fs/cgroup/{v2}", v1.0)
        }
        _ => case.probe.to_owned(),
    }
}

fn is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// On a machine with version 2 some limits are none.
fn applies(case: &Case) -> bool {
    !(is_v2() && matches!(case.answer, Answer::Group { v2: None, .. }))
}

#[test]
fn flags_have_their_effect() {
    let Some(bench) = Bench::new() else { return };
    let cases: Vec<&Case> = CASES.iter().filter(|case| applies(case)).collect();
    let answers = ask(&bench, "ctr-run --rm --network none", &cases, "", false);
    let mut wrong = Vec::new();
    for (case, answer) in cases.iter().zip(&answers) {
        let (text, status) = split(answer);
        let right = match &case.answer {
            Answer::Is(wanted) => text == *wanted,
            Answer::AsDocker => !text.is_empty() && status == 0,
            Answer::Group { v1, v2 } => {
                text == if is_v2() { v2.map_or("", |(_, value)| value) } else { v1.1 }
            }
        };
        let status_is = match (case.flags, case.probe) {
            (_, "exit 7") => 7,
            (_, probe) if probe.starts_with("kill -TERM") => 143,
            (_, probe) if probe.starts_with("kill -KILL") => 137,
            // grep -c says so when it counts nothing.
            (_, probe) if (probe.contains("grep -c") || probe.contains("grep -vc")) && text == "0" => 1,
            _ => 0,
        };
        if !right || status != status_is {
            wrong.push(format!("{} | {}\n  {answer:?}", case.flags, probe(case)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What it printed, and its status.
fn split(answer: &str) -> (&str, i32) {
    let (text, status) = answer.rsplit_once("status ").unwrap_or((answer, "-1"));
    (text.trim_end(), status.parse().unwrap_or(-1))
}

const DOCKERD: &str = r"
mount --make-rprivate /; umount /sys/fs/cgroup/unified 2>/dev/null || true
export DOCKER_HOST=unix://$DIR/docker.sock
dockerd --data-root $DIR/docker --exec-root $DIR/docker-run -H $DOCKER_HOST --pidfile $DIR/docker.pid --storage-driver overlay2 \
    --iptables=false --bridge=none >$DIR/dockerd.log 2>&1 &
for _ in $(seq 600); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
docker version >/dev/null || { cat $DIR/dockerd.log >&2; exit 1; }
docker pull -q $R/busybox:1 >/dev/null
";

/// The shell's own words differ from run to run in nothing that matters here.
#[test]
fn docker_answers_the_same() {
    let Some(bench) = Bench::new() else { return };
    if find_program("dockerd").is_none() || find_program("docker").is_none() {
        skip("dockerd is not installed");
        return;
    }
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.docker && applies(case)).collect();
    let ours = ask(&bench, "ctr-run --rm --network none", &cases, "", false);
    let theirs = ask(&bench, "docker run --rm --network none", &cases, DOCKERD, true);
    let mut different = Vec::new();
    for ((case, ours), theirs) in cases.iter().zip(&ours).zip(&theirs) {
        if split(theirs) == ("", 125) && split(ours).1 == 0 {
            // It gives capabilities whether the machine has them or not.
            skip(&format!("docker itself cannot run {} here", case.flags));
        } else if ours != theirs {
            different.push(format!(
                "{} | {}\n  ours   {ours:?}\n  docker {theirs:?}",
                case.flags,
                probe(case)
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Statuses of what cannot be run are docker's.
#[test]
fn statuses_of_failures() {
    let Some(bench) = Bench::new() else { return };
    for (flags, command, status) in [
        ("", "/no/such", 127),
        ("", "no-such", 127),
        ("", "/etc/passwd", 126),
        ("", "/etc", 126),
        ("--no-such-flag", "true", 125),
        ("-m lots", "true", 125),
        ("--memory 1m", "true", 125),
        ("--memory-swap 1g", "true", 125),
        ("--cpus 1 --cpu-quota 10000", "true", 125),
        ("--blkio-weight 5", "true", 125),
        ("--oom-score-adj 2000", "true", 125),
        ("--sysctl kernel.hostname=x", "true", 125),
        ("--sysctl vm.swappiness=1", "true", 125),
        ("--network host --sysctl net.ipv4.ip_forward=1", "true", 125),
        ("--device no.such/device=x", "true", 125),
        ("--gpus all", "true", 125),
        ("--device-cgroup-rule x", "true", 125),
        ("--device-read-bps /dev/null:1mb", "true", 125),
        ("--tz No/Such", "true", 125),
        ("--dns x", "true", 125),
        ("--hooks-dir /no/such", "true", 125),
        ("--pull never no/such:1", "", 125),
        ("--arch s390x --pull never", "true", 125),
        ("--timeout 1", "sleep 30", 137),
    ] {
        let image = if command.is_empty() { "" } else { "$R/busybox:1" };
        let ran = bench.sh(&format!("ctr-run --rm --network none {flags} {image} {command}"));
        assert_eq!(ran.status, status, "{flags} {command}: {}", ran.stderr);
        assert!(
            ran.stdout.is_empty() && (status == 137 || !ran.stderr.is_empty()),
            "{flags}: {}",
            ran.stdout
        );
    }
    assert_eq!(bench.sh("ctr-ls -aq | wc -l").expect(0).stdout.trim(), "0");
}

/// Known flags that are not done say what to do instead.
#[test]
fn refused_flags_say_why() {
    let Some(bench) = Bench::new() else { return };
    for flag in [
        "--link a:b",
        "--kernel-memory 1m",
        "--init-path /x",
        "--systemd always",
        "--sdnotify conmon",
        "--conmon-pidfile x",
        "--isolation hyperv",
        "--disable-content-trust",
        "--use-api-socket",
        "--cpu-count 1",
        "--pod p",
        "--requires x",
        "--hostuser x",
        "--creds a:b",
        "--cgroups split",
        "--security-opt label=type:x",
    ] {
        let ran = bench.sh(&format!("ctr-run {flag} $R/busybox:1 true"));
        let name = flag.split([' ', '=']).next().unwrap_or_default().trim_start_matches('-');
        assert_eq!(ran.status, 125, "{flag}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(name.trim_end_matches("-opt")) && ran.stderr.lines().count() >= 1,
            "{flag}: {}",
            ran.stderr
        );
    }
    bench.sh("ctr-run --rm --network none --isolation default $R/busybox:1 true").expect(0);
}

#[test]
fn namespaces_of_other_containers() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --name a --network none --ipc shareable --hostname peer $R/busybox:1 sh -c 'echo x >/dev/shm/f; sleep 1000'").expect(0);
    let ran = bench
        .sh("until ctr-run --rm --network none --ipc container:a $R/busybox:1 cat /dev/shm/f; do sleep 0.1; done
             ctr-run --rm --network none --pid container:a $R/busybox:1 ps | grep -c 'sleep 1000'
             ctr-run --rm --network none --uts container:a $R/busybox:1 hostname
             ctr-run --rm --network container:a $R/busybox:1 hostname
             ctr-run --rm --network none --pid host $R/busybox:1 sh -c '[ $$ -gt 1 ] && echo host'
             ctr-run --rm --network none --cgroupns host $R/busybox:1 grep -c /staves/ /proc/self/cgroup >$DIR/n; [ $(cat $DIR/n) -gt 0 ] && echo host
             ctr-run --rm --network none --uts host $R/busybox:1 hostname | cmp - <(hostname) && echo same
             ctr-rm -f a >/dev/null")
        .expect(0);
    assert_eq!(ran.stdout, "x\n1\npeer\npeer\nhost\nhost\nsame\n", "{}", ran.stderr);
}

#[test]
fn a_control_group_of_ones_own() {
    let Some(bench) = Bench::new() else { return };
    let parent = format!("flags-{}", std::process::id());
    let ran = bench.sh(&format!(
        "ctr-run --rm --network none --cgroup-parent /{parent} --cgroupns host $R/busybox:1 grep -c /{parent}/ /proc/self/cgroup"
    ));
    // The parent stays, as with other runtimes: others may be in it.
    bench.sh(&format!("find /sys/fs/cgroup -maxdepth 2 -type d -name {parent} -exec rmdir {{}} +"));
    assert!(ran.expect(0).stdout.trim().parse::<u32>().is_ok_and(|count| count > 0));
}

/// On the first block device there is.
#[test]
fn limits_of_block_devices() {
    let Some(bench) = Bench::new() else { return };
    let script = r#"
D=$(find /dev -maxdepth 1 -type b | sort | head -n 1); [ -n "$D" ] || exit 99
N=$(printf '%d:%d' 0x$(stat -c %t $D) 0x$(stat -c %T $D))
ctr-run --rm --network none --device-read-bps $D:1mb --device-write-bps $D:2mb --device-read-iops $D:30 --device-write-iops $D:40     --device-cgroup-rule 'c 10:200 rwm' $R/busybox:1 sh -c 'cd /sys/fs/cgroup/; cat blkio/blkio.throttle.*_device io.max 2>/dev/null
    cat devices/devices.list 2>/dev/null | grep "c 10:200"' | sed "s/^$N //"
"#;
    let ran = bench.sh(script);
    if ran.status == 99 {
        skip("there is no block device");
        return;
    }
    let wanted = if is_v2() {
        "rbps=1048576 wbps=2097152 riops=30 wiops=40\n"
    } else {
        "1048576\n30\n2097152\n40\nc 10:200 rwm\n"
    };
    assert_eq!(ran.stdout, wanted, "{}", ran.stderr);
}

/// The Container Device Interface, in directories of the test's own.
#[test]
fn devices_by_their_cdi_names() {
    let Some(bench) = Bench::new() else { return };
    let script = r#"
mount --make-rprivate /; mkdir -p /etc/cdi /run/cdi 2>/dev/null; mount -t tmpfs x /etc/cdi && mount -t tmpfs x /run/cdi || exit 99
mkdir $DIR/lib; echo driver >$DIR/lib/file
cat >/etc/cdi/nvidia.json <<END
{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","containerEdits":{"env":["ALL=yes"]},"devices":[
 {"name":"0","containerEdits":{"env":["GPU=0"],"deviceNodes":[{"path":"/dev/gpu0","hostPath":"/dev/null","permissions":"rw"}],
  "mounts":[{"hostPath":"$DIR/lib","containerPath":"/usr/lib/gpu","options":["ro","nosuid"]}],
  "hooks":[{"hookName":"createRuntime","path":"/bin/sh","args":["sh","-c","cat >$DIR/hook"]}],"additionalGIDs":[4242]}},
 {"name":"all","containerEdits":{"env":["GPU=all"]}}]}
END
P='echo $ALL $GPU; id -G | tr " " "\n" | grep 4242; cat /usr/lib/gpu/file; echo x >/dev/gpu0 && ls -l /dev/gpu0 | cut -c 1'
ctr-run --rm --network none --device nvidia.com/gpu=0 $R/busybox:1 sh -c "$P"
grep -c '"status":"creat' $DIR/hook
ctr-run --rm --network none --gpus all $R/busybox:1 sh -c 'echo $GPU'
ctr-run --rm --network none --gpus 'device=0' $R/busybox:1 sh -c 'echo $GPU'
sed 's/GPU=all/GPU=high/; s/ALL=yes/ALL=boot/' /etc/cdi/nvidia.json >/run/cdi/other.json
ctr-run --rm --network none --gpus all $R/busybox:1 sh -c 'echo $GPU $ALL'
rm /run/cdi/other.json /etc/cdi/nvidia.json
cat >/etc/cdi/nvidia.yaml <<END
---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env: [ALL=yes]
devices:
- name: all
  containerEdits:
    env:
    - GPU=yaml
    deviceNodes:
    - path: /dev/gpu0
      type: c
      major: 1
      minor: 3
      fileMode: 0640
END
ctr-run --rm --network none --gpus all $R/busybox:1 sh -c 'echo $GPU $ALL; stat -c %a /dev/gpu0'
echo 'kind: [' >/etc/cdi/nvidia.yaml
ctr-run --rm --network none --gpus all $R/busybox:1 true; echo $?
"#;
    let words = ["--mount", "bash", "-c"];
    let ran = Ran::of(bench.place.command("unshare").args(words).arg(script)).expect(0);
    assert_eq!(
        ran.stdout, "yes 0\n4242\ndriver\nc\n1\nall\n0\nhigh boot\nyaml yes\n640\n125\n",
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("a specification cannot be read: /etc/cdi/nvidia.yaml"), "{}", ran.stderr);
}

#[test]
fn hooks_out_of_directories() {
    let Some(bench) = Bench::new() else { return };
    let script = r#"
mkdir $DIR/hooks
hook() { cat >$DIR/hooks/$1.json; }
hook 10-made <<END
{"version":"1.0.0","hook":{"path":"/bin/sh","args":["sh","-c","cat >$DIR/made"]},"when":{"commands":["^(.*/)?sh$"]},"stages":["createRuntime"]}
END
hook 20-after <<END
{"version":"1.0.0","hook":{"path":"/bin/sh","args":["sh","-c","cat >$DIR/after"]},"when":{"always":true},"stages":["poststop"]}
END
hook 25-started <<END
{"version":"1.0.0","hook":{"path":"/bin/sh","args":["sh","-c","cat >$DIR/started"]},"when":{"always":true},"stages":["poststart"]}
END
hook 30-filter <<END
{"version":"1.0.0","hook":{"path":"/bin/sed","args":["sed","s/\"AA=1\"/\"AA=filtered\"/"]},"when":{"annotations":{"^filter$":"on"}},"stages":["precreate"]}
END
hook 40-never <<END
{"version":"1.0.0","hook":{"path":"/bin/false"},"when":{"hasBindMounts":true},"stages":["precreate","createRuntime"]}
END
C="ctr-run --rm --network none --hooks-dir $DIR/hooks -e AA=1"
$C $R/busybox:1 sh -c 'echo $AA'
for _ in $(seq 600); do [ -s $DIR/after ] && break; sleep 0.05; done
grep -o '"status":"[a-z]*"' $DIR/made $DIR/started $DIR/after | sed 's/.*://'
$C --annotation filter=on $R/busybox:1 sh -c 'echo $AA'
$C -v /etc:/x $R/busybox:1 sh -c 'echo $AA'; echo $?
"#;
    let ran = bench.sh(script).expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "1", "{}", ran.stderr);
    assert!(
        lines[1].contains("creat") && lines[2].contains("running") && lines[3].contains("stopped"),
        "{lines:?}"
    );
    assert_eq!(&lines[4..], ["filtered", "125"], "{}", ran.stderr);
    assert!(ran.stderr.contains("40-never"), "{}", ran.stderr);
}

#[test]
fn files_names_and_ends_outside() {
    let Some(bench) = Bench::new() else { return };
    let script = r#"
cd $DIR
ctr-run -d --name a --network none --pidfile pid --cidfile cid -l x=1 --label-file <(printf 'y=2\n#no\nx=0\n') --annotation k=v \
    --stop-signal USR1 $R/busybox:1 sh -c 'trap "exit 3" USR1; echo ready; while :; do sleep 0.05; done' >id
cmp <(tr -d '\n' <id) cid && cat /proc/$(cat pid)/comm
ctr-inspect a | jq -c '.config.labels, .config.annotations'
until ctr-logs a | grep -q ready; do sleep 0.05; done; ctr-stop a >/dev/null; ctr-wait a >/dev/null; echo $?
ctr-run -d --name a --replace --network none $R/busybox:1 sleep 1000 >second; cmp id second >/dev/null || echo replaced
ctr-rm -f a >/dev/null
ctr-run --rm --network none -a stdout $R/busybox:1 sh -c 'echo out; echo err >&2' 2>&1
ctr-run --rm --network none -a stderr $R/busybox:1 sh -c 'echo out; echo err >&2' 2>&1
ctr-run --rm --network none -a stdin -i $R/busybox:1 cat <<<lost | wc -c
ctr-run --dry-run --network none --name dry $R/busybox:1 true | jq -r .step | tr '\n' ' '; echo
ctr-ls -aq | wc -l; ls $STAVES_ROOT/containers | wc -l
ctr-run --rmi --network none $R/busybox:1 echo last; img-ls -q | wc -l
ctr-run --dry-run --network none $R/busybox:1 true | jq -r .step | tr '\n' ' '; echo
"#;
    let ran = bench.sh(script).expect(0);
    assert_eq!(
        ran.stdout,
        "sh\n{\"x\":\"1\",\"y\":\"2\"}\n{\"k\":\"v\"}\n3\nreplaced\nout\nerr\n65\ncreate start \n0\n0\nlast\n0\npull unpack create start \n",
        "{}",
        ran.stderr
    );
}

#[test]
fn names_of_the_network() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("ctr-run --rm --add-host gw:host-gateway --add-host db:10.0.0.9 --dns 9.9.9.9 $R/busybox:1 \
                 sh -c 'G=$(ip route | awk \"/default/ { print \\$3 }\"); grep -w gw /etc/hosts | grep -c ^$G; grep db /etc/hosts; grep nameserver /etc/resolv.conf'
             ctr-run -d --name p -P --expose 81 --expose 53/udp $R/busybox:1 sleep 1000 >/dev/null
             ctr-inspect p | jq -r '.networks[0].ports[] | \"\\(.container)/\\(.protocol) \\(.host > 0)\"' | sort
             ctr-rm -f p >/dev/null")
        .expect(0);
    assert_eq!(
        ran.stdout, "1\n10.0.0.9\tdb\nnameserver 9.9.9.9\n53/udp true\n81/tcp true\n",
        "{}",
        ran.stderr
    );
}

/// As with docker and podman: scripts give the same flags for every network.
#[test]
fn without_a_network_ports_are_left_out_and_that_is_said() {
    let Some(bench) = Bench::new() else { return };
    for (network, flags) in [("host", "-p 8080:80"), ("host", "-P --expose 81"), ("none", "-p 8080:80")] {
        let run = format!("ctr-run --rm --network {network} {flags} $R/busybox:1 echo ran");
        let create = format!(
            "img-pull $R/busybox:1 | img-unpack | ctr-create --network {network} {flags} | net-attach | \
             jq -c '[.config.ports, .config.publish_all, .networks]'; ctr-ls -aq | xargs -r ctr-rm"
        );
        for (command, printed) in [(run, "ran\n"), (create, "[null,null,[]]\n")] {
            let ran = bench.sh(&command).expect(0);
            let warned = format!("warning: with --network {network} no ports are published");
            assert!(ran.stdout.starts_with(printed) && ran.stderr.contains(&warned), "{command}: {ran:?}");
        }
    }
    bench.sh("ctr-run --network container:nobody -p 80:80 $R/busybox:1").expect(125);
}

/// A container made of what is told of another is like it, whatever it was made with.
#[test]
fn what_inspect_prints_create_accepts() {
    let Some(bench) = Bench::new() else { return };
    let flags = "--network none --umask 0027 --oom-score-adj 5 --shm-size 8m --memory 64m --memory-reservation 32m --cpu-period 50000 \
        --cpu-quota 20000 --cpuset-mems 0 --domainname d.e --add-host a:1.2.3.4 --dns 9.9.9.9 --dns-search a.b --dns-option ndots:1 \
        --expose 80 --unsetenv HOSTNAME --env-merge B=${PATH} --device-cgroup-rule 'c 10:200 rwm' --security-opt mask=/etc/motd \
        --security-opt proc-opts=hidepid=2 --cgroupns private --personality LINUX --timeout 100 --ulimit nofile=64 \
        --group-entry g:x:9: --read-only --read-only-tmpfs";
    let flags = flags.replace("${PATH}", "'${PATH}'");
    let ran = bench
        .sh(&format!(
            "img-pull -q $R/busybox:1 >/dev/null
             img-pull --policy missing $R/busybox:1 | img-unpack | ctr-create --name one {flags} -- sh -c 'umask; id' >/dev/null
             ctr-inspect one | ctr-create --name two >/dev/null
             for name in one two; do ctr-inspect $name | jq -S 'del(.config.name).config' >$DIR/$name; done
             cmp $DIR/one $DIR/two && jq -r 'keys | length' $DIR/one
             for name in one two; do
                 id=$(ctr-inspect $name | jq -r .container.id)
                 sed \"s/$id/ID/g; s/${{id:0:12}}/ID/g\" $STAVES_ROOT/containers/$id/config.json | jq -S . >$DIR/$name
             done
             cmp $DIR/one $DIR/two && ctr-rm -f one two >/dev/null"
        ))
        .expect(0);
    assert!(ran.stdout.trim().parse::<u32>().is_ok_and(|members| members > 24), "{}", ran.stdout);
}
