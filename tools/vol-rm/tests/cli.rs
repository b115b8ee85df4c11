//! The tool as a program.

use serde_json::json;
use testkit::{Place, Ran};

const RM: &str = env!("CARGO_BIN_EXE_vol-rm");

fn put(place: &Place, name: &str) -> std::path::PathBuf {
    let dir = place.root().join("volumes").join(name);
    std::fs::create_dir_all(dir.join("_data/deep")).unwrap();
    std::fs::write(dir.join("_data/deep/file"), vec![1; 5000]).unwrap();
    std::fs::write(dir.join("volume.json"), json!({"name": name}).to_string()).unwrap();
    dir
}

fn rm(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{RM} {arguments}"))
}

#[test]
fn what_nobody_uses_goes() {
    let place = Place::new();
    let (one, two) = (put(&place, "one"), put(&place, "two"));
    let planned = rm(&place, "--dry-run one").expect(0);
    assert!(planned.stdout.contains("remove_volume") && one.exists());
    let removed = rm(&place, "one").expect(0).json();
    assert_eq!(removed["volumes"][0]["name"], "one");
    assert!(removed["reclaimed_bytes"].as_u64().unwrap() >= 5000, "{removed}");
    assert!(!one.exists());
    rm(&place, "one").expect(4);
    assert_eq!(rm(&place, "-f one").expect(0).stdout, "");
    rm(&place, "'../volumes/two'").expect(2);
    place.sh(&format!(r#"echo '{{"volumes":[{{"name":"two"}},{{"name":"two"}}]}}' | {RM} -q"#)).expect(0);
    assert!(!two.exists());
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
    assert_eq!(rm(&place, "< /dev/null").expect(0).stdout, "");
}

#[test]
fn what_is_used_stays_and_its_holder_is_named() {
    let place = Place::new();
    let used = put(&place, "used");
    place.container(&"1".repeat(64), "web", &json!({"volumes": [{"name": "used", "target": "/d"}]}));
    for flags in ["used", "-f used", "--dry-run used"] {
        let ran = rm(&place, flags).expect(5);
        assert!(ran.stderr.contains("in use by web"), "{}", ran.stderr);
    }
    assert!(used.exists());
    // What it needs cannot be known of a container whose record is damaged.
    let id = "2".repeat(64);
    let broken = place.container(&id, "broken", &json!({}));
    std::fs::write(broken.bundle.join("container.json"), b"{").unwrap();
    let free = put(&place, "free");
    let ran = rm(&place, "free");
    assert!(ran.status != 0 && ran.stderr.contains(&id), "{}", ran.stderr);
    assert!(free.exists());
}

#[test]
fn one_that_somebody_is_at_work_on_is_waited_for() {
    let place = Place::new();
    let dir = put(&place, "busy");
    let lock = store::Lock::shared_directory(&dir).unwrap();
    let held = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(lock);
    });
    let began = std::time::Instant::now();
    rm(&place, "busy").expect(0);
    assert!(began.elapsed() >= std::time::Duration::from_millis(200));
    held.join().unwrap();
}

#[test]
fn nothing_is_deleted_through_a_mount() {
    if !testkit::is_root() {
        return testkit::skip("a mount takes root");
    }
    let place = Place::new();
    put(&place, "data");
    let script = format!(
        "mkdir $DIR/kept && touch $DIR/kept/file && mount --bind $DIR/kept $STAVES_ROOT/volumes/data/_data/deep && {RM} data"
    );
    let ran = Ran::of(place.command("unshare").args(["-m", "bash", "-c", &script])).expect(5);
    assert!(ran.stderr.contains("mounted at"), "{}", ran.stderr);
    assert!(place.path().join("kept/file").exists());
}
