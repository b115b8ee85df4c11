//! Each tool on containers, once, by what it does.

use crate::{bench, is_version_2, told};
use pipelines::{Bench, Place, wait_until};
use serde_json::Value;

fn usage(bench: &Bench, name: &str) -> u64 {
    let ran = bench.sh(&format!("ctr-stats --no-stream {name} | jq .stats.cpu.usage_ns")).expect(0);
    ran.stdout.trim().parse().expect("nanoseconds")
}

#[test]
fn what_is_paused_does_nothing() {
    let Some(bench) = bench() else { return };
    bench.sh("ctr-run -q -d --name busy --network none box:1 sh -c 'while :; do :; done'").expect(0);
    wait_until("it to do something", || usage(&bench, "busy") > 10_000_000);
    bench.sh("ctr-pause -q busy").expect(0);
    assert_eq!(told(&bench, "busy", ".container.status"), "paused");
    let before = usage(&bench, "busy");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(usage(&bench, "busy"), before);
    bench.sh("ctr-exec busy true").expect(125);
    bench.sh("ctr-pause -q busy").expect(5);
    bench.sh("ctr-unpause -q --all").expect(0);
    wait_until("it to go on", || usage(&bench, "busy") > before);
    // A paused one can be stopped.
    bench.sh("ctr-pause -q busy && ctr-stop -q -t 0 busy").expect(0);
    assert_eq!(told(&bench, "busy", "[.container.status, .container.exit_code]"), r#"["exited",137]"#);
    bench.sh("ctr-unpause -q busy").expect(5);
}

#[test]
fn restarted_renamed_listed_and_killed() {
    let Some(bench) = bench() else { return };
    bench.sh("ctr-run -q -d --name web -p 8080:80 box:1 httpd -f -p 80 -h /var/www").expect(0);
    bench.sh("ctr-wait -q --timeout 80s --for port:80 --for running web").expect(0);
    let ports = bench.sh("ctr-port web | jq -c '.ports[] | [.host, .container, .protocol]'").expect(0);
    assert_eq!(ports.stdout, "[8080,80,\"tcp\"]\n");
    let before = told(&bench, "web", "[.container.pid, .networks[0].addresses]");
    bench.sh("ctr-restart -q -t 0 web").expect(0);
    bench.sh("ctr-wait -q --timeout 80s --for port:80 web").expect(0);
    let after = told(&bench, "web", "[.container.pid, .networks[0].addresses]");
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parse(&before)[1], parse(&after)[1]);
    assert_ne!(parse(&before)[0], parse(&after)[0]);
    let page = "curl -s --noproxy '*' http://127.0.0.1:8080/";
    assert_eq!(bench.sh(page).stdout, "served by busybox\n");

    bench.sh("ctr-rename -q web site").expect(0);
    bench.sh("ctr-inspect web").expect(4);
    assert_eq!(
        bench.sh("ctr-ls | jq -r '[.container.name, .container.status] | @tsv'").expect(0).stdout,
        "site\trunning\n"
    );
    // Its processes, and one that was put beside them.
    bench.sh("ctr-exec -d site sleep 12345").expect(0);
    let top = "ctr-top site | jq -c '.processes | map([.pid == 1, .args[0]])'";
    wait_until("its processes", || bench.sh(top).stdout == "[[true,\"httpd\"],[false,\"sleep\"]]\n");
    bench.sh("ctr-kill -q -s KILL site").expect(0);
    assert_eq!(told(&bench, "site", ".container.exit_code"), "137");
    assert_ne!(bench.sh(page).status, 0);
    assert_eq!(bench.sh("ctr-port site | jq -c .ports").expect(0).stdout, "[]\n");
    let actions =
        bench.sh("ctr-events --filter type=container --filter container=$(ctr-inspect site | jq -r .container.id) | jq -r .action").expect(0);
    for action in ["create", "start", "kill", "die", "exec_create", "exec_start"] {
        assert!(actions.stdout.lines().any(|line| line == action), "{action}: {}", actions.stdout);
    }
    bench.sh("ctr-prune -f -q").expect(0);
    assert_eq!(bench.sh("ctr-ls --all").expect(0).stdout, "");
}

#[test]
fn files_in_and_out_and_images_of_them() {
    let Some(bench) = bench() else { return };
    let script = "echo changed >/etc/group; rm /var/www/index.html; mkdir -p /srv/new; echo x >/srv/new/file; chown 7:8 /srv/new/file; sleep 100000";
    bench.sh(&format!("ctr-run -q -d --name box --network none box:1 sh -c '{script}'")).expect(0);
    wait_until("its changes", || bench.sh("ctr-exec box stat -c %u:%g /srv/new/file").stdout == "7:8\n");
    bench.sh("echo brought >$DIR/file && ctr-cp -q $DIR/file box:/srv/brought").expect(0);
    let changes = bench.sh("ctr-diff box | jq -r '[.change, .path] | @tsv'").expect(0).stdout;
    let wanted = [
        "changed\t/etc/group",
        "deleted\t/var/www/index.html",
        "added\t/srv/new/file",
        "added\t/srv/brought",
    ];
    for line in wanted {
        assert!(changes.lines().any(|change| change == line), "{line}: {changes}");
    }
    assert_eq!(bench.sh("ctr-cp box:/srv/new/file -  | tar -xO").expect(0).stdout, "x\n");
    let listed = bench.sh("ctr-export box | tar --numeric-owner -tv").expect(0).stdout;
    assert!(listed.lines().any(|line| line.contains(" 7/8 ") && line.ends_with("srv/new/file")), "{listed}");
    assert!(!listed.contains("index.html"));
    bench.sh("ctr-commit -q -c 'CMD [\"cat\",\"/srv/brought\"]' box made:1").expect(0);
    assert_eq!(bench.sh("ctr-run -q --rm --network none made:1").expect(0).stdout, "brought\n");
    bench.sh("ctr-run -q --rm --network none made:1 test -e /var/www/index.html").expect(1);
    // Of one that has ended, too.
    bench.sh("ctr-stop -q -t 0 box").expect(0);
    assert_eq!(
        bench.sh("ctr-cp -q box:/srv/new/file $DIR/back >$DIR/id && cat $DIR/back").expect(0).stdout,
        "x\n"
    );
    bench.sh("ctr-rm box").expect(0);
}

#[test]
fn numbers_and_logs() {
    let Some(bench) = bench() else { return };
    let script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; \
                  echo full >&2; exec sleep 100000";
    bench
        .sh(&format!("ctr-run -q -d --name box --memory 64m --pids-limit 30 box:1 sh -c '{script}'"))
        .expect(0);
    bench.sh("ctr-wait -q --timeout 80s --for 'log:^full$' box").expect(0);
    let stats = bench.sh("ctr-stats --no-stream box").expect(0).json()["stats"].clone();
    // A tmpfs is memory of who wrote to it.
    assert!(stats["memory"]["usage"].as_u64().is_some_and(|bytes| bytes > 8 << 20), "{stats}");
    assert_eq!(stats["memory"]["limit"], 64 << 20);
    assert_eq!(stats["pids"]["limit"], 30);
    assert!(stats["pids"]["current"].as_u64().is_some_and(|count| (1..4).contains(&count)), "{stats}");
    assert!(stats["networks"]["eth0"]["rx_bytes"].is_u64() && stats["io"]["read_bytes"].is_u64(), "{stats}");
    let log = bench.sh("ctr-logs box 2>/dev/null").expect(0).stdout;
    assert_eq!(log.lines().count(), 500);
    assert_eq!(bench.sh("ctr-logs --tail 1 box 2>&1 >/dev/null").expect(0).stdout, "full\n");
    assert_eq!(bench.sh("ctr-stop -q -t 0 box && ctr-wait -q box").status, 137);
    bench.sh("ctr-rm box").expect(0);
}

#[test]
fn health_is_watched() {
    let Some(bench) = bench() else { return };
    let flags = "--network none --health-cmd 'test -e /tmp/well' --health-interval 300ms --health-timeout 30s --health-retries 2";
    bench.sh(&format!("ctr-run -q -d --name patient {flags} box:1 sleep 100000")).expect(0);
    wait_until("it to be ill", || told(&bench, "patient", ".container.health.status") == "unhealthy");
    bench.sh("ctr-exec patient touch /tmp/well").expect(0);
    bench.sh("ctr-wait -q --timeout 80s --for healthy patient").expect(0);
    let seen = bench
        .sh("ctr-events --filter event=health_status | jq -r .attributes.health_status")
        .expect(0)
        .stdout;
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["unhealthy", "healthy"]);
    // Killed for being ill, and started again by its policy, until it is well.
    let flags = format!("{flags} --health-on-failure kill --restart on-failure:5 -v kept:/tmp");
    bench
        .sh(&format!("ctr-run -q -d --name weak {flags} box:1 sh -c 'echo up; exec sleep 100000'"))
        .expect(0);
    wait_until("a second run", || bench.sh("ctr-logs weak").stdout.lines().count() >= 2);
    wait_until("a file to be made", || bench.sh("ctr-exec weak touch /tmp/well").status == 0);
    bench.sh("ctr-wait -q --timeout 80s --for healthy weak").expect(0);
    bench.sh("ctr-rm -f -v patient weak").expect(0);
}

#[test]
fn a_user_namespace_of_its_own() {
    let Some(mut bench) = bench() else { return };
    // A tmpfs cannot map owners before Linux 6.3; the guest's disk can.
    let disk = std::path::Path::new("/mnt/scratch");
    let elsewhere = disk.is_dir().then(|| Place::below(disk));
    if let Some(place) = elsewhere {
        let registry = bench.registry.address();
        bench.place = place;
        bench.place.set("R", registry);
        bench.sh("img-pull -q $R/busybox:1 >$DIR/pulled && img-tag -q $R/busybox:1 box:1").expect(0);
    }
    let ran = bench.sh("ctr-run -q -d --name own --userns auto --memory 64m -v kept:/data box:1 sh -c 'touch /data/mine; exec sleep 100000'");
    if ran.status != 0 && ran.stderr.contains("map the owners") {
        pipelines::skip("this kernel or file system cannot map owners");
        return;
    }
    ran.expect(0);
    let map = bench.sh("ctr-exec own cat /proc/self/uid_map").expect(0).stdout;
    let numbers: Vec<u64> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] == 0 && numbers[1] >= 65536 && numbers[2] == 65536, "{map}");
    // Outside nobody in particular, in the volume and inside the superuser.
    let uid = bench.sh("stat -c %u /proc/$(ctr-inspect own | jq .container.pid)").expect(0).stdout;
    assert_eq!(uid.trim(), numbers[1].to_string());
    assert_eq!(bench.sh("ctr-exec own stat -c %u /data/mine").expect(0).stdout, "0\n");
    assert_eq!(bench.sh("stat -c %u $STAVES_ROOT/volumes/kept/_data/mine").expect(0).stdout, "0\n");
    if is_version_2() {
        assert_eq!(bench.sh("ctr-exec own cat /sys/fs/cgroup/memory.max").expect(0).stdout, "67108864\n");
    }
    bench.sh("ctr-pause -q own && ctr-unpause -q own && ctr-restart -q -t 0 own").expect(0);
    assert_eq!(bench.sh("ctr-exec own cat /proc/self/uid_map").expect(0).stdout, map);
    bench.sh("ctr-rm -f own").expect(0);
}

#[test]
fn a_dockerfile_is_built_and_not_built_again() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("mkdir $DIR/app && echo file >$DIR/app/f && printf '%s\\n' \"FROM $R/busybox:1\" 'WORKDIR /w' 'COPY f .' \
             'RUN --mount=type=cache,target=/c cat f >/made; ip -o -4 addr >/addresses; id -u >>/made' 'USER 7' 'CMD [\"cat\", \"/made\"]' >$DIR/app/Dockerfile")
        .expect(0);
    bench.sh("img-build -q -t app:1 --memory 64m $DIR/app >$DIR/first").expect(0);
    assert_eq!(bench.sh("ctr-run --rm --network none app:1").expect(0).stdout, "file\n0\n");
    assert!(bench.sh("ctr-run --rm --network none app:1 cat /addresses").expect(0).stdout.contains("eth0"));
    bench.sh("img-build -q $DIR/app >$DIR/second && cmp $DIR/first $DIR/second").expect(0);
    let open =
        bench.sh("img-build --print $DIR/app | jq -r 'select(.cached | not) | .instruction'").expect(0);
    assert_eq!(open.stdout, "");
}
