//! `ctr-run` at a real terminal, in a pipe, and what it says it would do.

use pipelines::{Bench, Terminal, wait_until};

/// The image's shell: bash where the Debian image could be made, else busybox's, which edits lines too.
fn shell(bench: &Bench) -> (String, &'static str) {
    match pipelines::images().and_then(|images| images.layout("debian")) {
        Some(_) => (bench.reference("debian:12"), "bash --norc"),
        None => (bench.reference("busybox:1"), "sh"),
    }
}

#[test]
fn a_shell_at_the_terminal() {
    let Some(bench) = Bench::new() else { return };
    let Some(terminal) = Terminal::new(&bench.place) else { return };
    let (reference, shell) = shell(&bench);
    // Pulled beforehand, so that no progress is on the screen.
    bench.sh(&format!("img-pull {reference} | img-unpack")).expect(0);

    terminal.line(&format!("ctr-run -it --name tty -e PS1='in> ' {reference} {shell}"));
    terminal.wait_for("in> ");

    // Line editing: the word in the middle is put in afterwards.
    terminal.type_text("echo begin end");
    for _ in 0..3 {
        terminal.press("Left");
    }
    terminal.type_text("middle ");
    terminal.press("Enter");
    terminal.wait_for("\nbegin middle end");

    // The window's size, at the start and after a change.
    terminal.line("stty size");
    terminal.wait_for("\n24 80");
    terminal.resize(100, 30);
    terminal.line("stty size");
    terminal.wait_for("\n30 100");

    // Ctrl-C ends what runs, not the shell. Pressed before it runs it would take back what was typed.
    let runs = |command: &str| {
        wait_until(command, || bench.sh("ctr-top --output table tty").expect(0).stdout.contains(command));
    };
    terminal.line("sleep 1000; echo status $?");
    runs("sleep 1000");
    terminal.press("C-c");
    terminal.line("echo still here");
    terminal.wait_for("\nstill here");

    // Ctrl-Z and fg.
    terminal.line("sleep 1001");
    runs("sleep 1001");
    terminal.press("C-z");
    terminal.wait_for("topped");
    // Waited for: with stopped jobs the shell does not exit at the first try.
    terminal.line("kill -9 %1; wait %1; echo job gone");
    terminal.wait_for("\njob gone");

    // Detach, and attach again.
    terminal.press("C-p");
    terminal.press("C-q");
    terminal.wait_for("outer$");
    terminal.line("clear; ctr-ls");
    // The table's last column, the name, may be cut at the window's edge.
    terminal.wait_for(" Up ");
    terminal.line("clear; ctr-attach tty");
    terminal.line("echo attached again");
    terminal.wait_for("\nattached again");

    terminal.line("exit 3");
    // What is typed before the outer shell is back would go to ctr-attach.
    wait_until("the outer prompt", || terminal.screen().trim_end().ends_with("outer$"));
    terminal.line("clear; echo status=$?");
    terminal.wait_for("status=");
    let listed = bench.sh("ctr-ls --all").expect(0).json();
    assert_eq!(listed["container"]["status"], "exited", "{listed}");
    assert_eq!(listed["container"]["exit_code"], 3, "{listed}");

    // Stopped but not removed, and startable again.
    terminal.line("clear; ctr-start --attach --interactive tty");
    terminal.line("echo started $((6 * 7))");
    terminal.wait_for("started 42");
    terminal.line("exit");
    wait_until("the shell to end", || {
        bench.sh("ctr-ls --all").expect(0).json()["container"]["status"] == "exited"
    });
}

#[test]
fn stdin_of_a_pipe_reaches_the_container() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench.sh("printf 'a\\nb\\n' | ctr-run -i --rm $R/busybox:1 wc -l").expect(0);
    assert_eq!(ran.stdout.trim(), "2");
    // Much of it, whole.
    let ran = bench.sh("head -c 30000000 /dev/zero | ctr-run -i --rm $R/busybox:1 wc -c").expect(0);
    assert_eq!(ran.stdout.trim(), "30000000");
    // Without -i the container reads nothing.
    let ran = bench.sh("printf 'a\\nb\\n' | ctr-run --rm $R/busybox:1 wc -l").expect(0);
    assert_eq!(ran.stdout.trim(), "0");
}

#[test]
fn much_output_comes_out_whole() {
    let Some(bench) = Bench::new() else { return };
    for driver in ["none", "json-file"] {
        for _ in 0..5 {
            let command = "yes 0123456789abcdef | head -c 50000000";
            let ran = bench
                .sh(&format!("ctr-run --rm --log-driver {driver} $R/busybox:1 sh -c '{command}' | wc -c"))
                .expect(0);
            assert_eq!(ran.stdout.trim(), "50000000", "log driver {driver}");
        }
    }
}

#[test]
fn stdin_from_another_descriptor_while_records_come_in() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("printf 'one\\ntwo\\n' >$DIR/input
             img-pull $R/busybox:1 | img-unpack | jq -c '.config.interactive = true' | ctr-create -- cat \
             | ctr-start --attach --interactive --stdin-fd 3 3<$DIR/input")
        .expect(0);
    assert_eq!(ran.stdout, "one\ntwo\n");
}

#[test]
fn what_show_prints_does_the_same_when_pasted() {
    let Some(bench) = Bench::new() else { return };
    let words = "--name shown -e 'GREETING=it'\\''s me' --hostname host $R/busybox:1 sh -c 'echo \"$GREETING\" from $(hostname)'";
    let shown = bench.sh(&format!("ctr-run --show {words}")).expect(0).stdout;
    assert!(shown.contains("img-pull") && shown.contains(" |"), "{shown}");
    let none = bench.sh("ctr-ls --all -q").expect(0).stdout;
    assert_eq!(none, "", "--show runs nothing");
    let pasted = bench.sh(&shown).expect(0);
    assert_eq!(pasted.stdout, "it's me from host\n", "{shown}");
    bench.sh("ctr-rm shown").expect(0);
    let run = bench.sh(&format!("ctr-run {words}")).expect(0);
    assert_eq!(run.stdout, pasted.stdout);
}

#[test]
fn removed_when_it_ends_only_if_asked_for() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run --rm $R/busybox:1 true").expect(0);
    wait_until("the container to be removed", || bench.sh("ctr-ls --all -q").expect(0).stdout.is_empty());
    bench.sh("ctr-run --name kept $R/busybox:1 sh -c 'echo x >/made'").expect(0);
    // Its read-write layer is its own and is kept.
    let ran = bench.sh("ctr-start --attach kept; cat $STAVES_ROOT/names/kept/upper/made").expect(0);
    assert_eq!(ran.stdout, "x\n");
}

#[test]
fn statuses_are_dockers() {
    let Some(bench) = Bench::new() else { return };
    for (command, status) in [
        ("$R/busybox:1 sh -c 'exit 9'", 9),
        ("$R/busybox:1 sh -c 'sleep 100 & kill -TERM $!; wait $!'", 143),
        ("$R/busybox:1 /no/such/program", 127),
        ("$R/busybox:1 /etc/passwd", 126),
        ("$R/busybox:none true", 125),
    ] {
        let ran = bench.sh(&format!("ctr-run --rm {command}"));
        assert_eq!(ran.status, status, "{command}: {}", ran.stderr);
        assert!(
            !(125..=127).contains(&status) || ran.stderr.lines().any(|line| line.starts_with("ctr-run: ")),
            "{}",
            ran.stderr
        );
    }
    let killed = bench.sh("ctr-run -d --name victim $R/busybox:1 sleep 1000 >/dev/null; ctr-kill victim >/dev/null; ctr-wait victim");
    assert!(killed.stdout.contains("137"), "{}{}", killed.stdout, killed.stderr);
}
