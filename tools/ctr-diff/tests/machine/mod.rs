//! Real containers for the tests of tools that work on their files.

use testkit::{Place, images, profile_dir, skip};

/// State of one's own with the image `bb:1`, a static busybox, in it; `None`, said aloud, where there can be no containers.
pub fn place() -> Option<Place> {
    if !testkit::is_root() {
        skip("containers take root");
        return None;
    }
    for tool in
        ["ctr-run", "ctr-shim", "ctr-exec", "ctr-kill", "ctr-rm", "ctr-wait", "img-copy", "img-unpack"]
    {
        let built = profile_dir().join(tool);
        assert!(built.is_file(), "{} is not built; cargo build --release first", built.display());
    }
    let layout = images()?.layout("busybox")?;
    let mut place = Place::new();
    place.set("L", layout.display().to_string());
    place.sh("img-copy -q oci:$L:1 bb:1 && mkdir $DIR/here").expect(0);
    Some(place)
}

/// Starts a container called `c` with these options, which does this and then sleeps; returns when it sleeps.
pub fn start(place: &Place, options: &str, script: &str) {
    let ran = place.sh(&format!(
        "ctr-run -d -q --network none --name c {options} bb:1 sh -c '{script}; echo ready; exec sleep 1000' >/dev/null && \
         for i in $(seq 500); do ctr-logs c | grep -q ready && exit 0; sleep 0.02; done; ctr-logs c; exit 1"
    ));
    ran.expect(0);
}

/// Nothing of it is mounted where this process, or anybody on the machine, sees it.
pub fn assert_unmounted(place: &Place) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    let path = place.path().display().to_string();
    assert!(!mounts.contains(&path), "{mounts}");
}
