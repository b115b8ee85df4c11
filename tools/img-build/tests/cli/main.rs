//! The tool as a program, on real images and containers.

#[path = "../../../ctr-diff/tests/machine/mod.rs"]
#[allow(dead_code)]
mod machine;

#[path = "../../../../common/context/tests/it/server.rs"]
#[allow(dead_code)]
mod server;

mod beside;
mod cache;
mod carried;
mod exports;
mod failures;
mod files;
mod git;
mod layouts;
mod mounts;
mod reproducible;
mod squash;
mod stages;

use serde_json::Value;
use testkit::{Place, Ran};

/// A project of these files, in `$DIR/NAME`.
pub fn project(place: &Place, name: &str, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = place.path().join(name).join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// `img-build` with networks left out: most tests need none.
pub fn build(place: &Place, words: &str) -> Ran {
    place.sh(&format!("{} --network none {words}", env!("CARGO_BIN_EXE_img-build")))
}

/// Builds a Dockerfile with nothing beside it.
pub fn dockerfile(place: &Place, text: &str, words: &str) -> Ran {
    project(place, "only", &[("Dockerfile", text)]);
    build(place, &format!("{words} $DIR/only"))
}

/// What a command prints in a container of an image.
pub fn inside(place: &Place, image: &str, command: &str) -> String {
    place.sh(&format!("ctr-run --rm --network none {image} sh -c '{command}'")).expect(0).stdout
}

/// The lines of `--print`, as `cached` by the beginning of the instruction.
pub fn printed(place: &Place, words: &str) -> Vec<Value> {
    let ran = build(place, &format!("--print {words}")).expect(0);
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Which instructions are not cached.
pub fn to_do(place: &Place, words: &str) -> Vec<String> {
    let lines = printed(place, words);
    let open = lines.iter().filter(|line| line["cached"] == false);
    open.map(|line| line["instruction"].as_str().unwrap().to_owned()).collect()
}
