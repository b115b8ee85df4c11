//! Many containers at once.

use crate::{Bench, groups_of};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn five_hundred_containers_by_eight_workers() {
    let Some(bench) = Bench::new() else { return };
    bench.configure(&["true"], |_| {});
    let bundle = bench.bundle().display().to_string();
    let prefix = bench.id("many");
    let next = AtomicU32::new(0);
    let failures = Mutex::new(Vec::new());
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap().lines().count();
    let mounts_before = mounts();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 500 {
                        return;
                    }
                    let id = format!("{prefix}-{number}");
                    // Half of them are killed, the others awaited.
                    let delete =
                        if number.is_multiple_of(2) { vec!["delete", "--force"] } else { vec!["delete"] };
                    for mut arguments in [vec!["create", "--bundle", &bundle], vec!["start"], delete] {
                        if arguments == ["delete"] {
                            bench.wait_for(&id, "stopped");
                        }
                        arguments.push(&id);
                        let log = bench.path().join(format!("log-{number}"));
                        let file = std::fs::File::create(&log).unwrap();
                        let status = bench.command(&arguments).stdout(Stdio::null()).stderr(file).status();
                        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
                            let said = std::fs::read_to_string(&log).unwrap_or_default();
                            failures.lock().unwrap().push(format!("{arguments:?}: {status:?}: {said}"));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failed: {failures:#?}", failures.len());
    // What the runtime keeps for all containers begins with '@'.
    let left = std::fs::read_dir(bench.root()).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| !name.to_string_lossy().starts_with('@')).collect();
    assert!(left.is_empty(), "{left:?}");
    for number in 0..500 {
        assert!(groups_of(&format!("{prefix}-{number}")).is_empty(), "{number}");
    }
    assert_eq!(mounts(), mounts_before);
}
