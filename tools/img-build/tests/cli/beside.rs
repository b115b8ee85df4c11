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
    // named is swept.
    place
        .sh(&format!(
            "{tool} -q --network none -t app:1 $DIR/app >/dev/null & build=$!
             n=0; while ! ls {flag}/begun >/dev/null 2>&1 && [ $n -lt 600 ]; do n=$((n+1)); sleep 0.1; done
             img-rm base:1 >/dev/null && rm -r $STAVES_ROOT/cache/build && img-prune >/dev/null && img-prune >/dev/null || exit 1
             for d in {flag}; do touch $d/swept; done
             wait $build"
        ))
        .expect(0);
    assert_eq!(inside(&place, "app:1", "cat /all"), "base\none\ntwo\n");
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
