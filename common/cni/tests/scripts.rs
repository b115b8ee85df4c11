//! Chains of plugins that are small scripts: the order of things, what each is given, and what the hostile ones get away
//! with, which is nothing.

use cni::{Attachment, Configuration, Runtime, Version};
use fault::Kind;
use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A folder of plugins, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = std::env::temp_dir().join(format!("cni-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Folder(dir)
    }

    /// `$DIR` is this folder; each plugin writes down that it was called and with what.
    fn plugin(&self, name: &str, script: &str) -> &Folder {
        let path = self.0.join(name);
        let dir = self.0.display();
        let script = format!(
            "#!/bin/sh\nDIR={dir}\ncat >$DIR/{name}.$CNI_COMMAND.json\nenv >$DIR/{name}.$CNI_COMMAND.env\n\
             echo {name} $CNI_COMMAND >>$DIR/log\n{script}\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// One that answers with an address, and hands on what it was given otherwise.
    fn good(&self, name: &str) -> &Folder {
        self.plugin(
            name,
            r#"case $CNI_COMMAND in
            ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],"from":"'$0'","ips":[{"address":"10.0.0.2/24","interface":0}]}' ;;
            VERSION) echo '{"supportedVersions":["0.4.0","1.0.0","1.1.0","7.0.0"]}' ;;
            esac"#,
        )
    }

    fn runtime(&self) -> Runtime {
        Runtime { time_limit: Duration::from_secs(20), ..Runtime::in_path(&self.0) }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.join("log")).unwrap_or_default().replace('\n', ",")
    }

    fn given(&self, plugin: &str, command: &str) -> Value {
        let path = self.0.join(format!("{plugin}.{command}.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn chain(plugins: &[&str]) -> Configuration {
    let plugins: Vec<Value> = plugins
        .iter()
        .map(|name| json!({"type": name, "own": {"x": 1}, "capabilities": {"portMappings": true}}))
        .collect();
    Configuration::from_value(json!({"cniVersion": "1.0.0", "name": "net", "plugins": plugins})).unwrap()
}

fn attachment() -> Attachment<'static> {
    let mut capabilities = Map::new();
    capabilities.insert("portMappings".into(), json!([{"hostPort": 1, "containerPort": 2}]));
    capabilities.insert("mac".into(), "02:00:00:00:00:01".into());
    Attachment { container: "c1", namespace: "/n", interface: "eth0", arguments: &[], capabilities }
}

#[test]
fn results_go_down_the_chain_and_back_up() {
    let folder = Folder::new("chain");
    let runtime = folder.good("a").good("b").runtime();
    let network = chain(&["a", "b"]);
    let arguments = [("IgnoreUnknown".to_owned(), "1".to_owned()), ("K".to_owned(), "v".to_owned())];
    let attachment = Attachment { arguments: &arguments, ..attachment() };
    let result = runtime.add(&network, &attachment).unwrap();
    assert!(result["from"].as_str().unwrap().ends_with("/b"), "members nobody knows stay: {result}");
    assert_eq!(folder.log(), "a ADD,b ADD,");
    let first = folder.given("a", "ADD");
    assert_eq!((first.get("prevResult"), &first["own"]["x"]), (None, &json!(1)));
    assert_eq!(first["runtimeConfig"], json!({"portMappings": [{"hostPort": 1, "containerPort": 2}]}));
    assert_eq!(first.get("capabilities"), None);
    let second = folder.given("b", "ADD");
    assert!(second["prevResult"]["from"].as_str().unwrap().ends_with("/a"));
    assert_eq!((&second["name"], &second["cniVersion"]), (&json!("net"), &json!("1.0.0")));
    let environment = fs::read_to_string(folder.0.join("a.ADD.env")).unwrap();
    for line in [
        "CNI_CONTAINERID=c1".to_owned(),
        "CNI_NETNS=/n".to_owned(),
        "CNI_IFNAME=eth0".to_owned(),
        "CNI_ARGS=IgnoreUnknown=1;K=v".to_owned(),
        format!("CNI_PATH={}", folder.0.display()),
    ] {
        assert!(environment.lines().any(|have| have == line), "{line} in {environment}");
    }

    assert!(runtime.check(&network, &attachment, &result).unwrap());
    assert_eq!(folder.given("a", "CHECK")["prevResult"], result);
    // Before 1.1.0 there is neither of these.
    assert!(!runtime.collect(&network, &[]).unwrap());
    assert!(!runtime.status(&network).unwrap());
    runtime.delete(&network, &Attachment { namespace: "", ..attachment.clone() }, Some(&result)).unwrap();
    runtime.delete(&network, &attachment, None).unwrap();
    assert_eq!(folder.log(), "a ADD,b ADD,a CHECK,b CHECK,b DEL,a DEL,b DEL,a DEL,");
}

#[test]
fn the_newest_common_version_is_spoken_and_del_speaks_that_of_add() {
    let folder = Folder::new("versions");
    let old = r#"[ $CNI_COMMAND = VERSION ] && echo '{"supportedVersions":["0.3.1","0.4.0"]}' || echo '{}'"#;
    let runtime = folder.good("a").plugin("old", old).runtime();
    let network = |plugins: &[&str]| {
        let plugins: Vec<Value> = plugins.iter().map(|name| json!({"type": name})).collect();
        let versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        Configuration::from_value(json!({"cniVersions": versions, "name": "n", "plugins": plugins})).unwrap()
    };
    assert_eq!(runtime.versions("a").unwrap(), [Version::V0_4_0, Version::V1_0_0, Version::V1_1_0]);
    runtime.add(&network(&["a", "old"]), &attachment()).unwrap();
    assert_eq!(folder.given("old", "ADD")["cniVersion"], "0.4.0");
    let newest = network(&["a"]);
    runtime.add(&newest, &attachment()).unwrap();
    assert_eq!(folder.given("a", "ADD")["cniVersion"], "1.1.0");
    runtime.delete(&newest, &attachment(), Some(&json!({"cniVersion": "1.0.0"}))).unwrap();
    assert_eq!(folder.given("a", "DEL")["cniVersion"], "1.0.0");
    assert!(runtime.status(&newest).unwrap());
    assert!(runtime.collect(&newest, &[("c1".into(), "eth0".into())]).unwrap());
    let given = folder.given("a", "GC");
    assert_eq!(given["cni.dev/valid-attachments"], json!([{"containerID": "c1", "ifname": "eth0"}]));
    assert_eq!(given.get("runtimeConfig"), None);
    let none =
        Configuration::from_value(json!({"cniVersions": ["1.0.0", "1.1.0"], "name": "n", "type": "old"}));
    let fault = runtime.add(&none.unwrap(), &attachment()).unwrap_err();
    assert!(fault.to_string().contains("no version of CNI in common"), "{fault}");
}

#[test]
fn a_failure_in_the_middle_undoes_what_was_done() {
    let folder = Folder::new("undo");
    let bad = r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{"cniVersion":"1.0.0","code":11,"msg":"busy","details":"come back"}'; exit 1"#;
    let runtime = folder.good("a").plugin("bad", bad).good("c").runtime();
    let fault = runtime.add(&chain(&["a", "bad", "c"]), &attachment()).unwrap_err();
    assert_eq!(fault.kind(), Kind::Retryable);
    assert_eq!(fault.to_string(), "CNI plugin bad: ADD: busy: come back (error 11)");
    assert_eq!(fault.subject(), Some("net"));
    assert_eq!(folder.log(), "a ADD,bad ADD,c DEL,bad DEL,a DEL,");
    assert!(folder.given("a", "DEL")["prevResult"]["from"].as_str().unwrap().ends_with("/a"));

    // One that knows of no such container wants no DEL.
    let unknown = r#"echo '{"code":3,"msg":"who?"}'; exit 1"#;
    folder.plugin("unknown", unknown);
    fs::remove_file(folder.0.join("log")).unwrap();
    assert_eq!(runtime.add(&chain(&["unknown"]), &attachment()).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(folder.log(), "unknown ADD,");
    runtime.delete(&chain(&["a", "unknown"]), &attachment(), None).unwrap();
    assert_eq!(folder.log(), "unknown ADD,unknown DEL,a DEL,");
}

#[test]
fn nothing_is_run_unless_all_of_it_is_there() {
    let folder = Folder::new("missing");
    let runtime = folder.good("a").runtime();
    fs::write(folder.0.join("data"), "").unwrap();
    fs::create_dir(folder.0.join("dir")).unwrap();
    for missing in ["nowhere", "data", "dir"] {
        let fault = runtime.add(&chain(&["a", missing]), &attachment()).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound, "{missing}: {fault}");
        assert!(fault.hint_text().unwrap().contains("STAVES_CNI_PATH"));
        assert!(!runtime.has(missing));
    }
    assert!(runtime.has("a") && !runtime.has("../a") && !runtime.has(""));
    for (container, interface) in [("../c", "eth0"), ("", "eth0"), ("c", "a/b"), ("c", "sixteen-letters-")] {
        let fault = runtime.add(&chain(&["a"]), &Attachment { container, interface, ..attachment() });
        assert_eq!(fault.unwrap_err().kind(), Kind::Input);
    }
    let arguments = [("K".to_owned(), "v;CNI_NETNS=/".to_owned())];
    let fault = runtime.add(&chain(&["a"]), &Attachment { arguments: &arguments, ..attachment() });
    assert_eq!(fault.unwrap_err().kind(), Kind::Input);
    assert_eq!(folder.log(), "");
}

#[test]
fn hostile_plugins_get_nowhere() {
    let folder = Folder::new("hostile");
    for (name, script, why) in [
        ("silent", "exit 0", "its answer is no JSON"),
        ("garbage", "printf '\\033[2J{'", "its answer is no JSON"),
        ("list", "echo '[]'", "no JSON object"),
        ("address", r#"echo '{"ips":[{"address":"10.0.0.0.0/8"}]}'"#, "no address with a prefix"),
        ("index", r#"echo '{"ips":[{"address":"10.0.0.1/8","interface":4}]}'"#, "does not list"),
        ("version", r#"echo '{"cniVersion":"9.9.9"}'"#, "not known"),
        ("mute", "exit 7", "exit status: 7"),
        ("words", "echo oops >&2; printf '\\033[31mred' >&2; exit 1", "oops"),
        ("flood", "exec cat /dev/zero", "more than"),
        ("deep", "head -c 200000 /dev/zero | tr '\\0' '['", "its answer is no JSON"),
        ("killed", "kill -9 $$", "signal: 9"),
    ] {
        folder.plugin(name, script);
        let fault = folder.runtime().add(&chain(&[name]), &attachment()).unwrap_err();
        assert!(fault.to_string().contains(why), "{name}: {fault}");
        assert!(!fault.to_string().contains('\u{1b}'), "{name}: {fault}");
        assert!(fault.to_string().len() < 3000, "{name}");
    }
}

#[test]
fn one_that_takes_too_long_is_killed_with_all_it_started() {
    let folder = Folder::new("slow");
    folder.plugin("slow", "[ $CNI_COMMAND = ADD ] || exit 0; sleep 300 & echo $! >$DIR/child; wait");
    let runtime = Runtime { time_limit: Duration::from_millis(500), ..folder.runtime() };
    let begin = Instant::now();
    let fault = runtime.add(&chain(&["slow"]), &attachment()).unwrap_err();
    assert_eq!(fault.kind(), Kind::Retryable);
    assert!(fault.to_string().contains("0.5 seconds"), "{fault}");
    assert!(begin.elapsed() < Duration::from_secs(10));
    let child = fs::read_to_string(folder.0.join("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    while !is_gone() && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_gone(), "what it started lives on");

    // One that ends but leaves something behind that holds its output is not waited for.
    folder.plugin("daemon", "sleep 30 & echo '{}'");
    let begin = Instant::now();
    folder.runtime().add(&chain(&["daemon"]), &attachment()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
