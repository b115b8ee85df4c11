//! Bad input: a clear error, the status the contract gives, nothing half-made, no panic. What a registry can do wrong is
//! in img-pull's own tests.

use pipelines::hostile::Archive;
use pipelines::{Bench, Ran, hostile};

/// Every failure says what failed in one line by the tool, and is not a panic.
#[track_caller]
fn clear(ran: &Ran, tool: &str, status: i32) {
    assert_eq!(ran.status, status, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "", "a failure prints no result");
    assert!(ran.stderr.lines().any(|line| line.starts_with(&format!("{tool}: "))), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("RUST_BACKTRACE"), "{}", ran.stderr);
}

const MAKERS: [&str; 4] = ["img-unpack", "ctr-create", "net-attach", "ctr-start"];

#[test]
fn malformed_records_are_located() {
    let Some(bench) = Bench::new() else { return };
    for tool in MAKERS {
        let truncated = bench.sh(&format!("printf '{{\"staves\":1,\\n \"image\": {{\"refer' | {tool}"));
        clear(&truncated, tool, 3);
        assert!(truncated.stderr.contains("line 2"), "{tool}: {}", truncated.stderr);
        clear(&bench.sh(&format!("echo '[1,2]' | {tool}")), tool, 3);
        clear(&bench.sh(&format!("echo '{{\"staves\":99}}' | {tool}")), tool, 3);
        clear(&bench.sh(&format!("head -c 5000 /dev/urandom | {tool}")), tool, 3);
        clear(
            &bench.sh(&format!("echo '{{\"staves\":1,\"image\":7,\"rootfs\":7,\"container\":7}}' | {tool}")),
            tool,
            3,
        );
    }
}

#[test]
fn wrong_types_are_named_by_their_path() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench.sh(
        "img-pull $R/busybox:1 | img-unpack | jq -c '.config = {\"env\": [\"A=1\", 7]}' | ctr-create -- true",
    );
    clear(&ran, "ctr-create", 3);
    assert!(ran.stderr.contains("config.env[1]"), "{}", ran.stderr);
    assert_eq!(bench.sh("ls $STAVES_ROOT/containers 2>/dev/null").stdout, "", "no container was begun");
}

#[test]
fn no_record_means_the_stage_before_failed() {
    let Some(bench) = Bench::new() else { return };
    for tool in MAKERS {
        clear(&bench.sh(&format!(": | {tool}")), tool, 3);
    }
    for tool in ["ctr-stop", "ctr-rm", "ctr-kill", "img-rm"] {
        bench.sh(&format!(": | {tool}")).expect(0);
    }
}

#[test]
fn the_record_that_fails_stays_and_the_others_go_on() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench.sh(
        "img-pull $R/busybox:1 | img-unpack >$DIR/good; (cat $DIR/good; echo '{\"staves\":1}'; cat $DIR/good) \
         | ctr-create -- true | jq -r .container.status",
    );
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert_eq!(ran.stdout, "created\ncreated\n");
}

#[test]
fn unknown_things_are_not_found() {
    let Some(bench) = Bench::new() else { return };
    clear(&bench.sh("img-pull $R/busybox:none"), "img-pull", 4);
    clear(&bench.sh("img-pull $R/no/such:1"), "img-pull", 4);
    clear(&bench.sh("img-inspect no/such:1"), "img-inspect", 4);
    clear(&bench.sh("img-rm no/such:1"), "img-rm", 4);
    for tool in ["ctr-start", "ctr-inspect", "ctr-stop", "ctr-kill", "ctr-rm", "ctr-logs"] {
        clear(&bench.sh(&format!("{tool} nobody")), tool, 4);
    }
}

#[test]
fn unknown_options_and_senseless_values_are_usage_errors() {
    let Some(bench) = Bench::new() else { return };
    for arguments in [
        "--memory=-5",
        "--cpus=many",
        "--volume=",
        "--network=no-such",
        "--user=a:b:c",
        "--ulimit=nofile",
        "--frobnicate",
    ] {
        let ran = bench.sh(&format!("img-pull $R/busybox:1 | img-unpack | ctr-create {arguments} -- true"));
        assert!([2, 3, 4].contains(&ran.status), "{arguments}: {} {}", ran.status, ran.stderr);
        clear(&ran, "ctr-create", ran.status);
    }
    assert_eq!(bench.sh("ctr-ls --all -q").expect(0).stdout, "", "nothing was made");
}

/// Unpacks hostile layers; they may be refused or rendered harmless, but nothing outside the layer may change.
#[track_caller]
fn unpack_hostile(layers: &[Vec<u8>]) -> (Bench, Ran) {
    let mut bench = Bench::new().expect("root and a registry");
    std::fs::create_dir_all(bench.place.path().join("victim")).unwrap();
    std::fs::write(bench.place.path().join("victim/file"), "untouched").unwrap();
    let _registry = hostile::push(&mut bench, layers).expect("a registry");
    let ran = bench.sh("img-pull $H/hostile:1 | img-unpack");
    let victim = bench.sh("cat $DIR/victim/file; ls $DIR/victim; ls -A $STAVES_ROOT/tmp");
    assert_eq!(victim.stdout, "untouchedfile\n", "something outside the layer changed: {}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    (bench, ran)
}

#[test]
fn names_that_climb_out_stay_inside() {
    if !pipelines::is_root() {
        return pipelines::skip("needs root");
    }
    let climb = "../../../../../../../../../../../../tmp/staves-climbed";
    let archive =
        Archive::new().dir("a").file("a/fine", b"x").file(climb, b"x").file("/tmp/staves-climbed", b"x");
    unpack_hostile(&[archive.finish()]);
    assert!(!std::path::Path::new("/tmp/staves-climbed").exists());
}

#[test]
fn links_do_not_lead_writes_out() {
    if !pipelines::is_root() {
        return pipelines::skip("needs root");
    }
    // Within one layer and across two, by symbolic and by hard link, absolute and relative.
    let out = "/tmp/staves-linked";
    std::fs::create_dir_all(out).unwrap();
    let first = Archive::new().link("way", out).link("up", "../../../../../../../../../../tmp/staves-linked");
    let second = Archive::new()
        .file("way/absolute", b"x")
        .file("up/relative", b"x")
        .hard_link("stolen", "/etc/shadow");
    unpack_hostile(&[first.finish(), second.finish()]);
    let escaped: Vec<_> = std::fs::read_dir(out).unwrap().flatten().map(|entry| entry.file_name()).collect();
    std::fs::remove_dir_all(out).unwrap();
    assert!(escaped.is_empty(), "{escaped:?}");
}

#[test]
fn a_whiteout_cannot_remove_what_is_outside() {
    if !pipelines::is_root() {
        return pipelines::skip("needs root");
    }
    let first = Archive::new().dir("a").file("a/b", b"x").finish();
    let second = Archive::new().file("a/.wh...", b"").file(".wh...", b"").file(".wh..", b"").finish();
    unpack_hostile(&[first, second]);
}

#[test]
fn devices_in_a_layer_are_of_no_use_in_a_container() {
    if !pipelines::is_root() {
        return pipelines::skip("needs root");
    }
    // /dev/null is allowed by its numbers, wherever it is; the disk is not.
    let disk = Archive::new().entry(tar::EntryType::Char, "kept", "", b"").file("plain", b"x").finish();
    let (bench, ran) = unpack_hostile(&[disk]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let kinds = bench.sh("stat -c %F $STAVES_ROOT/layers/*/fs/kept").expect(0).stdout;
    assert!(kinds.contains("character special"), "{kinds}");
}

#[test]
fn a_cut_or_false_archive_is_refused() {
    if !pipelines::is_root() {
        return pipelines::skip("needs root");
    }
    let whole = Archive::new().file("file", &[7; 5000]).finish();
    let (bench, ran) = unpack_hostile(&[whole[..2000].to_vec()]);
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    let layers = bench.sh("ls $STAVES_ROOT/layers 2>/dev/null; ls -A $STAVES_ROOT/tmp 2>/dev/null").stdout;
    assert_eq!(layers, "", "nothing is left of it");
    let (_, ran) = unpack_hostile(&[b"this is no tar".repeat(100)]);
    assert_eq!(ran.status, 3, "{}", ran.stderr);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    // In a mount namespace of its own, where the state directory is a small tmpfs.
    let script = "mkdir -p $STAVES_ROOT && mount -t tmpfs -o size=3m tmpfs $STAVES_ROOT \
        && { img-pull $R/layers:1 | img-unpack; echo status=$?; ls -A $STAVES_ROOT/tmp $STAVES_ROOT/layers 2>/dev/null | grep -v : ; \
             find $STAVES_ROOT/blobs -type f -size 0; img-ls; echo listed=$?; }";
    let ran =
        Ran::of(bench.place.command("unshare").args(["--mount", "bash", "-o", "pipefail", "-c", script]))
            .expect(0);
    assert!(ran.stderr.to_lowercase().contains("no space left"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    let first = ran.stdout.lines().next().unwrap_or_default();
    assert!(first == "status=1" || first == "status=3", "{}", ran.stdout);
    assert!(ran.stdout.ends_with("listed=0\n"), "{}", ran.stdout);
    // The same with room succeeds.
    bench.sh("img-pull $R/layers:1 | img-unpack").expect(0);
}

#[test]
fn a_filter_that_takes_for_ever_to_compile_is_given_up() {
    let Some(bench) = Bench::new() else { return };
    let operators = ["EQ", "GT", "NE", "GE", "LT", "LE"];
    let compare = |rule: usize, index: usize| {
        let (operator, value) = (operators[(rule + index) % 6], rule * (7 * index + 1) % 500);
        format!(r#"{{"index":{index},"value":{value},"op":"SCMP_CMP_{operator}"}}"#)
    };
    let rule = |rule: usize| {
        let compares: Vec<String> = (0..6).map(|index| compare(rule, index)).collect();
        format!(r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{}]}}"#, compares.join(","))
    };
    let rules: Vec<String> = (0..40).map(rule).collect();
    let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(","));
    let ran = bench.sh(&format!(
        "ctr-create --network none --rootfs / --security-opt 'seccomp={profile}' -- true </dev/null"
    ));
    clear(&ran, "ctr-create", 3);
    assert!(ran.stderr.contains("not compiled after"), "{}", ran.stderr);
    assert_eq!(bench.sh("ls $STAVES_ROOT/containers 2>/dev/null").stdout, "", "no container is left");
}
