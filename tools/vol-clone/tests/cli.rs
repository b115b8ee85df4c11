//! The tool as a program.

use serde_json::json;
use testkit::{Place, Ran};

fn clone(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{} {arguments}", env!("CARGO_BIN_EXE_vol-clone")))
}

fn source(place: &Place) {
    let dir = place.root().join("volumes/src");
    std::fs::create_dir_all(dir.join("_data")).unwrap();
    std::fs::write(dir.join("volume.json"), br#"{"name":"src","driver":"local","labels":{"a":"b"}}"#)
        .unwrap();
}

#[test]
fn a_copy_is_like_the_source() {
    let place = Place::new();
    source(&place);
    place
        .sh("cd $STAVES_ROOT/volumes/src/_data
            chmod 1777 . && mkdir -m 2750 dir && echo hello > dir/file && ln dir/file hard && ln -s /etc/passwd link
            truncate -s 10M dir/sparse && printf x | dd of=dir/sparse bs=1 seek=5M conv=notrunc status=none
            truncate -s 20M dir/sparse; mkfifo pipe; touch \"$(printf 'odd\\377name')\"
            [ $(id -u) = 0 ] && chown 12:34 hard && chmod 6711 hard && mknod null c 1 3
            touch -d '2001-02-03 04:05:06.789' dir/file dir; true")
        .expect(0);
    let record = clone(&place, "src copy -l k=v").expect(0).json();
    assert_eq!((&record["volumes"][0]["name"], &record["cloned_from"]), (&json!("copy"), &json!("src")));
    assert_eq!(record["volumes"][0]["labels"], json!({"k": "v"}));
    let list = |name: &str| {
        place
            .sh(&format!("cd $STAVES_ROOT/volumes/{name}/_data && find . -printf '%p %y %m %U:%G %s %n %T@ %l\\n' | sed '/^. d/s/ [^ ]*$//' | sort && md5sum dir/*"))
            .expect(0)
            .stdout
    };
    assert_eq!(list("src"), list("copy"));
    let disk = place.sh("du -k $STAVES_ROOT/volumes/copy/_data/dir/sparse | cut -f1").expect(0).stdout;
    assert!(disk.trim().parse::<u64>().unwrap() < 200, "{disk}");
    let hard = place.sh("cd $STAVES_ROOT/volumes/copy/_data && [ hard -ef dir/file ]");
    hard.expect(0);
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_copied_is_said() {
    let place = Place::new();
    source(&place);
    clone(&place, "nothing copy").expect(4);
    clone(&place, "src src").expect(5);
    clone(&place, "src ../x").expect(2);
    assert!(clone(&place, "--dry-run src later").expect(0).stdout.contains("clone_volume"));
    assert!(!place.root().join("volumes/later").exists());
    place.container(&"1".repeat(64), "web", &json!({"volumes": [{"name": "src", "target": "/d"}]}));
    // It does not run, so nothing changes.
    assert_eq!(clone(&place, "-q src copy").expect(0).stderr, "");
}
