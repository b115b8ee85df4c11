//! The last lines of a terminal, written over as work goes on; and text of others' made fit for one.
//!
//! No mode of the terminal is ever changed, and the cursor stays at the beginning of the line below: whoever ends in the midst of it leaves a terminal
//! in order.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use unicode_width::UnicodeWidthChar;

/// Marks that may stand on one letter: there is no end to them otherwise, and they take no room.
const MAX_MARKS: usize = 2;
const TAB: usize = 8;

/// In cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl Size {
    /// What the terminal says, or else what terminals once were.
    pub fn of(terminal: impl AsFd) -> Size {
        match terminal_size::terminal_size_of(terminal) {
            Some((width, height)) => Size { width: usize::from(width.0), height: usize::from(height.0) },
            None => Size { width: 80, height: 24 },
        }
    }

    /// What may be drawn on: the last column stays free, where terminals differ on when a line is full, and the last line, where the cursor is.
    #[must_use]
    pub fn drawable(self) -> Size {
        Size { width: self.width.saturating_sub(1), height: self.height.saturating_sub(1) }
    }
}

/// Whether stderr is a terminal on which lines can be written over.
pub fn is_live() -> bool {
    let is_able = |name: &std::ffi::OsStr| !name.is_empty() && name != "dumb";
    io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|name| is_able(&name))
}

/// Whether colours are welcome on a terminal (no-color.org).
pub fn has_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

/// A line without colours of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// The number ECMA-48 has for it.
    pub colour: Option<u8>,
}

/// Lines that are written over.
#[derive(Debug, Default)]
pub struct Region {
    /// How wide each of them is.
    drawn: Vec<usize>,
}

impl Region {
    /// What is to be written so that `above` stays and `lines` stand below it, in the place of those before.
    ///
    /// Lines are cut to the size; `above` is whole lines that may be of any width.
    pub fn draw(&mut self, above: &str, lines: &[Line], size: Size) -> String {
        let mut text = if above.is_empty() { self.back(size) } else { self.erase(size) + "\r" + above };
        let room = size.drawable();
        for line in lines.iter().take(room.height) {
            let cut = cut(&line.text, room.width);
            self.drawn.push(width(&cut));
            let _ = match line.colour {
                Some(colour) => writeln!(text, "\x1b[{colour}m{cut}\x1b[0m\x1b[K"),
                None => writeln!(text, "{cut}\x1b[K"),
            };
        }
        text.push_str("\x1b[J");
        text
    }

    /// What is to be written so that they are gone.
    pub fn erase(&mut self, size: Size) -> String {
        if self.drawn.is_empty() {
            return String::new();
        }
        // The first line by itself: some terminals keep a window that is cleared from its first cell on as if it had scrolled away.
        self.back(size) + "\x1b[K\x1b[1B\x1b[J\x1b[1A"
    }

    /// They are somebody else's now, as after the shell has had the terminal.
    pub fn forget(&mut self) {
        self.drawn.clear();
    }

    /// To the first of the lines. A window that became narrower has broken those that did not fit any more.
    fn back(&mut self, size: Size) -> String {
        let rows = |cells: usize| cells.div_ceil(size.width.max(1)).max(1);
        let up: usize = self.drawn.drain(..).map(rows).sum();
        if up > 0 { format!("\r\x1b[{up}A") } else { "\r".to_owned() }
    }
}

/// Cells a text takes that [`cut`] has been over.
pub fn width(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or(1)).sum()
}

/// A text of at most so many cells, of what every terminal shows the same and acts on nowhere: control characters are replaced, what has no
/// shape or turns the direction of writing is left out, tabs become spaces.
pub fn cut(text: &str, cells: usize) -> String {
    let mut all = String::with_capacity(text.len().min(cells.saturating_mul(4)));
    let (mut column, mut marks) = (0, MAX_MARKS);
    // Where a text that turns out to be too long ends, so that there is room for the sign of it.
    let mut end = 0;
    for character in text.chars() {
        let (character, count) = match character {
            '\t' => (' ', TAB - column % TAB),
            control if control.is_control() => ('\u{fffd}', 1),
            shapeless if is_shapeless(shapeless) => continue,
            other => (other, 1),
        };
        let wide = character.width().unwrap_or(1);
        if wide == 0 {
            marks += 1;
            if marks <= MAX_MARKS {
                all.push(character);
            }
            continue;
        }
        marks = 0;
        for _ in 0..count {
            if column < cells {
                end = all.len();
            }
            if column + wide > cells {
                all.truncate(end);
                if cells > 0 {
                    // In the place of the last one, which is two cells wide at most.
                    all.push('…');
                }
                return all;
            }
            all.push(character);
            column += wide;
        }
    }
    all
}

/// What has no shape of its own, or makes others take another one or another place: terminals differ on how much room it takes.
fn is_shapeless(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_cells() {
        for (text, cells, shown) in [
            ("plain", 5, "plain"),
            ("plain", 4, "pla…"),
            ("plain", 1, "…"),
            ("plain", 0, ""),
            ("", 0, ""),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("日本語", 1, "…"),
            ("a\tb", 9, "a       b"),
            ("a\tb", 4, "a  …"),
            ("\x1b[2J\u{9b}x\u{7}\r\n", 20, "\u{fffd}[2J\u{fffd}x\u{fffd}\u{fffd}\u{fffd}"),
            ("e\u{301}\u{301}\u{301}\u{301}f", 2, "e\u{301}\u{301}f"),
            ("\u{301}x", 2, "x"),
            ("a\u{202e}b\u{200d}c\u{fe0f}", 3, "abc"),
            ("👩\u{200d}👧", 4, "👩👧"),
        ] {
            assert_eq!(cut(text, cells), shown, "{text:?} in {cells}");
            assert!(width(shown) <= cells);
        }
    }

    #[test]
    fn lines_are_written_over() {
        let size = Size { width: 10, height: 4 };
        let line = |text: &str| Line { text: text.to_owned(), colour: None };
        let mut region = Region::default();
        assert_eq!(region.draw("", &[line("one"), line("two")], size), "\rone\x1b[K\ntwo\x1b[K\n\x1b[J");
        let blue = Line { colour: Some(34), ..line("three is long") };
        assert_eq!(
            region.draw("stays\n", &[blue], size),
            "\r\x1b[2A\x1b[K\x1b[1B\x1b[J\x1b[1A\rstays\n\x1b[34mthree is…\x1b[0m\x1b[K\n\x1b[J"
        );
        // Nine cells in a window of four are three lines.
        assert_eq!(region.erase(Size { width: 4, height: 4 }), "\r\x1b[3A\x1b[K\x1b[1B\x1b[J\x1b[1A");
        assert_eq!(region.erase(size), "");
        let many = vec![line("x"); 9];
        assert_eq!(region.draw("", &many, size).matches('\n').count(), 3, "the cursor's line stays free");
    }
}
