//! COPY, ADD and WORKDIR in builds; what they choose and write is tested where it is done.

use crate::{build, dockerfile, inside, machine, project};

#[test]
fn files_are_copied_as_told() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[
            (".dockerignore", "*.log\n!keep.log\nsecret\n"),
            ("a.log", ""),
            ("keep.log", "kept"),
            ("secret/key", "s"),
            ("dir/one", "1"),
            ("dir/two", "2"),
            (
                "Dockerfile",
                "FROM bb:1\nRUN echo 'u:x:70:71::/:/bin/sh' >>/etc/passwd; echo 'g:x:72:' >>/etc/group\n\
                 COPY . /all/\nCOPY --chown=u:g --chmod=600 dir /owned/\nCOPY --link --chown=5:6 dir/one /linked/\n\
                 COPY --exclude=two dir /but/\nCOPY --parents dir/one /parents/\nCOPY <<A <<\"B\" /here/\n$HOME a\nA\n$HOME b\nB\nWORKDIR /made/by\nUSER 9\nWORKDIR user\n",
            ),
        ],
    );
    build(&place, "-q -t it:1 $DIR/app").expect(0);
    let tree = inside(
        &place,
        "--user 0 it:1",
        "cd /; find all owned linked but parents here made | sort | xargs stat -c \"%n %u:%g %a\"",
    );
    for line in [
        "all/keep.log 0:0 644",
        "all/dir/two 0:0 644",
        "owned 70:72 600",
        "owned/one 70:72 600",
        "linked/one 5:6 644",
        "but/one 0:0 644",
        "parents/dir/one 0:0 644",
        "here/A 0:0 644",
        "made/by 0:0 755",
        "made/by/user 9:9 755",
    ] {
        assert!(tree.lines().any(|found| found == line), "{line}: {tree}");
    }
    for hidden in ["a.log", "secret", "but/two", "parents/dir/two"] {
        assert!(!tree.contains(hidden), "{hidden}: {tree}");
    }
    let here = inside(&place, "it:1", "cat /here/A /here/B");
    assert_eq!(here, " a\n$HOME b\n");
}

#[test]
fn what_is_not_there_is_said() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[(".dockerignore", "hidden\n"), ("hidden", ""), ("Dockerfile", "FROM bb:1\nCOPY hidden /\n")],
    );
    let ran = build(&place, "$DIR/app").expect(4);
    assert!(
        ran.stderr.contains("Dockerfile:2")
            && ran.stderr.contains("hidden")
            && ran.stderr.contains(".dockerignore"),
        "{}",
        ran.stderr
    );
    for (text, status, words) in [
        ("FROM bb:1\nCOPY nothing /\n", 4, "nothing"),
        ("FROM bb:1\nCOPY --from=bb:1 /nothing /\n", 4, "nothing"),
        ("FROM bb:1\nCOPY --from=0 /x /\n", 3, "Dockerfile"),
        ("FROM bb:1\nCOPY --chown=nobody-here Dockerfile /\n", 4, "nobody-here"),
        ("FROM scratch\nRUN true\n", 3, "no files"),
        ("FROM nowhere.invalid/x:1\n", 7, "nowhere.invalid"),
        ("FROM bb:1\nNONSENSE\n", 3, "line 2"),
        ("", 3, "Dockerfile"),
    ] {
        let ran = dockerfile(&place, text, "--pull=missing");
        assert_eq!(ran.status, status, "{text}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{text}: {}", ran.stderr);
    }
    build(&place, "$DIR/not-there").expect(4);
    build(&place, "-f other $DIR/app").expect(4);
}

#[test]
fn a_link_in_the_image_leads_nowhere_outside() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1\nRUN ln -s / /root-link; ln -s /etc/../../../../../.. /up; mkdir /real; ln -s /real /to\nCOPY f /root-link/x\nCOPY f /up/y\nCOPY f /to/z\n";
    project(&place, "app", &[("Dockerfile", text), ("f", "file")]);
    build(&place, "-q -t it:1 $DIR/app").expect(0);
    assert_eq!(inside(&place, "it:1", "cat /x /y /real/z; test -L /to && echo link"), "filefilefilelink\n");
    assert!(!std::path::Path::new("/x").exists() && !std::path::Path::new("/y").exists());
}

#[test]
fn a_link_to_a_file_below_stays_a_link() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1\nRUN echo one >/one; echo two >/two\nRUN ln /one /other && chmod 600 /two\n";
    dockerfile(&place, text, "-q -t it:1").expect(0);
    let listed = place
        .sh("layer=$(img-inspect it:1 | jq -r '.image.layers[-1].digest' | cut -d: -f2); zcat $STAVES_ROOT/blobs/sha256/$layer | tar tv")
        .expect(0)
        .stdout;
    assert!(listed.contains("other link to one") || listed.contains("one link to other"), "{listed}");
    // As it is unpacked elsewhere.
    place
        .sh("img-save it:1 >$DIR/it.tar && export STAVES_ROOT=$DIR/elsewhere && img-load -q <$DIR/it.tar")
        .expect(0);
    let there = place
        .sh("STAVES_ROOT=$DIR/elsewhere ctr-run --rm --network none it:1 stat -c '%h %a' /one /other /two")
        .expect(0)
        .stdout;
    assert_eq!(there, "2 644\n2 644\n1 600\n");
}
