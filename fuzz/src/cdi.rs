//! Specifications of devices (CDI), and the words of `--gpus`.
//!
//! Input: a line with the names of devices, and the specifications, one after each line `---`, those of the later directory after `+++`.

use fault::Kind;
use oci::cdi::{SpecFile, edits, gpus};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (names, rest) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(devices) = gpus(names) {
        assert!(!devices.is_empty() && devices.iter().all(|name| name.starts_with("nvidia.com/gpu=")));
    }
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    let mut files = vec![String::new()];
    let mut priorities = vec![0];
    for line in rest.lines() {
        match line {
            "---" | "+++" => {
                files.push(String::new());
                priorities.push(usize::from(line == "+++"));
            }
            line => files.last_mut().expect("there is one").extend([line, "\n"]),
        }
    }
    let files: Vec<SpecFile> = files
        .into_iter()
        .zip(priorities)
        .enumerate()
        .map(|(number, (json, priority))| SpecFile {
            path: format!("/etc/cdi/{number}.json"),
            priority,
            json: Ok(json),
        })
        .collect();
    match edits(&names, &files) {
        Ok(edits) => {
            let absolute = |path: &str| path.starts_with('/') && !path.contains('\0');
            assert!(edits.device_nodes.iter().all(|node| absolute(&node.path)));
            assert!(edits.mounts.iter().all(|mount| absolute(&mount.container_path)));
            assert!(edits.hooks.iter().all(|hook| absolute(&hook.path)));
            assert!(edits.env.iter().all(|text| text.contains('=') && !text.contains('\0')));
            assert!(!edits.additional_gids.contains(&0));
            assert!(edits.others.values().all(serde_json::Value::is_null));
        }
        Err(fault) => {
            assert!(matches!(fault.kind(), Kind::Input | Kind::NotFound | Kind::Conflict), "{fault}");
        }
    }
}
