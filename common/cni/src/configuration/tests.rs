use super::*;
use proptest::prelude::*;
use serde_json::json;

fn parse(document: &Value) -> Result<Configuration> {
    Configuration::parse(document.to_string().as_bytes())
}

#[test]
fn a_list_and_a_single_plugin_are_both_networks() {
    let list = parse(&json!({"cniVersion":"1.0.0","cniVersions":["0.3.1","9.9.9","1.1.0"],"name":"db",
        "disableCheck":"true","future":1,
        "plugins":[{"type":"bridge","ipam":{"type":"host-local"}},{"type":"portmap"}]}))
    .unwrap();
    assert_eq!(list.versions, [Version::V0_3_1, Version::V1_0_0, Version::V1_1_0]);
    assert!(list.disable_check && !list.disable_gc);
    assert_eq!(list.plugins().len(), 2);
    let kept = Configuration::from_value(list.to_value()).unwrap();
    assert_eq!(kept.plugins(), list.plugins());
    assert_eq!(kept.versions, list.versions);
    assert!(kept.disable_check);
    assert_eq!(kept.to_value()["future"], 1);

    let one = parse(&json!({"cniVersion":"0.4.0","name":"lo","type":"loopback"})).unwrap();
    assert_eq!(one.plugins()[0].name, "loopback");
    assert_eq!(Configuration::from_value(one.to_value()).unwrap().plugins(), one.plugins());
}

#[test]
fn the_subnets_of_what_gives_addresses_say_the_prefixes() {
    let of = |ipam: Value| parse(&json!({"name":"a","type":"b","ipam":ipam})).unwrap();
    let prefix = |ipam: Value, address: &str| of(ipam).prefix_of(address.parse().unwrap());
    let ranges = json!({"type":"host-local","ranges":[[{"subnet":"10.1.0.0/20"}],[{"subnet":"fd00::/64"}]]});
    assert_eq!(prefix(ranges.clone(), "10.1.15.9"), Some(20));
    assert_eq!(prefix(ranges.clone(), "10.1.16.9"), None);
    assert_eq!(prefix(ranges.clone(), "fd00::9"), Some(64));
    assert_eq!(prefix(json!({"type":"host-local","subnet":"0.0.0.0/0"}), "10.1.16.9"), Some(0));
    let fixed = json!({"type":"static","addresses":[{"address":"10.2.0.5/25"},{"address":7}]});
    assert_eq!(prefix(fixed.clone(), "10.2.0.9"), Some(25));
    assert!(of(fixed).is_static() && !of(ranges).is_static());
}

#[test]
fn what_makes_no_network_is_refused() {
    for (document, why) in [
        (json!([]), "JSON object"),
        (json!({"name":"a"}), "0 plugins"),
        (json!({"type":"bridge"}), "needs a name"),
        (json!({"name":"../a","type":"bridge"}), "cannot be a network's name"),
        (json!({"name":"a","type":"../../bin/sh"}), "cannot be a plugin's name"),
        (json!({"name":"a","type":""}), "cannot be a plugin's name"),
        (json!({"name":"a","type":".."}), "cannot be a plugin's name"),
        (json!({"name":"a","type":"b","ipam":{"type":"/bin/sh"}}), "cannot be a plugin's name"),
        (json!({"name":"a","type":7}), "no string"),
        (json!({"name":"a","plugins":{}}), "no list"),
        (json!({"name":"a","plugins":["b"]}), "JSON object"),
        (json!({"name":"a","plugins":vec![json!({"type":"b"}); 65]}), "65 plugins"),
        (json!({"name":"a","type":"b","cniVersion":"3.0.0"}), "not known"),
        (json!({"name":"a","type":"b","cniVersions":[1]}), "no list of strings"),
        (json!({"name":"a","type":"b","disableGC":2}), "neither true nor false"),
        (json!({"name":"a","type":"b","capabilities":[]}), "no object"),
    ] {
        let fault = parse(&document).unwrap_err();
        assert_eq!(fault.kind(), Kind::Input);
        assert!(fault.to_string().contains(why), "{document}: {fault}");
    }
}

#[test]
fn networks_are_found_by_name_with_what_lies_beside_them() {
    let dir = std::env::temp_dir().join(format!("cni-configurations-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("db")).unwrap();
    let write = |name: &str, content: Value| std::fs::write(dir.join(name), content.to_string()).unwrap();
    std::fs::write(dir.join("00-broken.conf"), "{").unwrap();
    write("10-db.conf", json!({"name":"db","type":"ptp"}));
    write("50-db.conflist", json!({"name":"db","plugins":[{"type":"bridge"}]}));
    write(
        "60-alone.conflist",
        json!({"name":"alone","loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}),
    );
    write("70-none.conflist", json!({"name":"none","loadOnlyInlinedPlugins":true}));
    write("db/20-tuning.conf", json!({"type":"tuning"}));
    write("db/10-portmap.conf", json!({"type":"portmap"}));
    let folders = [dir.join("missing"), dir.clone()];
    let (path, found) = Configuration::find(&folders, "db").unwrap();
    assert!(path.ends_with("50-db.conflist"));
    let names: Vec<&str> = found.plugins().iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["bridge", "portmap", "tuning"]);
    assert_eq!(Configuration::from_value(found.to_value()).unwrap().plugins(), found.plugins());
    assert_eq!(Configuration::find(&folders, "alone").unwrap().1.plugins().len(), 1);
    let fault = Configuration::find(&folders, "other").unwrap_err();
    assert_eq!(fault.kind(), Kind::NotFound);
    assert!(fault.hint_text().unwrap().contains("70-none"), "{:?}", fault.hint_text());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = std::env::temp_dir().join(format!("cni-no-files-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("10-folder.conf")).unwrap();
    let fifo = dir.join("20-fifo.conf");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.join("30-endless.conf")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.join("40-nowhere.conf")).unwrap();
    let good = json!({"name":"db","type":"ptp"});
    std::fs::write(dir.join("50-good.conf"), good.to_string()).unwrap();
    for name in ["10-folder", "20-fifo", "30-endless"] {
        let fault = Configuration::load(&dir.join(name).with_extension("conf")).unwrap_err();
        assert!(fault.to_string().contains("is no file"), "{fault}");
    }
    assert_eq!(Configuration::find(std::slice::from_ref(&dir), "db").unwrap().1.name, "db");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn one_plugin_makes_a_network_with_addresses() {
    let members = json!({"bridge":"br7"}).as_object().unwrap().clone();
    let ranges = vec![json!({"subnet":"10.7.0.0/24"}), json!({"subnet":"fd07::/64"})];
    let made = Configuration::of_plugin("web", "bridge", members, ranges).unwrap().to_value();
    let plugin = &made["plugins"][0];
    assert_eq!(plugin["bridge"], "br7");
    assert_eq!(plugin["ipam"]["ranges"][1][0]["subnet"], "fd07::/64");
    assert_eq!(plugin["ipam"]["routes"], json!([{"dst":"0.0.0.0/0"},{"dst":"::/0"}]));
    let bare = Configuration::of_plugin("web", "loopback", Map::new(), Vec::new()).unwrap().to_value();
    assert_eq!(bare["plugins"][0].get("ipam"), None);
}

proptest! {
    #[test]
    fn a_derived_configuration_keeps_all_but_what_is_generated(
        members in prop::collection::btree_map("[a-zA-Z./]{1,12}", any::<u32>(), 0..8),
        declared in prop::collection::btree_map("[a-c]", any::<bool>(), 0..3),
        given in prop::collection::btree_map("[a-d]", any::<u8>(), 0..4),
        again in any::<bool>(),
    ) {
        let mut document: Map<String, Value> =
            members.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
        document.insert("type".into(), "p".into());
        document.remove("ipam");
        document.insert("cni.dev/x".into(), 1.into());
        document.insert("capabilities".into(), json!(declared));
        document.insert("runtimeConfig".into(), json!({"z": 1}));
        document.insert("prevResult".into(), json!({"z": 1}));
        let plugin = Plugin::new(document.clone().into()).unwrap();
        let capabilities = json!(given).as_object().unwrap().clone();
        let previous = again.then(|| json!({"ips": []}));
        let derived = plugin.derived("net", Version::V1_0_0, &capabilities, previous.as_ref());
        prop_assert_eq!(&derived["cniVersion"], "1.0.0");
        prop_assert_eq!(&derived["name"], "net");
        prop_assert!(!derived.contains_key("capabilities") && !derived.contains_key("cni.dev/x"));
        prop_assert_eq!(derived.get("prevResult"), previous.as_ref());
        let wanted: Map<String, Value> = capabilities
            .into_iter()
            .filter(|(name, _)| declared.get(name) == Some(&true))
            .collect();
        prop_assert_eq!(
            derived.get("runtimeConfig").cloned().unwrap_or_else(|| json!({})),
            Value::Object(wanted)
        );
        let generated = ["cniVersion", "cniVersions", "name", "capabilities", "runtimeConfig", "prevResult"];
        for (name, value) in &document {
            if !generated.contains(&name.as_str()) && !name.starts_with("cni.dev/") {
                prop_assert_eq!(derived.get(name), Some(value));
            }
        }
    }

    #[test]
    fn no_document_is_too_strange(text in "\\PC{0,300}", member in "name|type|plugins|cniVersions|ipam") {
        let _ = Configuration::parse(text.as_bytes());
        let strange: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let mut document = json!({"name":"a","type":"b"});
        document[member] = strange;
        let _ = Configuration::from_value(document);
    }
}
