//! Containers of an ordinary user: one of its own program, bundle and states, and without control groups.

use crate::{Bench, PROGRAM, assert_says};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use testkit::Ran;

const USER: &str = "1000";

/// A bench whose files are the user's.
struct User(Bench);

impl User {
    fn new() -> Option<User> {
        let bench = Bench::new()?;
        for program in ["setpriv", "chown"] {
            if testkit::find_program(program).is_none() {
                testkit::skip(&format!("there is no {program}(1)"));
                return None;
            }
        }
        let user = User(bench);
        if !as_user(&["unshare", "--user", "true"]).status().is_ok_and(|status| status.success()) {
            testkit::skip("an ordinary user may not make user namespaces here");
            return None;
        }
        // Its own file is what a container could write to, were it not protected.
        std::fs::copy(PROGRAM, user.0.path().join("oci-runtime")).unwrap();
        std::fs::remove_file(user.0.bundle().join("config.json")).unwrap();
        user.own();
        user.ran(&["spec", "--rootless", "--bundle", &user.bundle()]).expect(0);
        user.configure(&["sleep", "1000"], |_| {});
        Some(user)
    }

    fn bundle(&self) -> String {
        self.0.bundle().display().to_string()
    }

    fn own(&self) {
        let status = Command::new("chown").args(["-R", "1000:1000"]).arg(self.0.path()).status();
        assert!(status.unwrap().success());
    }

    fn configure(&self, command: &[&str], edit: impl FnOnce(&mut Value)) {
        self.0.configure(command, edit);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = self.0.path().join("oci-runtime").display().to_string();
        let root = self.0.root().display().to_string();
        as_user(&[&[program.as_str(), "--root", &root], arguments].concat())
    }

    fn ran(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    fn run(&self, id: &str) -> Ran {
        self.ran(&["run", "--bundle", &self.bundle(), id])
    }

    fn make(&self, arguments: &[&str]) {
        let status = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }
}

fn as_user(command: &[&str]) -> Command {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).args(command);
    setpriv.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null()).current_dir("/");
    setpriv
}

#[test]
fn every_verb_works() {
    let Some(user) = User::new() else { return };
    let id = &user.0.id("user");
    let status = || {
        let state: Value = serde_json::from_str(&user.ran(&["state", id]).expect(0).stdout).unwrap();
        state["status"].clone()
    };
    user.make(&["create", "--bundle", &user.bundle(), id]);
    assert_eq!(status(), "created");
    assert_says(&user.ran(&["exec", id, "true"]).expect(255), "the container waits for start");
    user.ran(&["start", id]).expect(0);
    assert_eq!(status(), "running");
    let inside = user.ran(&["exec", id, "sh", "-c", "id -u; cat /proc/self/setgroups /proc/self/uid_map"]);
    let words: Vec<String> = inside.expect(0).stdout.split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["0", "deny", "0", USER, "1"]);
    user.ran(&["exec", id, "sh", "-c", "exit 7"]).expect(7);
    let list = user.ran(&["list", "--format", "json"]).expect(0).json();
    assert_eq!(list[0]["id"], json!(id));
    for verb in ["pause", "update"] {
        assert_says(&user.ran(&[verb, id]).expect(1), "has no control groups");
    }
    assert_says(&user.ran(&["delete", id]).expect(1), "that is not stopped: running");
    user.ran(&["kill", id, "KILL"]).expect(0);
    crate::wait_until(|| status() == "stopped", "it does not end");
    user.ran(&["delete", id]).expect(0);
    assert!(!user.0.root().join(id).exists());
    user.make(&["run", "--detach", "--bundle", &user.bundle(), id]);
    user.ran(&["delete", "--force", id]).expect(0);
    user.configure(&["sh", "-c", "echo said; exit 3"], |_| {});
    assert_eq!(user.run(id).expect(3).stdout, "said\n");
}

#[test]
fn what_takes_control_groups_is_told() {
    let Some(user) = User::new() else { return };
    let id = &user.0.id("limited");
    let closed = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
    user.configure(&["true"], |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 100_000_000}, "pids": {"limit": 10}});
    });
    let ran = user.run(id);
    if ran.status == 0 {
        testkit::skip("an ordinary user may make control groups here");
        return;
    }
    assert_says(&ran, closed);
    assert_says(&ran, "cannot set linux.resources.memory, linux.resources.pids");
    user.configure(&["true"], |config| {
        config["linux"]["resources"] = json!(null);
        config["linux"]["cgroupsPath"] = json!("/of-mine");
    });
    assert_says(&user.run(id).expect(1), closed);
    // Devices are closed to it anyway.
    user.configure(&["true"], |config| {
        config["linux"]["cgroupsPath"] = json!(null);
        config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    });
    user.run(id).expect(0);
    // Asked not to, it fails even so.
    let ran = user.ran(&["--rootless=false", "run", "--bundle", &user.bundle(), id]).expect(1);
    assert_says(&ran, "permission denied");
}

#[test]
fn what_an_ordinary_user_cannot_have_is_told() {
    let Some(user) = User::new() else { return };
    let id = &user.0.id("refused");
    let before = std::fs::read(user.0.bundle().join("config.json")).unwrap();
    let refused = |edit: fn(&mut Value), words: &str| {
        std::fs::write(user.0.bundle().join("config.json"), &before).unwrap();
        user.configure(&["true"], edit);
        assert_says(&user.run(id).expect(1), words);
        assert!(!user.0.root().join(id).exists());
    };
    refused(
        |config| {
            let linux = config["linux"].as_object_mut().unwrap();
            linux.retain(|name, _| !name.ends_with("Mappings"));
            linux["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "user");
        },
        "rootless container requires user namespaces",
    );
    refused(
        |config| config["process"]["user"]["additionalGids"] = json!([5]),
        "cannot set any additional groups in a rootless container",
    );
    refused(
        |config| config["mounts"][2]["options"] = json!(["newinstance", "gid=5"]),
        "cannot specify gid=5 mount option",
    );
    refused(
        |config| {
            let sys = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]});
            config["mounts"].as_array_mut().unwrap().push(sys);
        },
        "mount sysfs on /sys",
    );
    refused(|config| config["linux"]["uidMappings"][0]["hostID"] = json!(0), "newuidmap");
}

#[test]
fn more_ids_come_from_newuidmap() {
    let Some(user) = User::new() else { return };
    if testkit::find_program("newuidmap").is_none() {
        testkit::skip("there is no newuidmap(1)");
        return;
    }
    let id = &user.0.id("mapped");
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 700_000, "size": 1000}]);
    user.configure(&["sh", "-c", "id -u; id -G; cat /proc/self/setgroups"], |config| {
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping.clone();
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]});
    });
    // Files of their own in place of /etc/subuid and /etc/subgid, in a mount namespace.
    let sub = user.0.path().join("sub");
    std::fs::write(&sub, "1000:700000:1000\n").unwrap();
    for name in ["/etc/subuid", "/etc/subgid"] {
        if !std::path::Path::new(name).exists() {
            testkit::skip("there is no /etc/subuid to put another over");
            return;
        }
    }
    let script = format!(
        "mount --bind {sub} /etc/subuid && mount --bind {sub} /etc/subgid && exec setpriv --reuid {USER} --regid {USER} \
         --clear-groups {dir}/oci-runtime --root {dir}/root run --bundle {dir}/bundle {id}",
        sub = sub.display(),
        dir = user.0.path().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
    assert_eq!(Ran::of(&mut command).expect(0).stdout, "5\n6 7 8\nallow\n");
}

#[test]
fn the_users_own_program_is_out_of_reach() {
    let Some(user) = User::new() else { return };
    let id = &user.0.id("own");
    let program = user.0.path().join("oci-runtime");
    let before = std::fs::read(&program).unwrap();
    // Executed by its own name it is what entered: a copy that nobody can write to.
    user.configure(&["/proc/self/exe", "--version"], |_| {});
    let ran = user.run(id);
    assert!(ran.stdout.starts_with("exe version") || ran.status != 0, "{}", ran.stdout);
    user.configure(&["sleep", "1000"], |_| {});
    user.make(&["run", "--detach", "--bundle", &user.bundle(), id]);
    let script =
        "for n in 1 2 3 4 5; do for exe in /proc/[0-9]*/exe; do echo x >>$exe; done; done 2>/dev/null; true";
    let attacker = user.command(&["exec", id, "sh", "-c", script]).stderr(Stdio::null()).spawn();
    for _ in 0..10 {
        user.ran(&["exec", id, "true"]).expect(0);
    }
    attacker.unwrap().wait().unwrap();
    assert_eq!(std::fs::read(&program).unwrap(), before, "the program was written to");
}
