//! The real program.

use std::process::{Command, Output};

fn sys_check(arguments: &[&str]) -> Output {
    let dir = std::env::temp_dir();
    Command::new(env!("CARGO_BIN_EXE_sys-check"))
        .args(arguments)
        .env("STAVES_ROOT", dir.join("sys-check-root"))
        .env("STAVES_RUN", dir.join("sys-check-run"))
        .output()
        .unwrap()
}

#[test]
fn every_row_is_a_record_and_says_what_to_do() {
    let output = sys_check(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() > 15, "{text}");
    for row in &rows {
        let status = row["status"].as_str().unwrap();
        assert!(["ok", "warn", "missing"].contains(&status), "{row}");
        assert_eq!(status == "ok", row["hint"] == "", "{row}");
        assert_eq!(row["staves"], 1);
    }
    let missing = rows.iter().any(|row| row["status"] == "missing");
    assert_eq!(output.status.code(), Some(i32::from(missing)));
    assert!(!std::env::temp_dir().join("sys-check-root").exists(), "looking makes no state");
}

#[test]
fn people_get_a_table_and_advice_that_is_not_cut() {
    let output = sys_check(&["--output", "table"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("NAME"), "{text}");
    let quiet = String::from_utf8(sys_check(&["-q"]).stdout).unwrap();
    for name in quiet.lines() {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("{name}: "))),
            "no advice for {name} in {text}"
        );
    }
}

#[test]
fn anything_else_is_a_usage_error() {
    let output = sys_check(&["extra"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("sys-check: "));
}

#[test]
#[allow(clippy::print_stderr)]
fn a_firewall_that_drops_what_it_does_not_know_is_told_of() {
    let table = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }; \
                 table inet mine { chain f { type filter hook forward priority 0; policy drop; }; }";
    let script = format!("nft '{table}' && exec \"$0\"");
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", &script, env!("CARGO_BIN_EXE_sys-check")])
        .env("STAVES_ROOT", std::env::temp_dir().join("sys-check-root"))
        .output();
    let Some(output) = output.ok().filter(|output| !output.stdout.is_empty()) else {
        eprintln!("SKIPPED: no right to make network namespaces, or no nft(8)");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let row = text.lines().find(|line| line.contains("other-firewalls")).unwrap_or_else(|| panic!("{text}"));
    let row: serde_json::Value = serde_json::from_str(row).unwrap();
    assert_eq!(row["status"], "warn");
    for chain in ["ip filter FORWARD", "inet mine f"] {
        assert!(row["detail"].as_str().unwrap().contains(chain), "{row}");
    }
    assert!(row["hint"].as_str().unwrap().contains("nft insert rule inet mine f "), "{row}");
}
