//! Hooks: when they run, and what they are told.

use crate::{Bench, assert_says};
use serde_json::{Value, json};
use std::path::Path;

fn hook(dir: &Path, name: &str) -> Value {
    let script = format!("cat >>{dir}/{name}; pwd >{dir}/{name}.pwd", dir = dir.display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
}

#[test]
fn hooks_are_told_the_state() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("hooks");
    let dir = bench.path().join("told");
    std::fs::create_dir(&dir).unwrap();
    bench.configure(&["sleep", "1000"], |config| {
        config["annotations"] = json!({"x": "y"});
        for name in ["prestart", "createRuntime", "poststart", "poststop"] {
            config["hooks"][name] = hook(&dir, name);
        }
    });
    let told = |name: &str| -> Option<Value> {
        Some(serde_json::from_slice(&std::fs::read(dir.join(name)).ok()?).unwrap())
    };
    bench.create(&id);
    let pid = bench.state(&id)["pid"].clone();
    let bundle = bench.bundle().canonicalize().unwrap().display().to_string();
    for name in ["prestart", "createRuntime"] {
        let state = told(name).unwrap();
        assert_eq!((state["id"].as_str(), state["status"].as_str()), (Some(id.as_str()), Some("creating")));
        assert_eq!((&state["pid"], state["bundle"].as_str()), (&pid, Some(bundle.as_str())));
        assert_eq!(state["annotations"], json!({"x": "y"}));
        assert_eq!(std::fs::read_to_string(dir.join(format!("{name}.pwd"))).unwrap().trim(), bundle);
    }
    assert_eq!(told("poststart"), None);
    bench.ran(&["start", &id]).expect(0);
    let state = told("poststart").unwrap();
    assert_eq!((state["status"].as_str(), &state["pid"]), (Some("running"), &pid));
    assert_eq!(told("poststop"), None);
    bench.ran(&["delete", "--force", &id]).expect(0);
    let state = told("poststop").unwrap();
    assert_eq!((state["status"].as_str(), state.get("pid")), (Some("stopped"), None));
    bench.assert_gone(&id);
}

#[test]
fn a_hook_may_ask_for_the_container() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("asks");
    let out = bench.path().join("state");
    let script =
        format!("{} --root {} state {id} >{}", crate::PROGRAM, bench.root().display(), out.display());
    bench.configure(&["true"], |config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    bench.create(&id);
    let state: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    assert_eq!(state["status"], "creating");
}

#[test]
fn a_hook_in_the_container_is_run_at_its_root() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("root");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "pwd >./made; test -x ./bin/sh"]}]);
    bench.configure(&["cat", "/made"], |config| {
        config["root"]["readonly"] = json!(false);
        config["hooks"] = json!({"createContainer": hook});
    });
    let root = bench.bundle().canonicalize().unwrap().join("rootfs");
    let made = root.join("made");
    let ran = bench.run(&id, &[]).expect(0);
    assert_eq!(ran.stdout.trim(), root.display().to_string());
    std::fs::remove_file(made).unwrap();
}

#[test]
fn a_hook_that_fails_ends_the_container() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("fails");
    let failing =
        json!([{"path": "/bin/true"}, {"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 4"]}]);
    for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        bench.configure(&["true"], |config| config["hooks"] = json!({ name: failing }));
        let ran = bench.run(&id, &[]).expect(1);
        assert_says(&ran, &format!("error running {name} hook #1: /bin/"));
        bench.assert_gone(&id);
    }
    bench.configure(&["sleep", "1000"], |config| config["hooks"] = json!({"poststart": failing}));
    bench.create(&id);
    assert_says(&bench.ran(&["start", &id]).expect(1), "stderr: no");
    bench.wait_for(&id, "stopped");
    // The end of a container is not in a hook's hands.
    bench.ran(&["delete", &id]).expect(0);
    bench.configure(&["true"], |config| config["hooks"] = json!({"poststop": failing}));
    let ran = bench.run(&id, &[]).expect(0);
    assert_says(&ran, "level=warning");
    assert_says(&ran, "error running poststop hook #1");
    bench.assert_gone(&id);
}
