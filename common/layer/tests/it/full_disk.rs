//! A disk that fills up: a small tmpfs in a mount namespace of its own, so that nothing is left behind.

use crate::build::Layer;
use crate::is_root;
use std::process::Command;

/// Set in the child that runs inside.
const INSIDE: &str = "LAYER_TEST_FULL_DISK";

#[test]
fn a_full_disk_is_said_to_be_one() {
    if !is_root("a_full_disk_is_said_to_be_one") {
        return;
    }
    if let Some(dir) = std::env::var_os(INSIDE) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "none"]).arg(&dir);
        assert!(mount.status().unwrap().success());
        let dir = std::path::PathBuf::from(dir);
        let large = Layer::new().file("a/large", &vec![1; 4 << 20]).gzip();
        let mut many = Layer::new();
        for index in 0..500 {
            many = many.file(&format!("d/{index}"), b"");
        }
        for blob in [large, many.tar()] {
            let sub = dir.join("layer");
            std::fs::create_dir(&sub).unwrap();
            let fault = crate::apply(&sub, &blob).unwrap_err();
            assert_eq!(fault.kind(), fault::Kind::Failed);
            assert!(fault.to_string().contains("the disk is full"), "{fault}");
            assert!(fault.hint_text().is_some());
            sys::fs::remove_tree(rustix::fs::CWD, sub.as_path()).unwrap();
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk::a_full_disk_is_said_to_be_one", "--nocapture"])
        .env(INSIDE, dir.path())
        .status();
    match status {
        Ok(status) => assert!(status.success()),
        Err(error) => eprintln!("SKIPPED a_full_disk_is_said_to_be_one: unshare: {error}"),
    }
}
