//! Builds that fail, and that are killed.

use crate::{build, dockerfile, inside, machine, project, to_do};
use std::process::Stdio;
use std::time::Instant;

#[test]
fn a_failed_command_is_shown_and_can_be_entered() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1\nENV A=b\nWORKDIR /w\nRUN echo before >/before\nRUN echo left >left; echo the reason >&2; exit 3\nRUN never\n";
    let ran = dockerfile(&place, text, "").expect(1);
    assert_eq!(ran.stdout, "");
    let error = ran.stderr.lines().find(|line| line.starts_with("img-build:")).unwrap();
    assert!(
        error.contains("Dockerfile:5: RUN echo left")
            && error.contains("status 3")
            && error.contains("the reason"),
        "{error}"
    );
    let record = ran.stderr.split("< ").nth(1).and_then(|rest| rest.split(" |").next()).unwrap();
    let look = place.sh(&format!("ctr-create --network none -- sh -c 'pwd; echo $A; cat left /before' <{record} | ctr-start --attach")).expect(0);
    assert_eq!(look.stdout, "/w\nb\nleft\nbefore\n");
    // What was done before it is not done again.
    assert_eq!(to_do(&place, "$DIR/only").len(), 2);
    // In quiet, too, the reason is told.
    let ran = dockerfile(&place, text, "-q").expect(1);
    assert!(ran.stderr.contains("the reason"), "{}", ran.stderr);
    for (text, words) in [
        ("FROM bb:1\nRUN /not/there\n", "127"),
        ("FROM bb:1\nRUN [\"/not/there\"]\n", "127"),
        ("FROM bb:1\nRUN sleep 9 & kill -9 $!; wait $!\n", "signal 9"),
    ] {
        let ran = dockerfile(&place, text, "").expect(1);
        assert!(ran.stderr.contains(words), "{text}: {}", ran.stderr);
    }
    machine::assert_unmounted(&place);
}

#[test]
fn what_is_not_taken_is_refused() {
    let Some(place) = machine::place() else { return };
    project(&place, "only", &[("Dockerfile", "FROM bb:1\n")]);
    for words in [
        "--squash --squash-all $DIR/only",
        "--squash --cache-to type=inline $DIR/only",
        "--build-context x=oci-layout:// $DIR/only",
        "--platform linux/amd64,linux/arm64 $DIR/only",
        "--platform linux/amd64,linux/arm64 -t a:1 -o out $DIR/only",
        "--platform nonsense $DIR/only",
        "--allow everything $DIR/only",
        "--no-cache-filter another $DIR/only",
        "--build-arg =x $DIR/only",
        "--label = $DIR/only",
        "-t UPPER $DIR/only",
        "--output type=floppy $DIR/only",
        "--ssh=default=/dev/null $DIR/only",
        "--memory lots $DIR/only",
        "--rm=false $DIR/only",
        "--layers=false $DIR/only",
        "--provenance mode=max $DIR/only",
        "--sbom=true $DIR/only",
        "-f - -",
        "one two",
    ] {
        let ran = build(&place, words);
        assert!(matches!(ran.status, 2 | 3), "{words}: {} {}", ran.status, ran.stderr);
    }
    assert_eq!(place.sh("img-ls -q | wc -l").expect(0).stdout, "1\n");
    build(&place, "-q --no-cache-filter stage-0 $DIR/only").expect(0);
    // What scripts for docker say out of habit.
    build(&place, "-q --rm --force-rm --layers=true --provenance=false --sbom false $DIR/only").expect(0);
}

/// How many moments a build is killed at.
fn moments() -> u32 {
    std::env::var("STAVES_SWEEP").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

#[test]
fn killed_at_any_moment_the_cache_is_good_and_nothing_is_left() {
    let Some(place) = machine::place() else { return };
    let files: Vec<(String, String)> = (0..50).map(|n| (format!("src/{n}"), format!("{n}"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    project(&place, "app", &files);
    let text = |n: u32| {
        format!(
            "FROM bb:1\nRUN echo {n} >/n\nCOPY src /src\nWORKDIR /w/{n}\nRUN cat /src/* | md5sum >/w/{n}/sum\nCOPY --from=bb:1 /etc /x\n"
        )
    };
    project(&place, "app", &[("Dockerfile", &text(1000))]);
    let began = Instant::now();
    build(&place, "-q --squash -t usual:1 $DIR/app").expect(0);
    let usual = began.elapsed();
    let count = moments();
    for moment in 0..count {
        project(&place, "app", &[("Dockerfile", &text(moment))]);
        let squash = (moment % 2 == 1).then_some("--squash");
        let mut child = place
            .command(env!("CARGO_BIN_EXE_img-build"))
            .args(["-q", "--network", "none", "-t", "killed:1"])
            .args(squash)
            .arg(place.path().join("app"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(usual.mul_f64(1.1) * moment / count);
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever of it is in the cache is right: the build that goes on from there gives what one from nothing gives.
        let squash = squash.unwrap_or_default();
        build(&place, &format!("-q {squash} -t again:1 $DIR/app")).expect(0);
        assert_eq!(
            inside(
                &place,
                "again:1",
                &format!("cat /n; ls /src | wc -l; test -s /w/{moment}/sum && ls /x | wc -l")
            )
            .lines()
            .next(),
            Some(moment.to_string().as_str())
        );
        let digest = place.sh("img-inspect again:1 | jq -r .image.digest").expect(0).stdout;
        build(&place, &format!("-q {squash} --no-cache -t anew:1 $DIR/app")).expect(0);
        assert_eq!(place.sh("img-inspect anew:1 | jq -r .image.digest").expect(0).stdout, digest, "{moment}");
    }
    // The runners see that the build is gone, and go.
    place.sh("for i in $(seq 250); do pgrep -f '[-]-run-step=.*'$(basename $DIR) >/dev/null || exit 0; sleep 0.02; done; pgrep -af '[-]-run-step'; exit 1").expect(0);
    place.store().sweep_scratch().unwrap();
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
    machine::assert_unmounted(&place);
}
