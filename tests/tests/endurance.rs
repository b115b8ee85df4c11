//! A short run of `scripts/endurance`: workers that use containers at once, after which nothing is lost, left behind or stuck.

use pipelines::{Ran, find_program, is_root, profile_dir, project, skip};
use std::process::{Command, Stdio};

#[test]
fn nothing_is_left_of_eight_busy_workers() {
    if !is_root() {
        return skip("containers at work take root");
    }
    for program in ["jq", "nft", "unshare"] {
        if find_program(program).is_none() {
            return skip(&format!("there is no {program}"));
        }
    }
    let mut command = Command::new(project().join("scripts/endurance"));
    command.args(["20s", "8"]).env("STAVES_BIN", profile_dir()).stdin(Stdio::null());
    let ran = Ran::of(&mut command);
    // What went wrong is on stderr, a line each; the last line of stdout counts.
    let summary = ran.clone().expect(0).stdout;
    assert!(summary.contains("8 workers") && summary.contains(" 0 failed"), "{summary}{}", ran.stderr);
}
