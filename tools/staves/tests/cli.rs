//! The real program, and that it and the separate tools say the same.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn staves(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_staves")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn is_the_tool_it_is_called_by() {
    let by_name =
        Command::new(env!("CARGO_BIN_EXE_staves")).arg0("/bin/sys-check").arg("--help").output().unwrap();
    let by_argument = staves(&["sys-check", "--help"]);
    assert!(stdout(&by_name).contains("Usage: sys-check"), "{}", stdout(&by_name));
    assert_eq!(stdout(&by_name), stdout(&by_argument));
}

#[test]
fn every_tool_has_help_a_version_and_an_example() {
    for tool in stdout(&staves(&["tools"])).lines() {
        let help = staves(&[tool, "--help"]);
        assert!(help.status.success(), "{tool} --help");
        let text = stdout(&help);
        assert!(text.contains(&format!("Usage: {tool}")), "{text}");
        // Started by other tools only.
        assert!(tool == "ctr-shim" || text.contains("Examples:"), "{tool} --help has no examples:\n{text}");
        assert!(staves(&[tool, "--version"]).status.success(), "{tool} --version");
    }
}

#[test]
fn writes_a_manual_page_and_completions_for_every_tool() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man");
    assert!(staves(&["man", man.to_str().unwrap()]).status.success());
    assert!(staves(&["completions", dir.path().to_str().unwrap()]).status.success());
    for tool in staves::TOOLS {
        for file in [
            format!("man/{tool}.1"),
            format!("bash/{tool}"),
            format!("zsh/_{tool}"),
            format!("fish/{tool}.fish"),
        ] {
            assert!(dir.path().join(&file).metadata().unwrap().len() > 100, "{file}");
        }
    }
}

#[test]
fn links_lead_to_the_tools() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        assert!(staves(&["links", dir.path().to_str().unwrap()]).status.success());
    }
    let helper =
        Command::new(dir.path().join("docker-credential-staves-file")).arg("version").output().unwrap();
    assert!(stdout(&helper).starts_with("cred-file "), "{}", stdout(&helper));
    let output = Command::new(dir.path().join("sys-check")).arg("--version").output().unwrap();
    assert!(stdout(&output).starts_with("sys-check "));
}
