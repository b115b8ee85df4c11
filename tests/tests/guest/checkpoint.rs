//! `ctr-checkpoint` and `ctr-restore` by the real criu, where it works: in the version 2 guest with Debian 12's kernel for one.

use pipelines::{Bench, criu_works, wait_until};
use serde_json::Value;

/// Counts on its stdout; `$i` is its memory. What it wrote to its files is to be there, and what it deleted to be gone.
const COUNT: &str =
    "echo kept >/root/file; rm /var/www/index.html; i=0; while :; do i=$((i+1)); echo $$ $i; sleep 0.1; done";

fn start(bench: &Bench, flags: &str) {
    bench.sh(&format!("ctr-run -d --name count {flags} $R/busybox:1 sh -c '{COUNT}'")).expect(0);
    wait_until("it to count", || counted(bench, "count") > 5);
}

/// Lines in its log, each of which has to be one more than the line before.
fn counted(bench: &Bench, name: &str) -> usize {
    let text = bench.sh(&format!("ctr-logs {name}")).stdout;
    for (index, line) in text.lines().enumerate() {
        assert_eq!(line, format!("1 {}", index + 1), "it began anew, or lines are lost or doubled: {text}");
    }
    text.lines().count()
}

fn of(bench: &Bench, name: &str) -> Value {
    bench.sh(&format!("ctr-inspect {name}")).expect(0).json()
}

#[test]
fn a_checkpointed_container_goes_on_where_it_was() {
    if !criu_works() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    start(&bench, "--restart always -m 64m --tmpfs /scratch");
    bench.sh("ctr-exec count sh -c 'echo x >/scratch/x'").expect(0);
    let then = counted(&bench, "count");
    let record = bench.sh("ctr-checkpoint --leave-running --print-stats count").expect(0).json();
    assert_eq!(record["container"]["status"], "running");
    assert!(record["checkpoint_statistics"]["criu_statistics"]["pages_written"].as_u64().unwrap() > 0);
    wait_until("it to count on", || counted(&bench, "count") > then);

    let before = of(&bench, "count");
    let record = bench.sh("ctr-checkpoint count").expect(0).json();
    // The restart policy has it run again after every end but this.
    assert_eq!(record["container"]["status"], "exited");
    assert_eq!(of(&bench, "count")["container"]["checkpointed"], true);
    bench.sh("ctr-checkpoint count").expect(5);
    let then = counted(&bench, "count");

    let record = bench.sh("ctr-restore --print-stats count").expect(0).json();
    assert_eq!(record["container"]["status"], "running");
    assert_eq!(record["container"]["checkpointed"], Value::Null);
    assert_eq!(record["networks"], before["networks"]);
    assert!(record["restore_statistics"]["criu_statistics"]["pages_restored"].as_u64().unwrap() > 0);
    wait_until("it to count after it was restored", || counted(&bench, "count") > then + 3);
    let inside =
        "cat /root/file /scratch/x; test -e /var/www/index.html || echo gone; ip -4 -o address show eth0";
    let seen = bench.sh(&format!("ctr-exec count sh -c '{inside}'")).expect(0).stdout;
    assert!(seen.starts_with("kept\nx\ngone\n"), "{seen}");
    assert!(seen.contains(before["networks"][0]["addresses"][0].as_str().unwrap()), "{seen}");
    bench.sh("ctr-restore count").expect(5);
    bench.sh("ctr-pause count && ctr-unpause count").expect(0);
    // Looked after as any other: it ends as it is told, and its end is seen.
    let waited = bench
        .sh("ctr-wait count >$DIR/waited & sleep 0.5; ctr-stop -t 1 count >/dev/null; wait; cat $DIR/waited");
    assert!(waited.stdout.contains("137"), "{}{}", waited.stdout, waited.stderr);
    assert_eq!(of(&bench, "count")["container"]["checkpointed"], Value::Null);
    bench.sh("ctr-restore count").expect(4);
    let events = bench.sh("ctr-events --since 1h --until 0s | jq -r .action").stdout;
    assert!(events.contains("checkpoint") && events.contains("restore"), "{events}");
    bench.sh("ctr-rm count").expect(0);
}

#[test]
fn an_exported_container_goes_on_elsewhere() {
    if !criu_works() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    start(&bench, "--rm");
    bench.sh("ctr-checkpoint count").expect(5);
    for packing in ["none", "gzip"] {
        bench.sh(&format!("ctr-checkpoint -R -c {packing} -e $DIR/{packing}.tar count")).expect(0);
    }
    bench.sh("tar tf $DIR/none.tar rootfs-diff.tar container.json logs/log.json").expect(0);
    bench
        .sh("gzip -dc $DIR/gzip.tar | tar xO rootfs-diff.tar | tar t var/www/.wh.index.html root/file")
        .expect(0);
    let id = of(&bench, "count")["container"]["id"].clone();
    bench.sh("ctr-checkpoint -e - count >$DIR/count.tar.zst && test -s $DIR/count.tar.zst").expect(0);
    // It removes itself when it ends.
    bench.sh("ctr-inspect count").expect(4);
    let elsewhere = "export STAVES_ROOT=$DIR/other STAVES_RUN=$DIR/other-run;";
    let on = |script: &str| bench.sh(&format!("{elsewhere} {script}"));
    let lines = || {
        let text = on("ctr-logs count").stdout;
        for (index, line) in text.lines().enumerate() {
            assert_eq!(line, format!("1 {}", index + 1), "{text}");
        }
        text.lines().count()
    };
    // Its image is pulled.
    let record = on("ctr-restore -i - <$DIR/count.tar.zst").expect(0).json();
    assert_eq!((&record["container"]["id"], &record["container"]["status"]), (&id, &"running".into()));
    let then = lines();
    assert!(then > 5, "the log came along");
    wait_until("it to count elsewhere", || lines() > then + 3);
    let inside = "cat /root/file; test -e /var/www/index.html || echo gone";
    assert_eq!(on(&format!("ctr-exec count sh -c '{inside}'")).expect(0).stdout, "kept\ngone\n");
    on("ctr-restore -i $DIR/count.tar.zst").expect(5);
    // A second one of the same, beside it.
    let twin = on("ctr-restore -i $DIR/gzip.tar --name twin --ignore-static-ip -p 18099:80").expect(0).json();
    assert_ne!(twin["container"]["id"], id);
    assert_eq!(twin["networks"][0]["ports"][0]["host"], 18099);
    let twins = || on("ctr-logs twin").stdout.lines().count();
    let then = twins();
    wait_until("its twin to count", || twins() > then + 3);
    on("ctr-stop -t 0 count twin").expect(0);
    on("ctr-inspect count").expect(4);
}
