//! Listing, removing, and the help of every tool.

use pipelines::{Bench, Terminal, profile_dir, project, wait_until};

#[test]
fn a_filtered_list_is_piped_into_removal() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("for i in 1 2 3; do ctr-run --name done-$i $R/busybox:1 true; done; ctr-run -d --name busy $R/busybox:1 sleep 1000").expect(0);
    bench.sh("ctr-ls --filter status=exited | ctr-rm").expect(0);
    let left = bench.sh("ctr-ls --all | jq -r .container.name").expect(0).stdout;
    assert_eq!(left, "busy\n");
    // Nothing to remove is not a failure.
    bench.sh("ctr-ls --filter status=exited | ctr-rm").expect(0);
    let refused = bench.sh("ctr-rm busy").expect(5);
    assert!(refused.stderr.contains("hint:"), "{}", refused.stderr);
    bench.sh("ctr-rm -f busy").expect(0);
    assert_eq!(bench.sh("ctr-ls --all").expect(0).stdout, "");
}

#[test]
fn quiet_lists_are_ids() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --name one $R/busybox:1 sleep 1000; ctr-run --name two $R/busybox:1 true").expect(0);
    let running = bench.sh("ctr-ls -q").expect(0).stdout;
    let all = bench.sh("ctr-ls --all -q").expect(0).stdout;
    assert_eq!((running.lines().count(), all.lines().count()), (1, 2), "{running}{all}");
    assert!(all.lines().all(|id| id.len() >= 12 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{all}");
    bench.sh("ctr-ls -q | xargs ctr-stop -t 0").expect(0);
    assert_eq!(bench.sh("ctr-ls -q").expect(0).stdout, "");
}

#[test]
fn people_get_tables() {
    let Some(bench) = Bench::new() else { return };
    let Some(terminal) = Terminal::new(&bench.place) else { return };
    bench.sh("ctr-run -d --name listed $R/busybox:1 sleep 1000").expect(0);
    terminal.resize(160, 30);
    terminal.line("clear; ctr-ls; img-ls");
    terminal.wait_for("listed");
    wait_until("both tables", || terminal.screen().contains("busybox"));
    let screen = terminal.screen();
    assert!(!screen.contains("{\""), "{screen}");
}

#[test]
fn the_logs_and_the_exit_status_stay() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run --name said $R/busybox:1 sh -c 'echo out; echo err >&2; exit 4'").expect(4);
    let logs = bench.sh("ctr-logs said").expect(0);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    let waited = bench.sh("ctr-wait said");
    assert!(waited.stdout.contains('4'), "{}", waited.stdout);
}

#[test]
fn a_further_process_runs_inside() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --name box --hostname inside $R/busybox:1 sleep 1000").expect(0);
    let ran = bench
        .sh("ctr-exec -e X=y -w /tmp -u app box sh -c 'hostname; echo $X; pwd; id -un; id -Gn; exit 5'")
        .expect(5);
    assert_eq!(ran.stdout, "inside\ny\n/tmp\napp\napp audio video\n");
    let piped = bench.sh("echo through | ctr-exec -i box cat").expect(0);
    assert_eq!(piped.stdout, "through\n");
}

#[test]
fn every_tool_explains_itself() {
    let mut tools = 0;
    for entry in std::fs::read_dir(project().join("tools")).expect("the tools are there").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let program = profile_dir().join(&name);
        // The bundle is not built by default and has tests of its own.
        if !entry.path().is_dir() || name == "staves" {
            continue;
        }
        let help = pipelines::Ran::of(std::process::Command::new(&program).arg("--help")).expect(0);
        assert!(help.stdout.contains("Usage: "), "{name} --help:\n{}", help.stdout);
        assert!(name == "ctr-shim" || help.stdout.contains("Examples:"), "{name} --help has no examples");
        let first = help.stdout.lines().next().unwrap_or_default();
        assert!(!first.is_empty() && !first.ends_with('.'), "{name} --help begins with {first:?}");
        let readme = entry.path().join("README.md");
        assert!(readme.is_file(), "{name} has no page");
        // Engines call the runtime, and a start the shim: they have words of their own.
        if !["oci-runtime", "ctr-shim"].contains(&name.as_str()) {
            // Where a status may be that of a process, a tool's own is docker's 125.
            let own = ["ctr-run", "ctr-exec", "ctr-attach", "ctr-wait", "step"].contains(&name.as_str());
            let wrong = pipelines::Ran::of(std::process::Command::new(&program).arg("--frobnicate"));
            let wrong = wrong.expect(if own { 125 } else { 2 });
            assert!(
                wrong.stderr.starts_with(&format!("{name}: unknown option --frobnicate\n")),
                "{}",
                wrong.stderr
            );
        }
        tools += 1;
    }
    assert!(tools >= 25, "only {tools} tools");
}
