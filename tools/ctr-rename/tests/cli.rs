//! The tool as a program, against containers made by hand, and against real ones.

use serde_json::json;
use std::process::Command;
use testkit::{Bench, Place, Ran};

fn rename(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-rename"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn names_are_taken_and_given_back() {
    let place = Place::new();
    let sections = json!({"config": {"name": "web"}, "mine": 1,
        "networks": [{"name": "bridge", "addresses": ["10.89.0.2/16"]}]});
    let web = place.container(&"a".repeat(64), "web", &sections);
    place.container(&"b".repeat(64), "db", &json!({}));
    std::fs::write(
        web.bundle.join("hosts"),
        format!("127.0.0.1\tlocalhost\n10.89.0.2\t{} web\n", "a".repeat(12)),
    )
    .unwrap();
    let refused = rename(&place, &["web", "db"]).expect(5);
    assert!(refused.stderr.contains(&"b".repeat(12)), "{}", refused.stderr);
    rename(&place, &["--dry-run", "web", "db"]).expect(5);
    assert_eq!(rename(&place, &["--dry-run", "web", "site"]).expect(0).json()["to"], "site");
    rename(&place, &["web", "web"]).expect(5);
    rename(&place, &["web", "../x"]).expect(2);
    let record = rename(&place, &["aaaa", "/site"]).expect(0).json();
    assert_eq!((&record["container"]["name"], &record["config"]["name"]), (&json!("site"), &json!("site")));
    let hosts = std::fs::read_to_string(web.bundle.join("hosts")).unwrap();
    assert!(hosts.ends_with(&format!("{} site\n", "a".repeat(12))), "{hosts}");
    rename(&place, &["web", "other"]).expect(4);
    assert_eq!(rename(&place, &["--output", "table", "db", "web"]).expect(0).stdout, "web\n");
    // Nothing came in: the stage before had nothing.
    rename(&place, &["lonely"]).expect(0);
}

/// What jq finds in a container's record.
fn of(bench: &Bench, name: &str, filter: &str) -> String {
    bench.sh(&format!("ctr-inspect {name} | jq -r '{filter}'")).expect(0).stdout.trim().to_owned()
}

/// What a shell in the container says.
fn inside(bench: &Bench, name: &str, script: &str) -> String {
    bench.sh(&format!("ctr-exec {name} sh -c '{script}'")).expect(0).stdout.trim().to_owned()
}

#[test]
fn a_new_name_is_everywhere() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("ctr-run -d --name web $R/busybox:1 sleep 1000; ctr-run -d --name db $R/busybox:1 sleep 1000")
        .expect(0);
    let taken = bench.sh("ctr-rename web db").expect(5);
    assert!(taken.stderr.contains(&of(&bench, "db", ".container.id")[..12]), "{}", taken.stderr);
    bench.sh("ctr-rename web site").expect(0);
    assert_eq!(of(&bench, "site", ".container.name"), "site");
    let hosts = inside(&bench, "site", "cat /etc/hosts");
    assert!(hosts.lines().any(|line| line.ends_with(" site")) && !hosts.contains(" web"), "{hosts}");
    bench.sh("ctr-inspect web").expect(4);
    bench.sh("ctr-restart -t 0 site && ctr-run -d --name web $R/busybox:1 sleep 1000").expect(0);
    assert!(inside(&bench, "site", "cat /etc/hosts").contains(" site"));
    bench.sh("ctr-rm -f site db web").expect(0);
}

#[test]
fn a_killed_renaming_leaves_one_name() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("img-pull $R/busybox:1 | img-unpack | ctr-create --name n0 -- true").expect(0);
    for round in 0..40 {
        let delay = f64::from(round) * 0.0001;
        bench.sh(&format!("ctr-rename $(ctr-ls --all | jq -r .container.name) n{} & sleep {delay}; kill -9 $!; wait; true", round + 1)).expect(0);
        let names = bench.sh("ctr-ls --all | jq -r .container.name").expect(0).stdout;
        let found: Vec<String> = (0..=round + 1)
            .map(|n| format!("n{n}"))
            .filter(|name| bench.sh(&format!("ctr-inspect {name}")).status == 0)
            .collect();
        assert_eq!(found.join("\n") + "\n", names);
    }
    bench.sh("ctr-prune -f --created; ctr-rm -f $(ctr-ls --all -q) ; true").expect(0);
}
