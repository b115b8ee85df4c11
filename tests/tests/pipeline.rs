//! The pipeline of the first page of the manual, and records edited, saved and sent in again between its stages.

use pipelines::Bench;

#[test]
fn output_alone_reaches_stdout_and_the_status_is_the_containers() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("img-pull $R/busybox:1 | img-unpack | ctr-create -- sh -c 'echo $0 $PPID; id; ip a; exit 42' \
             | net-attach -p 8080:80 | ctr-start --attach")
        .expect(42);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "sh 0", "{}", ran.stdout);
    assert!(lines[1].starts_with("uid=0(root) gid=0(root)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("eth0"), "{}", ran.stdout);
    // In a fresh network the first attachment turns forwarding on, and says so.
    let said: Vec<&str> = ran.stderr.lines().filter(|line| !line.contains("ip_forward")).collect();
    assert!(said.is_empty(), "{said:?}");
    let listed = bench.sh("ctr-ls --all").expect(0).json();
    assert_eq!(listed["container"]["status"], "exited");
    assert_eq!(listed["container"]["exit_code"], 42);
}

#[test]
fn stderr_of_the_container_comes_out_as_stderr() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("img-pull $R/busybox:1 | img-unpack | ctr-create -- sh -c 'echo out; echo err >&2' | ctr-start --attach")
        .expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn jq_edits_the_record_between_every_two_stages() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh(r#"mkdir $DIR/shared && echo shared >$DIR/shared/file
            img-pull $R/busybox:1 \
            | jq -c '.image.config.config.Env += ["FROM_IMAGE=1"] | .mine = {"kept": 1.50}' \
            | img-unpack \
            | jq -c --arg dir $DIR/shared '.config = {
                "command": ["sh", "-c", "echo $FROM_IMAGE $FROM_RECORD $(cat /s/file) $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null)"],
                "env": ["FROM_RECORD=2"], "memory": "64m", "mounts": [{"type": "bind", "source": $dir, "target": "/s"}]}' \
            | ctr-create \
            | jq -c '.config.ports = ["8081:80"]' \
            | net-attach | tee $DIR/attached \
            | jq -c '.mine.more = true' \
            | ctr-start --attach"#)
        .expect(0);
    assert_eq!(ran.stdout, "1 2 shared 67108864\n");
    let attached = bench.sh("cat $DIR/attached").json();
    assert_eq!(attached["networks"][0]["ports"][0]["host"], 8081, "{attached}");
    assert_eq!(attached["mine"], serde_json::json!({"kept": 1.5}));
}

#[test]
fn unknown_members_come_out_letter_by_letter() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh(r#"img-pull $R/busybox:1 | sed 's/^{/{"mine":{"n":1.50,  "big":12345678901234567890},/' \
            | img-unpack | ctr-create -- true | net-attach | ctr-start"#)
        .expect(0);
    assert!(ran.stdout.contains(r#""mine":{"n":1.50,  "big":12345678901234567890}"#), "{}", ran.stdout);
}

#[test]
fn a_flag_wins_over_the_record() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh(r#"img-pull $R/busybox:1 | img-unpack | jq -c '.config = {"hostname": "record", "env": ["A=record"]}' \
            | ctr-create --hostname flag -e A=flag -- sh -c 'hostname; echo $A' | ctr-start --attach"#)
        .expect(0);
    assert_eq!(ran.stdout, "flag\nflag\n");
}

#[test]
fn a_saved_record_runs_again() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("img-pull $R/busybox:1 | img-unpack | tee $DIR/unpacked | ctr-create -- echo again | tee $DIR/created \
             | net-attach | tee $DIR/attached | ctr-start --attach")
        .expect(0);
    // Made again from before it was created: another container.
    let ran = bench.sh("ctr-create -- echo other <$DIR/unpacked | net-attach | ctr-start --attach").expect(0);
    assert_eq!(ran.stdout, "other\n");
    // The stages after creation with the container they name: the same one, started again.
    for saved in ["created", "attached"] {
        let ran = bench.sh(&format!("net-attach <$DIR/{saved} | ctr-start --attach")).expect(0);
        assert_eq!(ran.stdout, "again\n", "{saved}");
    }
    let ids = bench.sh("ctr-ls --all -q").expect(0).stdout;
    assert_eq!(ids.lines().count(), 2, "{ids}");
}

#[test]
fn creating_from_a_record_with_a_container_is_idempotent_by_id() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("img-pull $R/busybox:1 | img-unpack | ctr-create --name one -- echo hello >$DIR/created
             ctr-create <$DIR/created >$DIR/twice && cat $DIR/created $DIR/twice | jq -r .container.id")
        .expect(0);
    let ids: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn what_inspect_prints_create_accepts() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("img-pull $R/config:1 | img-unpack | ctr-create --name first -e X=1 --memory 32m >/dev/null")
        .expect(0);
    let ran = bench
        .sh("ctr-inspect first | jq -c 'del(.container) | .config.name = \"second\"' | ctr-create >/dev/null \
             && for name in first second; do jq -c '.process | {args, env, cwd, user}' $STAVES_ROOT/names/$name/config.json; done")
        .expect(0);
    let specs: Vec<&str> = ran.stdout.lines().collect();
    assert!(specs[0].contains("\"/bin/echo\",\"from\",\"image\""), "{}", specs[0]);
    assert!(specs[0].contains("X=1") && specs[0].contains("GREETING=hello"), "{}", specs[0]);
    let without_hostname = |spec: &str| spec.split("HOSTNAME=").next().unwrap_or_default().to_owned();
    assert_eq!(without_hostname(specs[0]), without_hostname(specs[1]));
}

#[test]
fn a_container_shares_the_shared_memory_of_another() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("ctr-run -d --name a $R/busybox:1 sh -c 'echo here >/dev/shm/file; exec sleep 100' >/dev/null
             until ctr-exec a test -s /dev/shm/file; do sleep 0.1; done
             ctr-run --rm --ipc container:a $R/busybox:1 sh -c 'cat /dev/shm/file; readlink /proc/self/ns/ipc; echo back >/dev/shm/file'
             ctr-exec a readlink /proc/1/ns/ipc; ctr-exec a cat /dev/shm/file")
        .expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}{}", ran.stdout, ran.stderr);
    assert_eq!((lines[0], lines[3]), ("here", "back"), "{}", ran.stdout);
    assert_eq!(lines[1], lines[2], "the System V namespace is the other's, too");
}

#[test]
fn several_records_go_through_at_once() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("img-pull $R/busybox:1 $R/config:1 | img-unpack | ctr-create -- /bin/true | jq -r .image.reference")
        .expect(0);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
}

#[test]
fn an_image_for_this_machine_is_chosen_from_an_index() {
    let Some(bench) = Bench::new() else { return };
    let record = bench.sh("img-pull $R/multi:1").expect(0).json();
    assert_eq!(record["image"]["platform"]["architecture"], "amd64", "{record}");
    assert!(record["image"]["index_digest"].is_string(), "{record}");
    let ran = bench
        .sh("img-pull $R/multi:1 | img-unpack | ctr-create -- echo chosen | ctr-start --attach")
        .expect(0);
    assert_eq!(ran.stdout, "chosen\n");
}

#[test]
fn schema_2_and_zstd_images_run_too() {
    let Some(bench) = Bench::new() else { return };
    for tag in ["docker", "zstd"] {
        let ran = bench
            .sh(&format!(
                "img-pull $R/busybox:{tag} | img-unpack | ctr-create -- echo ran | ctr-start --attach"
            ))
            .expect(0);
        assert_eq!(ran.stdout, "ran\n", "{tag}");
    }
}

#[test]
fn awkward_layers_come_out_as_they_were_made() {
    let Some(bench) = Bench::new() else { return };
    let script = r#"set -e
        cd /
        [ ! -e deep/gone ]; [ "$(cat deep/er)" = "now a file" ]
        [ "$(ls hidden)" = new ]
        [ "$(cat kept/file/inner)" = inner ]; [ "$(ls kept/file)" = inner ]
        [ "$(stat -c %h links/a)" = 2 ]; [ "$(stat -c %i links/a)" = "$(stat -c %i links/c)" ]
        [ "$(stat -c %i links/a)" != "$(stat -c %i links/b)" ]
        [ ! -L links/soft ]; [ "$(cat links/soft)" = hard ]; [ "$(readlink links/absolute)" = /kept/file ]
        [ -p links/fifo ]
        [ "$(stat -c %a caps)" = 750 ]; [ "$(stat -c %a caps/suid)" = 4755 ]; [ "$(stat -c %a caps/sgid)" = 2755 ]
        [ "$(stat -c %u:%g kept/before-the-epoch)" = 1000:44 ]
        [ "$(stat -c %Y kept/before-the-epoch)" = -157766400 ]
        echo all well"#;
    std::fs::write(bench.place.path().join("look"), script).unwrap();
    let ran = bench
        .sh("img-pull $R/layers:1 | img-unpack | ctr-create -v $DIR/look:/look:ro -- sh /look | ctr-start --attach")
        .expect(0);
    assert_eq!(ran.stdout, "all well\n", "{}", ran.stderr);
    // Extended attributes, seen from outside.
    let layer = bench.sh("ls -d $STAVES_ROOT/layers/*/fs/caps/net").expect(0).stdout;
    let capability = bench.sh(&format!("getcap {layer}")).expect(0).stdout;
    assert!(capability.contains("cap_net_raw=ep"), "{capability}");
    let colour =
        bench.sh("getfattr --only-values -n user.colour $STAVES_ROOT/layers/*/fs/caps/attributes").expect(0);
    assert_eq!(colour.stdout, "blue");
}

#[test]
fn what_fails_while_the_root_is_built_is_told_at_the_start() {
    let Some(bench) = Bench::new() else { return };
    let stages = "img-pull $R/busybox:1 | img-unpack | ctr-create --name odd --sysctl net.ipv4.no_such_thing=1 -- true";
    let ran = bench.sh(&format!("{stages} | net-attach | ctr-start --attach"));
    assert_ne!(ran.status, 0);
    assert!(ran.stderr.contains("net.ipv4.no_such_thing"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    // Again, now that nothing of it is set up.
    let again = bench.sh("ctr-start --attach odd");
    assert_eq!(again.status, 125, "{}", again.stderr);
    assert!(again.stderr.contains("net.ipv4.no_such_thing"), "{}", again.stderr);
    let removed = bench.sh("ctr-rm odd >/dev/null && ctr-ls --all -q");
    assert_eq!((removed.status, removed.stdout.as_str()), (0, ""), "{}", removed.stderr);
    // Whether net-attach meets it first is a matter of luck.
    for _ in 0..10 {
        let run = bench.sh(
            "ctr-run --rm --sysctl net.ipv4.no_such_thing=1 $R/busybox:1 true; s=$?; ctr-ls --all -q; exit $s",
        );
        assert_eq!((run.status, run.stdout.as_str()), (125, ""), "{}", run.stderr);
    }
}
