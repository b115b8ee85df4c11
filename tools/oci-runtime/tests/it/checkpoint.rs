//! `checkpoint` and `restore` by the real criu, where it works: in the version 2 guest with Debian 12's kernel for one.

use crate::{Bench, PROGRAM, assert_says, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::Ran;

/// Whether criu can do anything on this machine; said aloud if not.
pub fn criu_works() -> bool {
    if testkit::find_program("criu").is_none() {
        testkit::skip("criu is not installed");
        return false;
    }
    // It leaves a log where it was called.
    let dir = tempfile::tempdir().unwrap();
    let check = Command::new("criu").arg("check").current_dir(dir.path()).output();
    let checked = check.is_ok_and(|output| output.status.success());
    // It passes its own check on some kernels it cannot restore on, and on version 1 groups.
    if !checked || !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        testkit::skip("criu does not work here: criu check fails, or control groups are not version 2");
        return false;
    }
    true
}

/// Counts into a file it holds open, on a bind mount, and keeps another on a tmpfs. `$i` is its memory.
const COUNT: &str = "exec 5>>/data/counted; echo kept >/keep/file; i=0; \
                     while :; do i=$((i+1)); echo $$ $i >&5; sleep 0.1; done";

impl Bench {
    pub fn make_counter(&self) -> std::path::PathBuf {
        let data = self.path().join("data");
        std::fs::create_dir(&data).unwrap();
        self.configure(&["sh", "-c", COUNT], |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rw"]}),
            );
            mounts.push(json!({"destination": "/keep", "type": "tmpfs", "source": "tmpfs"}));
            config["linux"]["maskedPaths"] =
                json!(["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"]);
        });
        data.join("counted")
    }

    fn restore(&self, id: &str, images: &str) {
        let bundle = self.bundle().display().to_string();
        let pid_file = self.path().join("pid").display().to_string();
        self.make(&[
            "restore",
            "--detach",
            "--bundle",
            &bundle,
            "--image-path",
            images,
            "--pid-file",
            &pid_file,
            id,
        ]);
    }
}

/// The last whole line: process id inside, and the number it has come to.
pub fn counted(file: &Path) -> (i32, u64) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut words = whole.lines().last().unwrap_or_default().split(' ');
    let mut next = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
    (next() as i32, next())
}

#[test]
fn a_checkpointed_container_goes_on_where_it_was() {
    let Some(bench) = Bench::new() else { return };
    if !criu_works() {
        return;
    }
    let id = bench.id("counts");
    let file = bench.make_counter();
    bench.start(&id);
    wait_until(|| counted(&file).1 > 3, "it does not count");
    let images = bench.path().join("images").display().to_string();

    bench.ran(&["checkpoint", "--image-path", &images, "--leave-running", &id]).expect(0);
    assert_eq!(bench.status(&id), "running");
    let (_, then) = counted(&file);
    wait_until(|| counted(&file).1 > then, "it does not count after a checkpoint that leaves it running");
    let taken = bench.ran(&[
        "restore",
        "--detach",
        "--bundle",
        &bench.bundle().display().to_string(),
        "--image-path",
        &images,
        &id,
    ]);
    assert_says(&taken.expect(1), "container with given ID already exists");

    bench.ran(&["checkpoint", "--image-path", &images, &id]).expect(0);
    bench.assert_gone(&id);
    let (inside, then) = counted(&file);
    assert!(inside == 1 && then > 3);

    bench.restore(&id, &images);
    wait_until(|| counted(&file).1 > then + 3, "it does not count after it was restored");
    // Had it begun anew, or lost the file it held open, there would be another 1.
    let text = std::fs::read_to_string(&file).unwrap();
    let numbers: Vec<String> = text.lines().map(str::to_owned).collect();
    for (index, line) in numbers.iter().enumerate() {
        assert_eq!(*line, format!("1 {}", index + 1));
    }
    let state = bench.state(&id);
    assert_eq!(state["status"], "running");
    let pid = std::fs::read_to_string(bench.path().join("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    assert_eq!(bench.ran(&["exec", &id, "cat", "/keep/file"]).expect(0).stdout, "kept\n");
    assert_eq!(bench.ran(&["exec", &id, "cat", "/proc/kcore"]).expect(0).stdout, "");
    // What is executed in it can be checkpointed with it: it is in every namespace criu made.
    let namespaces = |pid: &str| {
        let script =
            format!("for kind in ipc mnt net pid time uts; do busybox readlink /proc/{pid}/ns/$kind; done");
        bench.ran(&["exec", &id, "sh", "-c", &script]).expect(0).stdout
    };
    assert_eq!(namespaces("1"), namespaces("self"));
    bench.ran(&["exec", &id, "sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &"]).expect(0);
    bench.ran(&["checkpoint", "--image-path", &images, &id]).expect(0);
    let (_, then) = counted(&file);
    bench.restore(&id, &images);
    wait_until(|| counted(&file).1 > then, "it does not count after it was restored again");
    let processes = bench.ran(&["exec", &id, "sh", "-c", "cat /proc/[0-9]*/cmdline"]).expect(0).stdout;
    assert!(processes.contains("sleep\u{0}1000\u{0}"), "{processes:?}");
    bench.ran(&["pause", &id]).expect(0);
    assert_eq!(bench.status(&id), "paused");
    bench.ran(&["resume", &id]).expect(0);
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.assert_gone(&id);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&bench.path().display().to_string()), "{mounts}");
}

fn has_feature(name: &str) -> bool {
    let there = Command::new("criu").args(["check", "--feature", name]).output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        testkit::skip(&format!("criu and this kernel have no {name}"));
    }
    there
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Ended when dropped.
struct Daemon(std::process::Child);

impl Daemon {
    fn start(command: &mut Command, log: &Path) -> Daemon {
        let file = || std::fs::File::create(log).unwrap();
        Daemon(command.stdin(Stdio::null()).stdout(file()).stderr(file()).spawn().unwrap())
    }

    #[track_caller]
    fn expect_success(&mut self, log: &Path) {
        let mut status = None;
        wait_until(
            || {
                status = self.0.try_wait().unwrap();
                status.is_some()
            },
            &format!("it does not end: {}", std::fs::read_to_string(log).unwrap()),
        );
        assert!(status.unwrap().success(), "{}", std::fs::read_to_string(log).unwrap());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The second container runs while most of its memory is still in the first, which is gone when the last page has been asked for.
#[test]
fn memory_follows_when_it_is_asked_for() {
    let Some(bench) = Bench::new() else { return };
    if !criu_works() || !has_feature("uffd-noncoop") {
        return;
    }
    let (first, second) = (bench.id("first"), bench.id("second"));
    let file = bench.make_counter();
    bench.start(&first);
    wait_until(|| counted(&file).1 > 3, "it does not count");
    let images = bench.path().join("images");
    let path = images.display().to_string();
    let (port, ready) = (free_port(), bench.path().join("ready"));
    let script = format!("exec \"$0\" \"$@\" 9>{}", ready.display());
    let address = format!("127.0.0.1:{port}");
    let root = bench.root().display().to_string();
    let log = bench.path().join("checkpoint.log");
    let mut checkpoint = Daemon::start(
        Command::new("sh")
            .args(["-c", &script, PROGRAM, "--root", &root, "checkpoint", "--lazy-pages"])
            .args(["--page-server", &address, "--status-fd", "9", "--image-path", &path, &first]),
        &log,
    );
    wait_until(
        || std::fs::read(&ready).is_ok_and(|told| told == [0]) || checkpoint.0.try_wait().unwrap().is_some(),
        "nobody is told that pages can be asked for",
    );
    assert!(checkpoint.0.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(&log).unwrap());
    let (_, then) = counted(&file);
    let daemon_log = bench.path().join("daemon.log");
    let mut daemon = Daemon::start(
        Command::new("criu")
            .args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "-D", &path])
            .current_dir(bench.path()),
        &daemon_log,
    );
    wait_until(|| images.join("lazy-pages.socket").exists(), "criu lazy-pages does not come up");
    let bundle = bench.bundle().display().to_string();
    bench.make(&[
        "restore",
        "--detach",
        "--lazy-pages",
        "--work-path",
        &path,
        "--image-path",
        &path,
        "--bundle",
        &bundle,
        &second,
    ]);
    wait_until(|| counted(&file).1 > then + 3, "it does not count after it was restored");
    checkpoint.expect_success(&log);
    daemon.expect_success(&daemon_log);
    bench.assert_gone(&first);
    assert_eq!(bench.status(&second), "running");
    bench.ran(&["delete", "--force", &second]).expect(0);
    bench.assert_gone(&second);
}

#[test]
fn memory_is_saved_in_passes_and_by_another() {
    let Some(bench) = Bench::new() else { return };
    if !criu_works() || !has_feature("mem_dirty_track") {
        return;
    }
    let id = bench.id("passes");
    let file = bench.make_counter();
    bench.start(&id);
    wait_until(|| counted(&file).1 > 3, "it does not count");
    let path = |name: &str| bench.path().join(name).display().to_string();
    bench.ran(&["checkpoint", "--pre-dump", "--image-path", &path("before"), &id]).expect(0);
    assert_eq!(bench.status(&id), "running");
    let (_, then) = counted(&file);
    wait_until(|| counted(&file).1 > then, "it does not count after a first pass");
    // What has changed since goes to a server, which puts it where it will be looked for.
    let port = free_port();
    std::fs::create_dir(path("images")).unwrap();
    let log = bench.path().join("server.log");
    let ready = bench.path().join("ready");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" 9>{}", ready.display()), "criu", "page-server"]);
    command.args(["--images-dir", &path("images"), "--prev-images-dir", "../before", "--status-fd", "9"]);
    command.args(["--address", "127.0.0.1", "--port", &port]);
    let mut server = Daemon::start(&mut command, &log);
    wait_until(|| std::fs::read(&ready).is_ok_and(|told| told == [0]), "the page server does not come up");
    let to = format!("127.0.0.1:{port}");
    let (images, before) = (path("images"), "../before");
    bench
        .ran(&["checkpoint", "--parent-path", before, "--page-server", &to, "--image-path", &images, &id])
        .expect(0);
    server.expect_success(&log);
    bench.assert_gone(&id);
    let (_, then) = counted(&file);
    bench.restore(&id, &images);
    wait_until(|| counted(&file).1 > then + 3, "it does not count after it was restored");
    bench.ran(&["delete", "--force", &id]).expect(0);
}

#[test]
fn a_failed_checkpoint_or_restore_leaves_everything_as_it_was() {
    let Some(bench) = Bench::new() else { return };
    if !criu_works() {
        return;
    }
    let id = bench.id("fails");
    let file = bench.make_counter();
    bench.start(&id);
    wait_until(|| counted(&file).1 > 1, "it does not count");
    let images = bench.path().join("images");
    std::fs::create_dir(&images).unwrap();
    // An image that cannot be written.
    std::fs::create_dir(images.join("inventory.img")).unwrap();
    let path = images.display().to_string();
    let failed = bench.ran(&["checkpoint", "--image-path", &path, &id]).expect(1);
    assert_says(&failed, "criu failed");
    assert_says(&failed, "Error");
    assert_eq!(bench.status(&id), "running");
    let (_, then) = counted(&file);
    wait_until(|| counted(&file).1 > then, "it does not count after a checkpoint that failed");
    bench.ran(&["delete", "--force", &id]).expect(0);

    bench.configure(&["sleep", "1000"], |config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{id}/above/here"));
    });
    let bundle = bench.bundle().display().to_string();
    let failed =
        bench.ran(&["restore", "--detach", "--bundle", &bundle, "--image-path", &path, &id]).expect(1);
    assert_says(&failed, "restore failed");
    bench.assert_gone(&id);
    assert!(!Path::new("/sys/fs/cgroup").join(&id).exists(), "a group above is left");
}

#[test]
fn what_cannot_be_checkpointed_is_told() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("told");
    bench.create(&id);
    let images = bench.path().join("images").display().to_string();
    let ran = bench.ran(&["checkpoint", "--image-path", &images, &id]).expect(1);
    assert_says(&ran, "Container cannot be checkpointed in created state");
    bench.ran(&["start", &id]).expect(0);
    for (options, words) in [
        (&["--manage-cgroups-mode", "loose"][..], "invalid manage-cgroups-mode"),
        (&["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT"),
        (&["--empty-ns", "mount"], "not supported"),
        (&["--status-fd", "77"], "invalid --status-fd argument 77"),
    ] {
        let mut arguments = vec!["checkpoint", "--image-path", &images];
        arguments.extend(options);
        arguments.push(&id);
        assert_says(&bench.ran(&arguments).expect(1), words);
    }
    assert!(!Path::new(&images).exists());
    bench.configure(&["true"], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "mount");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    });
    if testkit::find_program("criu").is_some() {
        let empty = bench.path().join("empty").display().to_string();
        std::fs::create_dir(&empty).unwrap();
        let bundle = bench.bundle().display().to_string();
        let other = bench.id("other");
        let ran = bench.ran(&["restore", "--bundle", &bundle, "--image-path", &empty, &other]).expect(1);
        assert_says(&ran, "a container without a mount namespace cannot be");
        bench.assert_gone(&other);
    }
    let without = Ran::of(
        bench.command(&["checkpoint", "--image-path", &images, &id]).env("PATH", "tests:/nonexistent"),
    );
    assert_says(&without.expect(1), "criu is not installed");
    assert_eq!(bench.status(&id), "running");
}

#[test]
fn hostile_images_are_refused_before_anything_is_made() {
    let Some(bench) = Bench::new() else { return };
    if testkit::find_program("criu").is_none() {
        testkit::skip("criu is not installed");
        return;
    }
    let id = bench.id("hostile");
    let images = bench.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let bundle = bench.bundle().display().to_string();
    let path = images.display().to_string();
    for text in ["{", "[1]", r#"["","","","pipe:[1]"]"#] {
        std::fs::write(images.join("descriptors.json"), text).unwrap();
        let ran =
            bench.ran(&["restore", "--detach", "--bundle", &bundle, "--image-path", &path, &id]).expect(1);
        assert_says(&ran, "descriptors.json");
        bench.assert_gone(&id);
    }
    let missing = bench.path().join("nowhere").display().to_string();
    let ran =
        bench.ran(&["restore", "--detach", "--bundle", &bundle, "--image-path", &missing, &id]).expect(1);
    assert_says(&ran, "open the image directory");
    bench.assert_gone(&id);
}
