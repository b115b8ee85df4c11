//! What `img-build` draws on a terminal, as tmux shows it: while it builds, when it has built, and after what may come between.

use pipelines::{FakeRegistry, Place, Ran, Terminal, busybox, wait_until};

/// A project of a Dockerfile alone, in `$DIR/app`.
fn dockerfile(place: &Place, text: &str) {
    let dir = place.path().join("app");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("Dockerfile"), text).unwrap();
}

/// A place with a base, and the Dockerfile in it.
fn place(text: &str) -> Option<Place> {
    let place = busybox()?;
    assert!(pipelines::profile_dir().join("img-build").is_file(), "img-build is not built");
    dockerfile(&place, text);
    Some(place)
}

const BUILD: &str = "img-build --network none -t made $DIR/app; echo status=$?";

/// Lines of the window, without spaces at their ends and without empty ones.
fn lines(screen: &str) -> Vec<&str> {
    screen.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

/// The line that has a text.
#[track_caller]
fn line<'s>(screen: &'s str, text: &str) -> &'s str {
    screen.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?} in:\n{screen}"))
}

#[test]
fn what_runs_is_drawn_and_what_has_run_stays() {
    let Some(place) = place(
        "FROM busybox:1 AS one\nRUN echo first\nRUN for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; printf 50%%; sleep 4\n\
         FROM busybox:1 AS two\nRUN sleep 3\nFROM busybox:1\nCOPY --from=one /etc /x\nCOPY --from=two /etc /y\n",
    ) else {
        return;
    };
    let Some(terminal) = Terminal::new(&place) else { return };
    terminal.line(&format!("clear; {BUILD}"));
    wait_until("two steps to run", || {
        let screen = terminal.screen();
        screen.contains("# line 9") && screen.contains("# 50%") && screen.contains("RUN sleep 3")
    });
    let screen = terminal.screen();
    let shown = lines(&screen);
    let headline = shown.iter().position(|line| line.starts_with("[+] Building ")).unwrap();
    // What has run is above, what runs below, each with its own output.
    let at = |text: &str| {
        shown
            .iter()
            .position(|line| line.contains(text))
            .unwrap_or_else(|| panic!("no {text:?} in:\n{screen}"))
    };
    assert!(
        at("RUN echo first") < headline && at("RUN for i in") > headline && at("RUN sleep 3") > headline,
        "{screen}"
    );
    let window: Vec<&str> = shown.iter().filter(|line| line.starts_with(" => => #")).copied().collect();
    assert_eq!(
        window[..6],
        [
            " => => # line 5",
            " => => # line 6",
            " => => # line 7",
            " => => # line 8",
            " => => # line 9",
            " => => # 50%"
        ]
    );
    assert!(shown[headline].ends_with("/8)"), "three bases, three commands, two copies: {screen}");
    assert!(
        shown
            .iter()
            .all(|line| !line.starts_with(" =>") || line.starts_with(" => =>") || line.ends_with('s')),
        "{screen}"
    );

    terminal.wait_for("status=0");
    let screen = terminal.screen();
    let shown = lines(&screen);
    assert!(!screen.contains(" => => "), "{screen}");
    assert_eq!(screen.matches("[+] Building").count(), 1, "{screen}");
    let finished = shown.iter().position(|line| line.ends_with(" FINISHED")).unwrap();
    let headline = shown[finished];
    // And what is stored.
    assert!(headline.contains("(9/9)"), "{screen}");
    assert!(shown[finished + 1].starts_with("built ") && shown[finished + 2] == "status=0", "{screen}");
    assert!(line(&screen, "RUN sleep 3").trim_end().ends_with('s'));

    terminal.line(&format!("clear; {BUILD}-again"));
    terminal.wait_for("status=0-again");
    let screen = terminal.screen();
    assert_eq!(screen.matches(" => CACHED [").count(), 5, "{screen}");
    assert!(screen.contains(" FINISHED\nbuilt "), "{screen}");
}

#[test]
fn commands_cannot_paint_the_terminal() {
    // Clearing, colours, the window's title, another character set, wide characters past the edge, a carriage return in what has no end, nulls.
    let Some(place) = place(
        "FROM busybox:1\nRUN printf '\\033[2J\\033[H\\033[31mred\\033[0m\\n\\033]0;title\\007\\n\\033(0lqk\\n\\033[?25l\\033[?1049h\\n\\0\\0nul\\n'; \
         i=0; while [ $i -lt 60 ]; do printf '日本'; i=$((i+1)); done; echo; printf 'aaaa\\rbb'; sleep 3; false\n",
    ) else {
        return;
    };
    let Some(terminal) = Terminal::new(&place) else { return };
    terminal.line(&format!("echo before; {BUILD}"));
    terminal.wait_for("# bb");
    let screen = terminal.screen();
    assert!(screen.contains("before\n"), "nothing above is lost: {screen}");
    let wide = line(&screen, "日本");
    assert!(wide.starts_with(" => => # 日本日本") && wide.trim_end().ends_with('…'), "{screen}");
    assert!(lines(&screen).iter().all(|line| !line.starts_with('日')), "it is cut, not broken: {screen}");
    terminal.wait_for("status=1");
    let screen = terminal.history();
    assert!(
        screen.contains("before\n") && screen.contains(" => ERROR [") && screen.contains(" FAILED\n"),
        "{screen}"
    );
    let coloured = terminal.coloured();
    let red = coloured.lines().find(|line| line.contains("red")).unwrap();
    assert!(!red.contains("\x1b[31mred"), "{red:?}");
    assert!(!line(&screen, "lqk").contains('┌'), "the character set is as it was: {screen}");
}

#[test]
fn a_failed_step_shows_all_it_wrote() {
    let Some(place) = place(
        "FROM busybox:1\nRUN for i in $(seq 1 100); do echo said $i; done; echo the reason >&2; exit 7\n",
    ) else {
        return;
    };
    let Some(terminal) = Terminal::new(&place) else { return };
    terminal.line(BUILD);
    terminal.wait_for("status=1");
    let history = terminal.history();
    let numbers: Vec<usize> = history
        .lines()
        .filter_map(|line| line.split_once(" said ").and_then(|(_, number)| number.trim().parse().ok()))
        .collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>(), "{history}");
    let shown = lines(&history);
    let error = shown.iter().position(|line| line.starts_with(" => ERROR [")).unwrap();
    assert!(shown[error + 1] == "------" && shown[error + 2].starts_with(" > ["), "{history}");
    let end = shown.iter().rposition(|line| *line == "------").unwrap();
    assert!(shown[end - 1].ends_with(" the reason") && shown[end + 1].ends_with(" FAILED"), "{history}");
    assert!(shown[end + 2].starts_with("img-build: Dockerfile:2: "), "{history}");
    assert_eq!(history.matches("[+] Building").count(), 1, "{history}");
}

#[test]
fn windows_that_change_and_windows_that_are_small() {
    let Some(place) = place("FROM busybox:1\nCOPY say /\nRUN sh /say\n") else { return };
    let say = "for i in $(seq 60); do echo rather a long line for windows $i; sleep .1; done\n";
    std::fs::write(place.path().join("app/say"), say).unwrap();
    let Some(terminal) = Terminal::new(&place) else { return };
    terminal.line(&format!("clear; echo begun; {BUILD}"));
    // Lines end before column 80. What is wider than a window that becomes narrower is broken by it some time before anybody is told of its size, which
    // leaves a line now and then; so does what has left the window.
    for (columns, rows, from) in [(80, 24, 0.5), (38, 24, 1.5), (120, 30, 2.5), (90, 20, 3.5), (80, 24, 4.5)]
    {
        terminal.resize(columns, rows);
        wait_until("it to be drawn", || terminal.screen().lines().any(|line| seconds(line) >= from));
        // Since the window has its size.
        std::thread::sleep(std::time::Duration::from_millis(400));
        let screen = terminal.screen();
        let shown = lines(&screen);
        assert_eq!(screen.matches("[+] Building").count(), 1, "{columns} by {rows}:\n{screen}");
        let headline = shown.iter().position(|line| line.starts_with("[+]")).unwrap();
        assert!(shown.len() - headline >= 8, "the window of six lines: {screen}");
        assert!(
            shown[headline + 1..].iter().all(|line| line.starts_with(" => ")),
            "no line is broken: {screen}"
        );
    }
    terminal.wait_for("status=0");
    let history = terminal.history();
    assert!(history.contains("begun\n"), "{history}");
    assert!(!history.contains(" => => "), "{history}");
    assert_eq!(history.matches("[+] Building").count(), 1, "{history}");
}

#[test]
fn no_more_is_drawn_than_a_small_window_shows() {
    let Some(place) = place("FROM busybox:1\nRUN for i in $(seq 1 30); do echo line $i; sleep 0.1; done\n")
    else {
        return;
    };
    let Some(terminal) = Terminal::new(&place) else { return };
    terminal.resize(30, 5);
    terminal.line(&format!("clear; {BUILD}"));
    for from in [0.5, 1.5, 2.5] {
        wait_until("it to be drawn", || terminal.screen().lines().any(|line| seconds(line) >= from));
        let screen = terminal.screen();
        assert!(lines(&screen).iter().any(|line| line.starts_with(" => => # line ")), "{screen}");
    }
    terminal.wait_for("status=0");
    let history = terminal.history();
    assert_eq!(history.matches("[+] Building").count(), 1, "nothing drawn has scrolled away: {history}");
    assert!(!history.contains(" => => "), "{history}");
}

/// How long a build has run, by its headline.
fn seconds(line: &str) -> f64 {
    let number = line.strip_prefix("[+] Building ").and_then(|rest| rest.split('s').next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

#[test]
fn control_c_and_control_z_leave_the_terminal_in_order() {
    let Some(place) = place("FROM busybox:1\nRUN echo here; sleep 1000\n") else { return };
    let Some(terminal) = Terminal::new(&place) else { return };
    terminal.line(&format!("clear; {BUILD}"));
    terminal.wait_for("# here");
    // Longer than what is drawn may be waited for.
    terminal.press("C-z");
    terminal.wait_for("topped");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    terminal.line("clear; echo between; fg");
    wait_until("it to be drawn again below", || {
        let screen = terminal.screen();
        screen.split_once("between\n").is_some_and(|(_, below)| below.contains("# here"))
    });
    terminal.press("C-c");
    wait_until("the prompt", || terminal.screen().trim_end().ends_with("outer$"));
    let screen = terminal.screen();
    let shown = lines(&screen);
    assert!(shown.last().unwrap().trim() == "outer$", "the prompt is on a line of its own: {screen}");
    // Echo and wrapping are as they were, and lines begin at the left.
    terminal.line("clear; printf 'a\\nb\\n'; tput cols");
    terminal.wait_for("\nb\n80");
    let ran = place.sh("for i in $(seq 250); do pgrep -f '[-]-run-step=.*'$(basename $DIR) >/dev/null || exit 0; sleep 0.02; done; exit 1");
    ran.expect(0);
}

#[test]
fn downloads_show_bytes() {
    let Some(mut place) = place("") else { return };
    let registry = FakeRegistry::start();
    let layer: Vec<u8> =
        (0..400u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let pushed = registry.put_image("base", "1", &[&layer]);
    registry.misbehave(
        pushed.layers[0].as_str(),
        1,
        pipelines::fake_registry::Behaviour::Trickle(std::time::Duration::from_millis(2)),
    );
    place.set("R", registry.address());
    dockerfile(&place, &format!("FROM {}/base:1\nCOPY Dockerfile /\n", registry.address()));
    let Some(terminal) = Terminal::new(&place) else { return };
    terminal.line(BUILD);
    wait_until("bytes", || {
        let screen = terminal.screen();
        screen.contains(" => pull ")
            && screen
                .lines()
                .any(|line| line.starts_with(" => => ") && line.contains("[=") && line.contains("/ 1.6 kB"))
    });
    // It is no layer.
    terminal.wait_for("status=");
    assert_eq!(terminal.history().matches("[+] Building").count(), 1, "{}", terminal.history());
}

#[test]
fn the_form_is_as_the_terminal_and_the_user_want_it() {
    let Some(place) = place("FROM busybox:1\nRUN echo said\n") else { return };
    let Some(terminal) = Terminal::new(&place) else { return };
    let number = std::cell::Cell::new(0);
    let run = |words: &str| {
        let number = number.replace(number.get() + 1);
        terminal.line(&format!(
            "clear; {words} --network none --no-cache $DIR/app >/dev/null; echo status=$?-{number}"
        ));
        terminal.wait_for(&format!("status=0-{number}"));
        (terminal.screen(), terminal.coloured())
    };
    // -q is quiet whatever else is said.
    assert!(!run("BUILDKIT_PROGRESS=tty img-build -q").0.contains("RUN"), "quiet");
    let (drawn, coloured) = run("img-build");
    assert!(drawn.contains("FINISHED") && coloured.contains("\x1b[34m"), "{coloured:?}");
    let (drawn, coloured) = run("NO_COLOR=1 img-build");
    assert!(drawn.contains("FINISHED") && !coloured.contains("\x1b["), "{coloured:?}");
    for plain in [
        "TERM=dumb img-build",
        "img-build --progress plain",
        "BUILDKIT_PROGRESS=plain img-build",
        "TERM=dumb img-build --progress tty",
    ] {
        let (told, coloured) = run(plain);
        assert!(
            told.contains("#2 DONE") && !told.contains("FINISHED") && !coloured.contains("\x1b["),
            "{plain}: {told}"
        );
    }
    let (drawn, _) = run("BUILDKIT_PROGRESS=plain img-build --progress tty");
    assert!(drawn.contains("FINISHED"), "{drawn}");
    let (json, _) = run("img-build --progress rawjson");
    assert!(json.contains("\"event\":\"done\""), "{json}");
}

#[test]
fn without_a_terminal_nothing_is_drawn() {
    let Some(place) = place("FROM busybox:1\nRUN echo said\n") else { return };
    let build = |words: &str| -> Ran { place.sh(&format!("{words} --network none --no-cache $DIR/app")) };
    for plain in ["img-build", "BUILDKIT_PROGRESS=auto img-build", "BUILDKIT_PROGRESS= img-build"] {
        let ran = build(plain).expect(0);
        assert!(ran.stderr.contains("#2 DONE") && !ran.stderr.contains('\x1b'), "{plain}: {}", ran.stderr);
    }
    for quiet in ["BUILDKIT_PROGRESS=quiet img-build", "img-build --progress none"] {
        assert_eq!(build(quiet).expect(0).stderr, "", "{quiet}");
    }
    for (wrong, subject) in [
        ("img-build --progress tty", "--progress tty"),
        ("BUILDKIT_PROGRESS=tty img-build", "BUILDKIT_PROGRESS"),
        ("BUILDKIT_PROGRESS=fancy img-build", "fancy"),
        ("img-build --progress fancy", "fancy"),
    ] {
        let ran = build(wrong).expect(2);
        assert!(
            ran.stderr.contains(subject) && ran.stderr.contains("hint: ") && ran.stdout.is_empty(),
            "{wrong}: {}",
            ran.stderr
        );
    }
}
