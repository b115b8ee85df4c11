//! The tool as a program, on real containers.

#[path = "../../ctr-diff/tests/machine/mod.rs"]
mod machine;

use machine::{assert_unmounted, place, start};
use testkit::Place;

const FILES: &str = "mkdir /a; echo x >/a/f; chown 7:8 /a/f; chmod 4711 /a/f; ln /a/f /a/g; ln -s /nowhere /a/l; mkfifo /a/p; touch -d @1000000000 /a/f; rm /etc/passwd; \
     echo v >/data/v; echo t >/tt/t; dd if=/dev/zero of=/a/holes bs=1 count=1 seek=8M; printf end >>/a/holes";

#[test]
fn the_whole_tree_and_nothing_that_is_mounted_in_it() {
    let Some(place) = place() else { return };
    start(&place, "-v $DIR/here:/data --tmpfs /tt", FILES);
    place
        .sh("ctr-export c >$DIR/running.tar; mkdir $DIR/out; tar -C $DIR/out -xpf $DIR/running.tar")
        .expect(0);
    let told = place.sh("cd $DIR/out; stat -c '%n %U %u:%g %a %Y %h' a/f; readlink a/l; stat -c %F a/p; ls etc; ls -A data tt proc; stat -c %s a/holes; tail -c 3 a/holes");
    let told = told.expect(0).stdout;
    assert!(told.contains(" 7:8 4711 1000000000 2\n/nowhere\nfifo\n"), "{told}");
    assert!(!told.contains("passwd") && told.contains("group"), "{told}");
    assert!(told.contains("data:\n\nproc:\n\ntt:\n8388612\nend"), "{told}");
    // Holes stayed holes.
    let sizes = place.sh("du -k $DIR/out/a/holes; stat -c %s $DIR/running.tar").expect(0).stdout;
    let numbers: Vec<u64> = sizes.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] < 64 && numbers[1] < 5_000_000, "{sizes}");
    place.sh("ctr-export --no-sparse c | tar -tvf - a/holes | grep 8388612").expect(0);
    // One that has ended, by a record and into a file, is the same to the byte.
    place.sh("ctr-kill -q c").expect(0);
    let record = place.sh("ctr-inspect c | ctr-export --into $DIR/ended.tar").expect(0).json();
    assert!(record["archive"].as_str().unwrap().ends_with("ended.tar") && record["container"]["name"] == "c");
    place.sh("cmp $DIR/running.tar $DIR/ended.tar").expect(0);
    assert_unmounted(&place);
    // And an image, which runs.
    place.sh("ctr-export c | img-import -q -c 'CMD [\"cat\",\"/a/f\"]' - flat:1").expect(0);
    assert_eq!(place.sh("ctr-run --network none --rm flat:1").expect(0).stdout, "x\n");
}

#[test]
fn a_container_can_be_started_again_afterwards() {
    let Some(place) = place() else { return };
    place.sh("ctr-run --network none --name c bb:1 sh -c 'echo x >>/n; cat /n'").expect(0);
    place.sh("ctr-export c >/dev/null && ctr-start -a c | grep -c x | grep 2").expect(0);
}

#[test]
fn what_cannot_be_is_told() {
    let place = Place::new();
    place.sh("ctr-export nobody").expect(4);
    place.sh(": | ctr-export").expect(3);
    place.sh("ctr-export --into $DIR/x.tar nobody").expect(4);
    assert_eq!(place.sh("ls $DIR").stdout, "", "nothing half-made");
    let ran = place.sh("script -qec 'ctr-export nobody' /dev/null </dev/null");
    assert!(ran.stdout.contains("terminal") || ran.stderr.contains("script"), "{ran:?}");
}
