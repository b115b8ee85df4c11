//! The tool as a program, fed by tar(1) and by archives made to do harm.

use testkit::{Place, Ran};

fn import(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{} {arguments}", env!("CARGO_BIN_EXE_vol-import")))
}

fn seed(place: &Place) {
    place
        .sh("mkdir $DIR/seed && cd $DIR/seed && mkdir -m 2750 dir && echo hello > dir/file && ln dir/file hard
            ln -s /etc/passwd link; truncate -s 20M dir/sparse; touch .wh.file .wh..wh..opq
            tar --sparse --format=posix -C $DIR/seed -cf $DIR/seed.tar . && gzip -k $DIR/seed.tar")
        .expect(0);
}

#[test]
fn a_volume_appears_whole() {
    let place = Place::new();
    seed(&place);
    let record = import(&place, "data -l from=seed < $DIR/seed.tar").expect(0).json();
    assert_eq!(record["volumes"][0]["labels"]["from"], "seed");
    import(&place, "packed $DIR/seed.tar.gz").expect(0);
    for name in ["data", "packed"] {
        place
            .sh(&format!(
                "cd $STAVES_ROOT/volumes/{name}/_data && [ \"$(cat dir/file)\" = hello ] && [ hard -ef dir/file ] \
                 && [ \"$(readlink link)\" = /etc/passwd ] && [ -e .wh.file ] && [ -e .wh..wh..opq ] \
                 && [ $(stat -c %a dir) = 2750 ] && [ $(stat -c %s dir/sparse) = 20971520 ] && [ $(du -k dir/sparse | cut -f1) -lt 100 ]"
            ))
            .expect(0);
    }
    // Cut in the middle: nothing is there.
    assert_ne!(import(&place, "cut < <(head -c 3000 $DIR/seed.tar)").status, 0);
    import(&place, "empty < /dev/null").expect(3);
    for name in ["cut", "empty"] {
        assert!(!place.root().join("volumes").join(name).exists());
    }
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_is_there_is_kept_replaced_or_merged_as_asked() {
    let place = Place::new();
    seed(&place);
    import(&place, "data < $DIR/seed.tar").expect(0);
    let data = place.root().join("volumes/data/_data");
    std::fs::write(data.join("own"), b"x").unwrap();
    std::fs::write(data.join("dir/file"), b"changed").unwrap();
    import(&place, "data < $DIR/seed.tar").expect(5);
    import(&place, "data --merge < $DIR/seed.tar").expect(0);
    assert!(data.join("own").exists());
    assert_eq!(std::fs::read(data.join("dir/file")).unwrap(), b"hello\n");
    import(&place, "data --replace < $DIR/seed.tar").expect(0);
    assert!(!data.join("own").exists() && data.join("hard").exists());
    // A broken archive takes nothing away.
    assert_ne!(import(&place, "data --replace < <(head -c 3000 $DIR/seed.tar)").status, 0);
    assert!(data.join("hard").exists());
    import(&place, "data -l a=b --merge < $DIR/seed.tar").expect(5);
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn hostile_archives_stay_inside() {
    let place = Place::new();
    place
        .sh("mkdir $DIR/out && cd $DIR && mkdir h && cd h && ln -s $DIR/out escape && tar -cf ../evil.tar escape
            rm escape && mkdir escape && echo x > escape/file && tar -rf ../evil.tar escape/file
            echo x > up && tar -P --transform 's,up,../../../up,' -cf ../up.tar up
            ln up two && tar -P --transform 's,^up$,/etc/passwd,h' -cf ../hard.tar up two")
        .expect(0);
    // The link leads inside the volume, or the archive is refused: either way nothing comes out of it.
    let _ = import(&place, "evil < $DIR/evil.tar");
    let _ = import(&place, "up < $DIR/up.tar");
    assert_eq!(std::fs::read_dir(place.path().join("out")).unwrap().count(), 0);
    assert!(!place.path().join("up").exists() && !place.root().join("up").exists());
    import(&place, "many --max-entries 1 < $DIR/evil.tar").expect(3);
    import(&place, "large --max-size 1k < $DIR/evil.tar").expect(3);
}
