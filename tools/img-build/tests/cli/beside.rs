//! What goes on beside a build.

use crate::{build, inside, machine, project};

#[test]
fn what_a_build_stands_on_is_not_swept() {
    let Some(place) = machine::place() else { return };
    let first = "RUN echo one >/one\nRUN echo two >/two\n";
    project(&place, "base", &[("Dockerfile", "FROM bb:1\nRUN echo base >/base\n")]);
    project(&place, "first", &[("Dockerfile", &format!("FROM base:1\n{first}"))]);
    // Runs until it is told that all is swept.
    let wait = "RUN --mount=type=cache,id=flag,target=/flag touch /flag/begun; n=0; while [ ! -e /flag/swept ] && [ $n -lt 600 ]; do n=$((n+1)); sleep 0.1; done; cat /base /one /two >/all\n";
    project(&place, "app", &[("Dockerfile", &format!("FROM base:1\n{first}{wait}"))]);
    build(&place, "-q -t base:1 $DIR/base").expect(0);
    build(&place, "-q $DIR/first").expect(0);
    let tool = env!("CARGO_BIN_EXE_img-build");
    let flag = "$STAVES_ROOT/cache/mounts/flag-*";
    // The image below loses its name, the image of the steps goes, and the steps lose their places in the cache. What only these had
    // named is swept; the cache that is mounted stays.
    place
        .sh(&format!(
            "{tool} -q --network none -t app:1 $DIR/app >/dev/null & build=$!
             n=0; while ! ls {flag}/begun >/dev/null 2>&1 && [ $n -lt 600 ]; do n=$((n+1)); sleep 0.1; done
             img-rm base:1 >/dev/null && img-prune --cache >/dev/null && img-prune --cache >/dev/null || exit 1
             ! ls $STAVES_ROOT/cache/build/* 2>/dev/null || exit 1
             for d in {flag}; do touch $d/swept; done
             wait $build"
        ))
        .expect(0);
    assert_eq!(inside(&place, "app:1", "cat /all"), "base\none\ntwo\n");
    place.sh(&format!("ls {flag}/swept && img-prune --cache >/dev/null && ! ls -d {flag}")).expect(0);
    // Nothing is held when it is over.
    assert_eq!(std::fs::read_dir(place.run().join("holds")).unwrap().count(), 0);
    machine::assert_unmounted(&place);
}

#[test]
fn the_shell_that_starts_a_build_changes_nothing() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1\nRUN umask >/said; stat -c %a /etc/hosts /etc/resolv.conf /etc/hostname >>/said; mkdir /made; env | grep -c WORD >>/said; true\n\
                WORKDIR /work/dir\nCOPY a /copied/\nCOPY <<X /inline/x\nx\nX\n\
                RUN stat -c %a /made /work /work/dir /copied /inline /inline/x >>/said\n";
    let wanted = "0022\n644\n644\n644\n0\n755\n755\n755\n755\n755\n644\n";
    project(&place, "app", &[("Dockerfile", text), ("a", "a")]);
    let tool = env!("CARGO_BIN_EXE_img-build");
    let words = "-q --network none -t it:1 --no-cache $DIR/app";
    let build = |shell: &str| {
        let id = place.sh(&format!("{shell}; PASSWORD=x {tool} {words}")).expect(0).stdout;
        assert_eq!(inside(&place, "it:1", "cat /said"), wanted, "{shell}");
        id
    };
    assert_eq!(build("umask 022"), build("umask 077; trap '' INT HUP PIPE; exec 9</etc/passwd"));
}

/// A step that is done anew may make other files. What was made on the old ones does not go with them.
#[test]
fn layers_of_different_builds_are_not_mixed() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1 AS below\nRUN cat /proc/sys/kernel/random/uuid >/below\nFROM below AS above\nRUN cp /below /above\n\
                COPY a /a\nRUN cp /above /last\n";
    project(&place, "app", &[("Dockerfile", text), ("a", "a")]);
    let ids = || {
        let said = inside(&place, "it:1", "cat /below /above /last");
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        assert!(lines.len() == 3 && lines[0] == lines[1] && lines[1] == lines[2], "{said}");
        lines[0].clone()
    };
    build(&place, "-q -t it:1 $DIR/app").expect(0);
    let first = ids();
    // Another build makes the lower one anew.
    build(&place, "-q --no-cache --target below $DIR/app").expect(0);
    build(&place, "-q -t it:1 $DIR/app").expect(0);
    let second = ids();
    assert_ne!(first, second);
    // This one does.
    build(&place, "-q --no-cache-filter below -t it:1 $DIR/app").expect(0);
    let third = ids();
    assert_ne!(second, third);
    // And what has not changed is found.
    build(&place, "-q -t it:1 $DIR/app").expect(0);
    assert_eq!(ids(), third);
    let ran = build(&place, "--print $DIR/app").expect(0);
    assert!(!ran.stdout.contains("\"cached\":false"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("below\":"), "{}", ran.stdout);
}
