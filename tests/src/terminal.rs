//! A real terminal: tmux, with a server of its own.

use testkit::{Place, Ran, die_with_parent};

/// One window; the server ends with it.
pub struct Terminal<'a> {
    place: &'a Place,
    socket: String,
}

impl<'a> Terminal<'a> {
    /// A window of 80 by 24 running a shell with the place's environment. `None`, said aloud, without tmux.
    pub fn new(place: &'a Place) -> Option<Terminal<'a>> {
        if testkit::find_program("tmux").is_none() {
            testkit::skip("tmux is not installed");
            return None;
        }
        let terminal = Terminal { place, socket: place.path().join("tmux").display().to_string() };
        let mut server = die_with_parent("tmux");
        place.furnish(&mut server);
        // No start-up files: the prompt is the one set here.
        server.env("PS1", "outer$ ").env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        server.args(["-S", &terminal.socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"]);
        server.args(["bash", "--norc", "--noprofile"]);
        Ran::of(&mut server).expect(0);
        terminal.wait_for("outer$");
        Some(terminal)
    }

    /// Types text.
    pub fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Presses a key by tmux's name: `Enter`, `C-c`, `Up`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    pub fn line(&self, text: &str) {
        self.type_text(text);
        self.press("Enter");
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What the window shows.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).stdout
    }

    /// All it has shown and what it shows, as far as it is not written over.
    pub fn history(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-S", "-"]).stdout
    }

    /// What the window shows, with its colours as escape sequences.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"]).stdout
    }

    /// Waits until the window shows a text.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let mut screen = String::new();
        let give_up = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while std::time::Instant::now() < give_up {
            screen = self.screen();
            if screen.contains(text) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        panic!("the terminal never showed {text:?}; it shows:\n{screen}");
    }

    fn tmux(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.place.command("tmux").args(["-S", &self.socket]).args(arguments))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
