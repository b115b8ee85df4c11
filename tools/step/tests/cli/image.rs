//! In a pipe of images.

use crate::{assert_nowhere, machine, sh};
use serde_json::Value;
use testkit::{Place, Ran};

fn image(ran: &Ran) -> Value {
    ran.json()["image"].clone()
}

fn key(place: &Place, words: &str) -> (String, bool) {
    let step = if words.contains("--network") { "$STEP" } else { "S" };
    let ran = sh(place, &format!("P | {step} --dry-run {words}")).expect(0);
    let line = ran.json();
    (line["key"].as_str().unwrap().to_owned(), line["cached"].as_bool().unwrap())
}

#[test]
fn a_step_is_a_layer_and_is_not_done_twice() {
    let Some(place) = machine::place() else { return };
    let first = sh(&place, "P | S -- sh -c 'echo told; cat /proc/sys/kernel/random/uuid >/made'").expect(0);
    assert_eq!(first.stderr, "told\n");
    let second = sh(&place, "P | S -- sh -c 'echo told; cat /proc/sys/kernel/random/uuid >/made'").expect(0);
    assert_eq!(second.stderr, "step: cached: sh -c 'echo told; cat /proc/sys/kernel/random/uuid >/made'\n");
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(
        sh(&place, "P | S -q -- sh -c 'echo told; cat /proc/sys/kernel/random/uuid >/made'").expect(0).stderr,
        ""
    );
    let made = image(&first);
    assert_eq!(made["layers"].as_array().unwrap().len(), 2);
    let history = made["config"]["history"].as_array().unwrap();
    assert_eq!(
        history.last().unwrap()["created_by"],
        "RUN sh -c 'echo told; cat /proc/sys/kernel/random/uuid >/made' # step"
    );
    let anew = sh(&place, "P | S --no-cache -- sh -c 'echo told; cat /proc/sys/kernel/random/uuid >/made'")
        .expect(0);
    assert_eq!(anew.stderr, "told\n");
    assert_ne!(image(&anew)["digest"], made["digest"]);
    machine::assert_unmounted(&place);
}

#[test]
fn stages_stand_on_one_another() {
    let Some(place) = machine::place() else { return };
    let pipe = |second: &str| {
        format!(
            "P | jq -c '.mine = 7' | S -- sh -c 'echo 1 >/one' | S -- sh -c '{second}' | S --change 'CMD [\"cat\",\"/one\",\"/two\"]' --change 'ENV A=b' -- rm /three | img-tag chain:1"
        )
    };
    sh(&place, &pipe("echo 2 >/two; echo 3 >/three")).expect(0);
    assert_eq!(place.sh("ctr-run --rm --network none chain:1").expect(0).stdout, "1\n2\n");
    let changed = sh(&place, &pipe("echo 4 >/two; echo 3 >/three")).expect(0);
    assert!(changed.stderr.starts_with("step: cached: sh -c 'echo 1 >/one'\n"), "{}", changed.stderr);
    assert_eq!(changed.stderr.matches("cached").count(), 1, "{}", changed.stderr);
    let record = changed.json();
    assert_eq!(record["mine"], 7);
    assert!(record["image"]["config"]["config"]["Env"].as_array().unwrap().contains(&"A=b".into()));
    assert_eq!(place.sh("ctr-run --rm --network none chain:1").expect(0).stdout, "1\n4\n");
    // A command that changes nothing makes no layer, and what comes after it is found.
    let idle = sh(&place, "P | S -- true").expect(0);
    assert_eq!(image(&idle)["layers"].as_array().unwrap().len(), 1);
    // Files that a stage before has unpacked are those of the new image.
    let files = sh(
        &place,
        "P | img-unpack | S -- touch /n | ctr-create --network none -- ls /n | ctr-start --attach",
    )
    .expect(0);
    assert_eq!(files.stdout, "/n\n");
}

#[test]
fn only_what_is_declared_makes_another_key() {
    let Some(mut place) = machine::place() else { return };
    place.set("SET", "value");
    sh(&place, "mkdir src; echo a >src/a; echo x >src/out; printf 'out\\n.dockerignore\\n' >src/.dockerignore; echo s >secret").expect(0);
    let words = "--input src:/src -e SET -e A=1 --key v1 --secret id=s,src=secret -- sh -c 'cat /src/a $A'";
    let (before, cached) = key(&place, words);
    assert!(!cached);
    let same = |what: &str| {
        sh(&place, what).expect(0);
        assert_eq!(key(&place, words).0, before, "{what}");
    };
    same("echo y >src/out; touch src/a; echo t >secret; touch beside");
    for (from, to) in [
        ("v1", "v2"),
        ("A=1", "A=2"),
        ("-e SET", "-e UNSET"),
        ("/src/a $A", "/src/a $B"),
        ("src:/src", "src:/other"),
        ("--key v1", ""),
        ("--key v1", "-w /tmp"),
        ("--key v1", "-u 1000"),
        ("--key v1", "--network host"),
        ("id=s,", "id=t,"),
        ("--key v1", "--key v1 --cache c:/c"),
    ] {
        assert_ne!(key(&place, &words.replace(from, to)).0, before, "{from} {to}");
    }
    sh(&place, "echo b >src/a").expect(0);
    let after = key(&place, words).0;
    assert_ne!(after, before);
    place.set("SET", "other");
    assert_ne!(key(&place, words).0, after);
    let other = sh(&place, &format!("P | S -- touch /x | S --dry-run {words}")).expect(0).json();
    assert_ne!(other["key"], after);
    assert_eq!(
        sh(&place, "ls $STAVES_ROOT/cache/build | wc -l").expect(0).stdout,
        "1\n",
        "dry runs make nothing"
    );
}

#[test]
fn inputs_are_seen_and_copies_stay() {
    let Some(place) = machine::place() else { return };
    sh(&place, "mkdir -p src/d; echo a >src/d/a; echo no >src/no; echo no >src/.dockerignore; echo one >one")
        .expect(0);
    let ran = sh(
        &place,
        "P | S -w /work --input src --input one:/in/one -- sh -c 'cat src/d/a /in/one; ls src; touch src/x; touch made'",
    );
    let ran = ran.expect(0);
    assert_eq!(ran.stderr.lines().collect::<Vec<_>>()[..3], ["a", "one", "d"], "{}", ran.stderr);
    assert!(ran.stderr.contains("Read-only"), "{}", ran.stderr);
    let files = sh(
        &place,
        "P | S -w /work --input src --input one:/in/one -- sh -c 'cat src/d/a /in/one; ls src; touch src/x; touch made' | img-tag -q seen:1; ctr-run --rm --network none seen:1 ls / /work",
    );
    let files = files.expect(0).stdout;
    assert!(files.ends_with("/work:\nmade\n") && !files.contains("\nin\n"), "{files}");
    let copied =
        "P | S --copy src:/app/ --copy one:/app/two -w /app --change 'WORKDIR /app' -- sh -c 'cat d/a two'";
    assert_eq!(sh(&place, copied).expect(0).stderr, "a\none\n");
    let again = sh(&place, copied).expect(0);
    assert_eq!(again.stderr.matches("step: cached: ").count(), 3, "{}", again.stderr);
    sh(&place, "echo other >one").expect(0);
    let again = sh(&place, copied).expect(0);
    assert_eq!(again.stderr, "step: cached: copy src /app/\na\nother\n");
    assert_eq!(
        sh(&place, &format!("{copied} | img-tag -q copied:1; ctr-run --rm --network none copied:1 cat two"))
            .expect(0)
            .stdout
            .lines()
            .last(),
        Some("other")
    );
    // Only copies.
    let only = sh(&place, "P | S --copy one:/x").expect(0);
    assert_eq!(image(&only)["layers"].as_array().unwrap().len(), 2);
    for (wrong, said) in [
        ("--input .  -- true", "hide the whole image"),
        ("--input missing -- true", "missing"),
        ("--copy one -- true", "SRC:DST"),
        ("--input one", "nothing to do"),
        ("--copy one:/x --input one", "no command"),
        ("", "nothing to do"),
        ("--output out -- true", "--network is for images"),
    ] {
        let refused = sh(&place, &format!("P | S {wrong}")).expect(125);
        assert!(refused.stderr.contains(said) && refused.stdout.is_empty(), "{wrong}: {}", refused.stderr);
    }
}

#[test]
fn a_failure_is_the_commands_and_nothing_is_kept() {
    let Some(place) = machine::place() else { return };
    let failing = "P | S -- sh -c 'echo why >&2; touch /half; exit 7'";
    let ran = sh(&place, failing).expect(7);
    assert_eq!(ran.stdout, "");
    assert!(
        ran.stderr.contains("ended with status 7: why") && ran.stderr.contains("hint:"),
        "{}",
        ran.stderr
    );
    assert!(sh(&place, failing).expect(7).stderr.starts_with("why\n"));
    assert!(!key(&place, "-- sh -c 'echo why >&2; touch /half; exit 7'").1);
    sh(&place, "P | S -- no-such-program").expect(127);
    // The next stage says what is the matter, and does nothing.
    let pipe = sh(&place, "P | S -- false | S -- true").expect(125);
    assert!(pipe.stderr.contains("no record on stdin"), "{}", pipe.stderr);
    sh(&place, "S -- true </dev/null").expect(125);
    machine::assert_unmounted(&place);
}

#[test]
fn caches_outlive_steps_and_secrets_are_in_nothing() {
    let Some(place) = machine::place() else { return };
    sh(&place, "printf hidden%s -in-plain-sight >secret").expect(0);
    let ran = |key: u8| {
        sh(&place, &format!("P | S --key {key} --cache c:/c --secret id=pw,src=secret -- sh -c 'echo {key} >>/c/log; cat /c/log; wc -c </run/secrets/pw; ls /run/secrets'")).expect(0)
    };
    assert_eq!(ran(1).stderr, "1\n21\npw\n");
    let second = ran(2);
    assert_eq!(second.stderr, "1\n2\n21\npw\n");
    assert_eq!(image(&second)["layers"].as_array().unwrap().len(), 1, "neither is in a layer");
    assert_nowhere(&place, "hidden-in-plain-sight");
    let variable = sh(
        &place,
        "V=from-a-variable; export V; P | S --secret id=v,env=V -- sh -c 'wc -c </run/secrets/v; echo $V'",
    )
    .expect(0);
    assert_eq!(variable.stderr, "15\n\n");
    assert_nowhere(&place, "from-a-variable");
}

#[test]
fn of_four_at_once_one_runs() {
    let Some(place) = machine::place() else { return };
    let ran = sh(&place, "for i in 1 2 3 4; do (P | S --cache n:/n -- sh -c 'echo x >>/n/ran; sleep 0.3; cat /proc/sys/kernel/random/uuid >/made' | jq -r .image.digest) & done; wait").expect(0);
    let digests: std::collections::BTreeSet<&str> = ran.stdout.lines().collect();
    assert_eq!((ran.stdout.lines().count(), digests.len()), (4, 1), "{}{}", ran.stdout, ran.stderr);
    let count = place.sh("cat $STAVES_ROOT/cache/mounts/n-*/ran | wc -l").expect(0).stdout;
    assert_eq!(count, "1\n");
    assert_eq!(place.sh("ls $STAVES_RUN/steps").expect(0).stdout, "");
}

#[test]
fn killed_at_any_moment_it_is_done_again() {
    let Some(place) = machine::place() else { return };
    for moment in (0..14).map(|number| number * 15) {
        let seconds = f64::from(moment) / 1000.0;
        let script = format!(
            "P >r; $STEP --network none --key {moment} -- sh -c 'echo a >/a; sleep 0.05; echo b >/b' <r >out 2>/dev/null & p=$!; sleep {seconds}; kill -KILL $p 2>/dev/null; wait $p 2>/dev/null; S --key {moment} -- sh -c 'echo a >/a; sleep 0.05; echo b >/b' <r 2>/dev/null | img-tag -q it:{moment} && ctr-run --rm --network none it:{moment} cat /a /b"
        );
        let ran = sh(&place, &script).expect(0);
        assert!(ran.stdout.ends_with("a\nb\n"), "{moment}: {}{}", ran.stdout, ran.stderr);
    }
    testkit::wait_until("everything is let go of", || {
        let held = place.sh("pgrep -f -- \"--run-step=$STAVES_ROOT\"");
        held.stdout.is_empty()
    });
    machine::assert_unmounted(&place);
}
