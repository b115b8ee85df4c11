//! `--dry-run` of the tools that start and execute: what it says comes true, and nothing changes by saying it.

use pipelines::{Bench, Ran};
use serde_json::{Value, json};

/// All that the tools could change, times of directories included: a file made and removed again would show. Taken when
/// the shims have come to rest.
fn everything(bench: &Bench) -> Vec<String> {
    let look = || {
        let ran = bench.sh(
            "find $DIR/root $DIR/run -printf '%p %T@ %l\\n' | sort; ip -br link | cut -d' ' -f1; nft list ruleset
             ctr-ls --all | jq -c .container",
        );
        ran.expect(0).stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    pipelines::wait_until("what was pulled to be on disk", || {
        bench.sh("find $DIR/run -path '*/fresh-*/*'").expect(0).stdout.is_empty()
    });
    let mut before = look();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = look();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// What a script prints. It must change nothing.
#[track_caller]
fn harmless(bench: &Bench, script: &str, status: i32) -> Ran {
    let before = everything(bench);
    let ran = bench.sh(script).expect(status);
    let now = everything(bench);
    let changed: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    assert!(changed.is_empty() && gone.is_empty(), "{script}\nnew: {changed:#?}\ngone: {gone:#?}");
    ran
}

#[track_caller]
fn plan(bench: &Bench, script: &str) -> Vec<Value> {
    let ran = harmless(bench, script, 0);
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["step"].as_str().unwrap()).collect()
}

#[test]
fn starting_says_what_it_would_execute_and_set_up_again() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("img-pull $R/busybox:1 | img-unpack | ctr-create --name web -i -e A=b -w /tmp -u 1:2 -- sh -c 'echo $A' \
             | net-attach -p 8080:80 >$DIR/web")
        .expect(0);
    // It waits: by name and by record the same.
    let steps = plan(&bench, "ctr-start --dry-run web; ctr-start --dry-run <$DIR/web");
    assert_eq!(names(&steps), ["execute", "execute"]);
    assert_eq!(steps[0], steps[1]);
    let execute = &steps[0];
    assert_eq!(execute["args"], json!(["sh", "-c", "echo $A"]));
    assert!(execute["env"].as_array().unwrap().contains(&json!("A=b")), "{execute}");
    assert_eq!((&execute["cwd"], &execute["terminal"]), (&json!("/tmp"), &json!(false)));
    assert_eq!((&execute["user"]["uid"], &execute["user"]["gid"]), (&json!(1), &json!(2)));
    let steps = plan(&bench, "ctr-start --dry-run -a --stdin-fd 3 3</dev/null web");
    assert_eq!(names(&steps), ["attach", "execute"]);
    assert_eq!(steps[0]["stdin"], true);
    let words = harmless(&bench, "ctr-start --dry-run --output table web", 0).stdout;
    assert!(words.starts_with("execute  args=[\"sh\","), "{words}");
    harmless(&bench, "ctr-start --dry-run -ai <$DIR/web", 125);
    harmless(&bench, "ctr-start --dry-run nobody", 4);
    harmless(&bench, "ctr-start --dry-run </dev/null", 3);

    // Edited: ports alone, then what the bundle is made from.
    let steps = plan(&bench, "jq -c '.config.ports += [81]' <$DIR/web | ctr-start --dry-run");
    assert_eq!(names(&steps), ["save_record", "execute"]);
    let edit = r#"jq -c --arg dir $DIR/root/missing '.config.env = ["A=c"] | .config.mounts += ["data:/data", "\($dir):/dir"]' <$DIR/web"#;
    let steps = plan(&bench, &format!("{edit} | ctr-start --dry-run"));
    let expected = ["make_directory", "make_volume", "rewrite_bundle", "recreate", "execute"];
    assert_eq!(names(&steps), expected);
    assert_eq!(steps[1]["name"], "data");
    assert!(steps[4]["env"].as_array().unwrap().contains(&json!("A=c")), "{}", steps[4]);
    assert_eq!(bench.sh(&format!("{edit} | ctr-start --attach")).expect(0).stdout, "c\n");

    // Ended: it is set up again, on its network.
    let steps = plan(&bench, "ctr-start --dry-run -a web");
    assert_eq!(names(&steps), ["set_up", "attach_network", "attach", "execute"]);
    assert_eq!(steps[1]["networks"], json!(["bridge"]));
    assert_eq!(bench.sh("ctr-start -a web").expect(0).stdout, "c\n");
}

#[test]
fn a_container_that_runs_is_neither_started_nor_entered() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("img-pull $R/busybox:1 | img-unpack | ctr-create --name web -e A=b -- sleep 1000 | ctr-start >$DIR/web")
        .expect(0);
    assert_eq!(plan(&bench, "ctr-start --dry-run web"), Vec::<Value>::new());
    assert_eq!(names(&plan(&bench, "ctr-start --dry-run -a web")), ["attach"]);
    harmless(&bench, "jq -c '.config.env = []' <$DIR/web | ctr-start --dry-run", 5);

    let steps = plan(&bench, "ctr-exec --dry-run -u 1 -w /var -e C=d web touch /tmp/touched");
    assert_eq!(names(&steps), ["execute"]);
    let execute = &steps[0];
    assert_eq!(execute["args"], json!(["touch", "/tmp/touched"]));
    assert_eq!((&execute["cwd"], &execute["user"]["uid"]), (&json!("/var"), &json!(1)));
    let env = execute["env"].as_array().unwrap();
    assert!(env.contains(&json!("A=b")) && env.contains(&json!("C=d")), "{execute}");
    assert!(!execute["cgroups"].as_array().unwrap().is_empty(), "{execute}");
    bench.sh("ctr-exec web ls /tmp/touched").expect(1);
    assert_eq!(names(&plan(&bench, "ctr-exec --dry-run - true <$DIR/web")), ["execute"]);
    harmless(&bench, "ctr-exec --dry-run -u nobody-knows web true", 125);
    harmless(&bench, "ctr-exec --dry-run nobody true", 125);
    bench.sh("ctr-kill web").expect(0);
    let refused = harmless(&bench, "ctr-exec --dry-run web true", 125);
    assert!(refused.stderr.contains("exited, not running"), "{}", refused.stderr);
}
