//! The directory in which `oci-runtime` keeps what there is of a container: torn, or somebody else's work.
//!
//! Input: files, each after a line `@ NAME KIND`. The kind is `file`, `directory`, `link` (the text is where it leads), `pipe`,
//! `socket` or `long` (the text is its length in bytes, and it is empty).

use super::scratch::Scratch;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

const ID: &str = "c1";

pub fn check(data: &[u8]) {
    let scratch = Scratch::new("state");
    let place = scratch.path().join(ID);
    std::fs::create_dir(&place).expect("make a directory");
    for (name, kind, text) in files(data) {
        // A name is taken once, and what cannot be made is not there.
        let _ = make(&place.join(name), kind, text);
    }
    let outcome = oci_runtime::read_state(scratch.path(), ID);
    if let Ok(printed) = outcome {
        let state: serde_json::Value = serde_json::from_str(&printed).expect("a state is JSON");
        assert_eq!(state["id"], ID);
        assert!(state["status"] != "stopped" || state["pid"] == 0, "{printed}");
    }
}

fn make(path: &Path, kind: &str, text: &[u8]) -> std::io::Result<()> {
    let node = |kind: FileType| Ok(mknodat(CWD, path, kind, Mode::RWXU, 0)?);
    match kind {
        "directory" => std::fs::create_dir(path),
        "link" => symlink(String::from_utf8_lossy(text).trim_end(), path),
        "pipe" => node(FileType::Fifo),
        "socket" => node(FileType::Socket),
        "long" => {
            let length = String::from_utf8_lossy(text).trim().parse().unwrap_or(1 << 30);
            std::fs::File::create_new(path)?.set_len(length)
        }
        // What is there already is neither waited for nor followed.
        _ => std::fs::File::create_new(path)?.write_all(text),
    }
}

/// Names that are none are left out.
fn files(data: &[u8]) -> Vec<(&str, &str, &[u8])> {
    let mut files = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(2).position(|two| two == b"@ ") {
        rest = &rest[at + 2..];
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let head = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        rest = &rest[(end + 1).min(rest.len())..];
        let length = rest.windows(3).position(|three| three == b"\n@ ").map_or(rest.len(), |at| at + 1);
        if let Some((name, kind)) = head.split_once(' ')
            && !matches!(name, "" | "." | "..")
            && !name.contains(['/', '\0'])
        {
            files.push((name, kind, &rest[..length]));
        }
        rest = &rest[length..];
    }
    files
}
