//! What is done again, and what is not.

use crate::{build, inside, machine, project, to_do};
use std::collections::BTreeSet;
use testkit::Place;

#[test]
fn nothing_changed_is_nothing_done() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[("a", "A"), ("Dockerfile", "FROM bb:1\nCOPY a /a\nRUN cat /a >/b\nLABEL l=1\nWORKDIR /w\n")],
    );
    let first = build(&place, "$DIR/app").expect(0).json();
    let files = |place: &Place| {
        place.sh("find $STAVES_ROOT -newer $DIR/mark -type f -path '*/layers/*' -o -newer $DIR/mark -type f -path '*/blobs/*' | wc -l").expect(0).stdout
    };
    place.sh("sleep 0.02; touch $DIR/mark").expect(0);
    let second = build(&place, "$DIR/app").expect(0);
    assert_eq!(second.json()["image"]["digest"], first["image"]["digest"]);
    assert_eq!(second.stderr.matches("CACHED").count(), 3, "{}", second.stderr);
    assert_eq!(files(&place), "0\n");
    // Files' times and what only the image says are no reason.
    place.sh("touch $DIR/app/a").expect(0);
    assert!(to_do(&place, "$DIR/app").is_empty());
    project(
        &place,
        "app",
        &[("Dockerfile", "FROM bb:1\nMAINTAINER me\nENV X=1\nCOPY a /a\nLABEL l=2\nCMD x\nEXPOSE 80\n")],
    );
    assert!(to_do(&place, "$DIR/app").is_empty());
    build(&place, "--no-cache $DIR/app").expect(0);
    // Files that are gone from the store are made again.
    place.sh("rm -r $STAVES_ROOT/layers/*").expect(0);
    assert_eq!(to_do(&place, "$DIR/app").len(), 1);
    build(&place, "-q -t it:1 $DIR/app").expect(0);
    assert_eq!(inside(&place, "it:1", "cat /a"), "A");
}

/// A command may make something else each time: copied is what it made last.
#[test]
fn what_is_copied_of_a_stage_is_what_is_there() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1 AS one\nRUN cat /proc/sys/kernel/random/uuid >/u; echo same >/same\nFROM bb:1\nCOPY --from=one /same /same\nCOPY --from=one /u /u\n\
                RUN --mount=from=one,target=/one cat /one/u >/mounted\n";
    project(&place, "app", &[("Dockerfile", text)]);
    let built = |words: &str| {
        let ran = build(&place, &format!("-t it:1 {words} $DIR/app")).expect(0);
        let told = inside(&place, "it:1", "cat /u /mounted");
        build(&place, "-q -t one:1 --target one $DIR/app").expect(0);
        let made = inside(&place, "one:1", "cat /u");
        assert_eq!(told, format!("{made}{made}"), "{words}");
        (made, ran.stderr.matches("CACHED").count())
    };
    let (first, _) = built("");
    assert_eq!(built(""), (first.clone(), 4));
    let (second, cached) = built("--no-cache-filter one");
    assert_ne!(first, second);
    assert_eq!(cached, 1, "what is the same is the same");
    assert_eq!(built(""), (second, 4));
}

#[test]
fn what_a_build_made_outlives_a_prune_and_goes_with_the_cache() {
    let Some(place) = machine::place() else { return };
    project(&place, "app", &[("Dockerfile", "FROM bb:1\nRUN echo x >/x\n")]);
    build(&place, "-q --output type=cacheonly $DIR/app").expect(0);
    place.sh("img-prune").expect(0);
    assert!(to_do(&place, "$DIR/app").is_empty());
    place.sh("img-prune --cache && img-prune").expect(0);
    assert_eq!(to_do(&place, "$DIR/app"), ["RUN echo x >/x"]);
    assert_eq!(place.sh("ls $STAVES_ROOT/layers | wc -l").expect(0).stdout, "1\n");
}

/// A build in parts that change one by one, and what each part's change has to have done again.
struct Parts {
    values: [u32; 8],
}

/// Context file of a step, its command's words, a build argument, an environment variable, a file of another stage, a label, a time, the base image.
const NAMES: [&str; 8] = ["file", "command", "argument", "variable", "stage", "label", "time", "base"];

impl Parts {
    fn write(&self, place: &Place) -> String {
        let [file, command, argument, variable, stage, label, _, base] = self.values;
        project(place, "base", &[("Dockerfile", &format!("FROM bb:1\nRUN echo {base} >/base\n"))]);
        build(place, "-q -t base:1 $DIR/base").expect(0);
        let text = format!(
            "FROM bb:1 AS other\nRUN echo same >/same; echo {stage} >/changes\nFROM base:1\nLABEL l={label}\nCOPY f /f\nRUN echo c{command} >/c\n\
             ARG A\nRUN echo a$A >/a\nENV V={variable}\nRUN echo v$V >/v\nCOPY --from=other /same /same\nCOPY --from=other /changes /changes\nRUN echo end\n"
        );
        project(place, "app", &[("Dockerfile", &text), ("f", &file.to_string())]);
        place.sh("touch $DIR/app/f").expect(0);
        format!("--build-arg A={argument} $DIR/app")
    }

    /// Numbers of the steps of the last stage that depend on a part, and whether the other stage does.
    fn dependents(part: usize) -> (BTreeSet<usize>, bool) {
        // LABEL 1, COPY 2, RUN c 3, ARG 4, RUN a 5, ENV 6, RUN v 7, COPY same 8, COPY changes 9, RUN end 10.
        let steps: &[usize] = match NAMES[part] {
            "file" | "base" => &[2, 3, 5, 7, 8, 9, 10],
            "command" => &[3, 5, 7, 8, 9, 10],
            "argument" => &[5, 7, 8, 9, 10],
            "variable" => &[7, 8, 9, 10],
            "stage" => &[9, 10],
            _ => &[],
        };
        (steps.iter().copied().collect(), NAMES[part] == "stage")
    }
}

/// A generator of one's own (xorshift), so that a failure can be had again.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn exactly_what_depends_on_a_change_is_done_again() {
    let Some(place) = machine::place() else { return };
    let mut parts = Parts { values: [0; 8] };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut fresh = 1;
    build(&place, &format!("-q {}", parts.write(&place))).expect(0);
    for round in 0..24 {
        // One part, sometimes two, get values they never had.
        let count = 1 + usize::from(next(&mut state).is_multiple_of(4));
        let (mut expected, mut other) = (BTreeSet::new(), false);
        for _ in 0..count {
            let part = (next(&mut state) % NAMES.len() as u64) as usize;
            parts.values[part] = fresh;
            fresh += 1;
            let (steps, stage) = Parts::dependents(part);
            expected.extend(steps);
            other |= stage;
        }
        let words = parts.write(&place);
        let ran = build(&place, &words).expect(0);
        let mut done = BTreeSet::new();
        let mut done_other = false;
        // `#7 [stage-1 3/10] RUN …` and then `#7 DONE` or `#7 CACHED`.
        let step = |line: &str| {
            let (number, rest) = line.strip_prefix('#')?.split_once(' ')?;
            Some((number.to_owned(), rest.to_owned()))
        };
        let lines: Vec<(String, String)> = ran.stderr.lines().filter_map(step).collect();
        for (number, rest) in &lines {
            let Some(title) = rest.strip_prefix('[') else { continue };
            let changes_files = ["RUN", "COPY"]
                .iter()
                .any(|word| title.split("] ").nth(1).is_some_and(|text| text.starts_with(word)));
            let cached = lines.iter().any(|(of, text)| of == number && text == "CACHED");
            if !changes_files || cached {
                continue;
            }
            let (stage, place) = title.split(']').next().unwrap().split_once(' ').unwrap();
            if stage == "other" {
                done_other = true;
            } else {
                done.insert(place.split('/').next().unwrap().parse::<usize>().unwrap());
            }
        }
        assert_eq!(
            (done, done_other),
            (expected, other),
            "round {round}: {:?}\n{}",
            parts.values,
            ran.stderr
        );
    }
}

#[test]
fn eight_builds_at_once_share_a_cache() {
    let Some(place) = machine::place() else { return };
    for n in 0..8 {
        // Half of it is everybody's, half each one's own.
        let text = format!(
            "FROM bb:1\nCOPY f /f\nRUN cat /f /f >/two\nRUN mkdir /d; for i in $(seq 100); do echo $i >/d/$i; done\nRUN echo {n} >/n\n"
        );
        project(&place, &format!("p{n}"), &[("Dockerfile", &text), ("f", "shared")]);
    }
    let tool = env!("CARGO_BIN_EXE_img-build");
    place.sh(&format!("for n in 0 1 2 3 4 5 6 7; do {tool} -q --network none -t it:$n $DIR/p$n >/dev/null & p=\"$p $!\"; done; for p in $p; do wait $p || exit 1; done")).expect(0);
    let layers: BTreeSet<String> = (0..8)
        .map(|n| {
            assert_eq!(
                inside(&place, &format!("it:{n}"), "cat /two /n; ls /d | wc -l"),
                format!("sharedshared{n}\n100\n")
            );
            place.sh(&format!("img-inspect it:{n} | jq -c '.image.layers[:4]'")).expect(0).stdout
        })
        .collect();
    assert_eq!(layers.len(), 1);
    for n in 0..8 {
        assert!(to_do(&place, &format!("$DIR/p{n}")).is_empty());
    }
    place.sh("img-prune").expect(0);
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}
