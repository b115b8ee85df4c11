//! The tool as a program, its archives read by tar(1).

use testkit::{Place, Ran};

fn export(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{} {arguments}", env!("CARGO_BIN_EXE_vol-export")))
}

#[test]
fn tar_reads_what_is_written() {
    let place = Place::new();
    let dir = place.root().join("volumes/data");
    std::fs::create_dir_all(dir.join("_data")).unwrap();
    std::fs::write(dir.join("volume.json"), br#"{"name":"data"}"#).unwrap();
    place
        .sh("cd $STAVES_ROOT/volumes/data/_data
            mkdir -m 2750 dir && echo hello > dir/file && ln dir/file hard && ln -s /etc/passwd link
            printf x | dd of=dir/sparse bs=1 seek=5M conv=notrunc status=none; truncate -s 20M dir/sparse dir/hole
            mkfifo pipe; long=$(printf '%0200d' 1); mkdir $long && touch $long/$long; touch .wh.file
            touch -d '2001-02-03 04:05:06.789' dir/file dir")
        .expect(0);
    export(&place, "data > $DIR/a.tar").expect(0);
    export(&place, "data > $DIR/b.tar").expect(0);
    place.sh("cmp $DIR/a.tar $DIR/b.tar && mkdir $DIR/out && tar -C $DIR/out -xpf $DIR/a.tar").expect(0);
    let list = |path: &str| {
        place
            .sh(&format!("cd {path} && find . -printf '%p %y %m %U:%G %s %n %l\\n' | sed 's/^\\(\\S* d .* \\)[0-9]* \\([0-9]*\\) $/\\1\\2/' | sort && find . -type f -printf '%T@\\n' | sort && md5sum dir/*"))
            .expect(0)
            .stdout
    };
    assert_eq!(list("$STAVES_ROOT/volumes/data/_data"), list("$DIR/out"));
    let size = std::fs::metadata(place.path().join("a.tar")).unwrap().len();
    assert!(size < 200_000, "holes take room: {size}");
    let record = export(&place, "data --into $DIR/c.tar").expect(0).json();
    assert_eq!(record["volumes"][0]["name"], "data");
    place.sh("cmp $DIR/a.tar $DIR/c.tar").expect(0);
    export(&place, "nothing").expect(4);
    // An archive that could not be written is no success.
    export(&place, "data > /dev/full").expect(1);
    export(&place, "data --into $DIR/no/such/file").expect(1);
}
