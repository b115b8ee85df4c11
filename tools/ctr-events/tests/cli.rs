//! Events of made-up things, and of real containers.

use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use store::Who;
use testkit::{Place, Ran, busybox};

fn run(place: &Place, words: &[&str]) -> Ran {
    Ran::of(place.command(env!("CARGO_BIN_EXE_ctr-events")).args(words))
}

fn actions(ran: &Ran) -> Vec<String> {
    let action = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["action"].as_str().unwrap().to_owned()
    };
    ran.stdout.lines().map(action).collect()
}

#[test]
fn what_was_written_down_is_printed_and_followed() {
    let place = Place::new();
    assert_eq!(run(&place, &[]).expect(0).stdout, "");
    let store = place.store();
    store.event(&Who::volume("data"), "create", json!(null));
    store.event(
        &Who::image("sha256:0123456789abcdef", "docker.io/library/busybox:1"),
        "pull",
        json!({"size": 5}),
    );
    assert_eq!(actions(&run(&place, &[]).expect(0)), ["create", "pull"]);
    assert_eq!(actions(&run(&place, &["--filter", "image=busybox"]).expect(0)), ["pull"]);
    assert_eq!(run(&place, &["--until", "1h"]).expect(0).stdout, "");
    assert_eq!(run(&place, &["--filter", "event=die"]).expect(0).stdout, "");
    let words = run(&place, &["--output", "table", "--filter", "type=volume"]).expect(0).stdout;
    assert!(words.ends_with("volume create data (name=data)\n"), "{words}");
    run(&place, &["--filter", "x=y"]).expect(2);
    run(&place, &["--since", "soon"]).expect(2);
    // Garbage is passed over, and said.
    let file = store.event_files().pop().unwrap();
    let long = format!("{}\nhalf a li", "x".repeat(9000));
    std::fs::write(&file, [std::fs::read(&file).unwrap(), long.into_bytes()].concat()).unwrap();
    let ran = run(&place, &["--since", "1h"]).expect(0);
    assert!(actions(&ran).len() == 2 && ran.stderr.contains("1 lines"), "{}", ran.stderr);
    std::fs::write(&file, "").unwrap();

    let mut child = place
        .command(env!("CARGO_BIN_EXE_ctr-events"))
        .args(["--follow", "--since", "1h", "--filter", "type=volume"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 0..3 {
        store.event(&Who::volume(&format!("v{number}")), "create", json!(null));
        assert!(lines.next().unwrap().unwrap().contains(&format!("\"v{number}\"")));
        if number == 1 {
            // Put away, as whoever finds it full does.
            let now = jiff::Timestamp::now().as_nanosecond();
            std::fs::rename(&file, store.events_dir().join(format!("events-{now:020}.ndjson"))).unwrap();
        }
    }
    // Without a reader it ends by itself.
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let until = jiff::Timestamp::now() + std::time::Duration::from_millis(300);
    assert_eq!(
        run(&place, &["--until", &until.to_string(), "--since", "1h"]).expect(0).stdout.lines().count(),
        3
    );
}

#[test]
fn the_life_of_a_container() {
    let Some(place) = busybox() else { return };
    place
        .sh("ctr-run -d --network none --name web -l team=x busybox:1 sleep 1000 && ctr-exec web true
             ctr-stop -t 0 web && ctr-rm web
             ctr-run --rm --network none --name failing busybox:1 sh -c 'exit 3'")
        .expect(3);
    let ran = run(&place, &["--filter", "container=web"]).expect(0);
    assert_eq!(
        actions(&ran),
        [
            "create",
            "start",
            "exec_create",
            "exec_start",
            "exec_die",
            "kill",
            "kill",
            "die",
            "stop",
            "destroy"
        ],
        "{}",
        ran.stdout
    );
    assert_eq!(run(&place, &["--filter", "label=team=x", "--filter", "image=busybox"]).stdout, ran.stdout);
    let died = run(&place, &["--filter", "event=die", "--filter", "container=failing"]).expect(0).json();
    assert_eq!(died["attributes"]["exit_code"], 3, "{died}");
    assert_eq!(
        actions(&run(&place, &["--filter", "container=failing"]).expect(0)),
        ["create", "attach", "start", "die", "destroy"]
    );
}
