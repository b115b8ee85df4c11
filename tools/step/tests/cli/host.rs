//! On this machine.

use crate::{lines, sh};
use testkit::Place;

const BUILD: &str = "H --input src --output out --output dir -- sh -c 'echo x >>ran; cat src/a >out; mkdir -p dir/in; cp src/a dir/in/b; chmod 750 dir; ln -sfn in dir/link; echo told $(cat src/a)'";

fn project() -> Place {
    let place = Place::new();
    sh(&place, "mkdir src; echo a >src/a; echo i >src/ignored; echo ignored >src/.dockerignore").expect(0);
    place
}

#[test]
fn a_command_is_skipped_until_an_input_changes() {
    let place = project();
    assert_eq!(sh(&place, BUILD).expect(0).stdout, "told a\n");
    let skipped = sh(&place, BUILD).expect(0);
    assert_eq!(skipped.stdout, "told a\n", "what it wrote is written again");
    assert!(skipped.stderr.starts_with("step: cached: sh -c "), "{}", skipped.stderr);
    sh(&place, "echo j >src/ignored; touch src/a").expect(0);
    sh(&place, BUILD).expect(0);
    assert_eq!(lines(&place, "ran"), 1);
    sh(&place, "echo b >src/a").expect(0);
    assert_eq!(sh(&place, BUILD).expect(0).stdout, "told b\n");
    assert_eq!(lines(&place, "ran"), 2);
    // As it was, as it is known.
    sh(&place, "echo a >src/a").expect(0);
    assert_eq!(sh(&place, &format!("{BUILD}; cat out dir/in/b")).expect(0).stdout, "told a\na\na\n");
    assert_eq!(lines(&place, "ran"), 2);
    sh(&place, &BUILD.replace("H ", "H --no-cache ")).expect(0);
    assert_eq!(lines(&place, "ran"), 3);
}

#[test]
fn outputs_are_put_back_as_they_were() {
    let place = project();
    sh(&place, BUILD).expect(0);
    let look = "cat out dir/in/b; readlink dir/link; stat -c %a dir; ls -A dir; ls -A | grep step; true";
    let before = sh(&place, look).expect(0).stdout;
    for damage in [
        "rm out",
        "rm -r dir",
        "echo y >dir/in/b",
        "touch dir/more",
        "rm dir/link; ln -s /etc dir/link",
        "chmod 600 dir/in/b; chmod 644 dir/in/b; chmod +x dir/in/b",
        "rm -r dir; echo file >dir",
        "rm out; mkdir -p out/of",
        "rm -r out dir; mkdir .out.step-999999999; touch .out.step-999999999/left",
    ] {
        sh(&place, damage).expect(0);
        sh(&place, BUILD).expect(0);
        assert_eq!(sh(&place, look).expect(0).stdout, before, "{damage}");
    }
    assert_eq!(lines(&place, "ran"), 1);
    // An empty directory, a directory that is not there.
    for _ in 0..2 {
        sh(&place, "rm -rf e n; H --output e --output n/m/o -- sh -c 'echo x >>empty; mkdir -p e n/m; echo >n/m/o'; test -d e && test -f n/m/o").expect(0);
    }
    assert_eq!(lines(&place, "empty"), 1);
    // What is as it was is not touched.
    let stamp = "stat -c '%i %Y' out dir/in/b";
    let inodes = sh(&place, stamp).expect(0).stdout;
    sh(&place, BUILD).expect(0);
    assert_eq!(sh(&place, stamp).expect(0).stdout, inodes);
}

#[test]
fn the_key_is_what_is_declared() {
    let mut place = project();
    place.set("SET", "1");
    let key = |place: &Place, words: &str| {
        let ran = sh(place, &format!("H --dry-run {words}")).expect(0);
        ran.json()["key"].as_str().unwrap().to_owned()
    };
    let words = "--input src/a -e SET --key k --output o -- true";
    let before = key(&place, words);
    assert_eq!(key(&place, words), before);
    for (from, to) in [
        ("true", "true x"),
        ("--key k", "--key l"),
        ("-e SET", "-e SET=2"),
        ("-e SET", ""),
        ("src/a", "src"),
        ("--output o", "--output p"),
        ("--key k", "--key k --name n"),
    ] {
        assert_ne!(key(&place, &words.replace(from, to)), before, "{from} {to}");
    }
    sh(&place, "chmod +x src/a").expect(0);
    assert_ne!(key(&place, words), before);
    sh(&place, "chmod -x src/a; cp -r src other; mkdir d; cp -r src d/").expect(0);
    assert_eq!(key(&place, words), before);
    // Somewhere else it is another step, unless it has a name.
    let elsewhere =
        |words: &str| sh(&place, &format!("cd d; H --dry-run {words}")).expect(0).json()["key"].clone();
    assert_ne!(elsewhere(words), before);
    let named = format!("--name n {words}");
    assert_eq!(elsewhere(&named), key(&place, &named));
    place.set("SET", "2");
    assert_ne!(key(&place, words), before);
}

#[test]
fn failures_and_what_is_not_made_are_not_kept() {
    let place = project();
    for _ in 0..2 {
        let ran = sh(&place, "H --input src -- sh -c 'echo x >>ran; echo out; exit 9'").expect(9);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", ""));
    }
    assert_eq!(lines(&place, "ran"), 2);
    sh(&place, "H -- sh -c 'kill -TERM $$'").expect(143);
    let missing = sh(&place, "H --output never -- true").expect(125);
    assert!(missing.stderr.contains("has not made never"), "{}", missing.stderr);
    let whole = sh(&place, "H --output . -- touch made-nothing").expect(125);
    assert!(whole.stderr.contains("the command runs in it"), "{}", whole.stderr);
    assert!(!place.path().join("made-nothing").exists());
    assert!(sh(&place, "H --input never -- true").expect(125).stderr.contains("never"));
    assert!(sh(&place, "H -- no-such-program").expect(125).stderr.contains("no-such-program"));
    assert!(sh(&place, "H").expect(125).stderr.contains("no command"));
    assert!(sh(&place, "H --copy a:b -- true").expect(125).stderr.contains("--copy is for images"));
    // An input that the command writes to is told of.
    for count in 1..3 {
        let ran = sh(&place, "H --input src -- sh -c 'date +%N >src/a; echo x >>wrote'").expect(0);
        assert!(ran.stderr.contains("src changed while the command ran"), "{}", ran.stderr);
        assert_eq!(lines(&place, "wrote"), count);
    }
    // One that is an output is not an input.
    for _ in 0..2 {
        sh(&place, "H --input src --output src/made -- sh -c 'echo x >>made; date >src/made'").expect(0);
    }
    assert_eq!(lines(&place, "made"), 1);
}

#[test]
fn of_four_at_once_one_runs() {
    let place = project();
    let ran = sh(&place, "for i in 1 2 3 4; do (H --input src --output o -- sh -c 'echo x >>ran; sleep 0.3; cat /proc/sys/kernel/random/uuid >o; cat o') & done; wait").expect(0);
    let told: std::collections::BTreeSet<&str> = ran.stdout.lines().collect();
    assert_eq!((ran.stdout.lines().count(), told.len(), lines(&place, "ran")), (4, 1, 1), "{}", ran.stderr);
}

#[test]
fn killed_at_any_moment_it_is_old_or_new() {
    let place = project();
    sh(
        &place,
        "H --input src --output dir -- sh -c 'mkdir -p dir; for i in $(seq 300); do cat src/a >dir/$i; done'",
    )
    .expect(0);
    for moment in 0..20 {
        let script = format!(
            "rm -r dir; mkdir dir; echo old >dir/1; $STEP --host --input src --output dir -- false & p=$!; sleep 0.0{moment:02}; kill -KILL $p 2>/dev/null; wait $p 2>/dev/null; \
             case $(ls dir | wc -l) in 1) grep -q old dir/1;; 300) ! grep -qv a dir/*;; *) ls -A . dir; exit 1;; esac"
        );
        let ran = sh(
            &place,
            &script.replace(
                "-- false",
                "-- sh -c 'mkdir -p dir; for i in $(seq 300); do cat src/a >dir/$i; done'",
            ),
        );
        assert_eq!(ran.status, 0, "{moment}: {}{}", ran.stdout, ran.stderr);
    }
    sh(&place, "rm -r dir; H --input src --output dir -- sh -c 'mkdir -p dir; for i in $(seq 300); do cat src/a >dir/$i; done'; ls -A | grep step- && exit 1; test $(ls dir | wc -l) = 300").expect(0);
}
