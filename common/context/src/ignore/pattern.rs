//! Patterns as docker reads them (github.com/moby/patternmatcher): Go's `filepath.Match` with `**`, and with `!` in front exceptions.
//!
//! A pattern is run as an automaton: all places in it that fit what was read of the path so far go on together, so that the time is the
//! product of the two lengths, whatever the pattern.

use fault::{Fault, Result};

/// Longest pattern, in bytes: the kernel's `PATH_MAX`, as nothing longer names anything.
const MAX_PATTERN: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A character.
    One(char),
    /// `?`: any character but a slash.
    Any,
    /// `*`: any number of characters that are no slash.
    Star,
    /// `**/`, and `**` in front of something: nothing, or anything that ends in a slash.
    Dirs,
    /// `**` at the end: whatever is left.
    Rest,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Whether two stars mean more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Ignore files: they do.
    Ignore,
    /// `filepath.Match`: they do not.
    Match,
}

/// One pattern, ready to be compared.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Vec<u8>,
    tokens: Vec<Token>,
    how: How,
    /// What every fitting path begins with, and what it ends in: most paths need not be looked at any further.
    start: Vec<u8>,
    end: Vec<u8>,
}

/// Most patterns need no automaton.
#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Exact,
    /// `dir/**`: everything that begins with these bytes of the text.
    Prefix(usize),
    /// `**/x` and `**x`: everything that ends in the text after its first two bytes.
    Suffix,
    Tokens,
}

impl Pattern {
    /// # Errors
    /// [`fault::Kind::Input`] for what `filepath.Match` refuses, and for classes whose ranges run backwards.
    pub fn new(text: &[u8], syntax: Syntax) -> Result<Pattern> {
        let bad = |why: &str| {
            Fault::input(format!("malformed pattern {:?}: {why}", String::from_utf8_lossy(text))).hint(
                "* ? [a-z] stand for characters of a name, ** for directories, \\ takes a character as it is",
            )
        };
        if text.len() > MAX_PATTERN {
            return Err(bad("it is too long"));
        }
        let tokens = Tokens { rest: text, syntax }.read().map_err(bad)?;
        let how = kind(text, &tokens);
        let start = literal(tokens.iter());
        let end = literal(
            tokens.iter().rev().take(tokens.len() - tokens.iter().take_while(|t| is_literal(t)).count()),
        );
        let end: String = end.chars().rev().collect();
        Ok(Pattern { text: text.to_vec(), tokens, how, start: start.into_bytes(), end: end.into_bytes() })
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether a whole path fits.
    pub fn fits(&self, path: &[u8]) -> bool {
        match self.how {
            How::Exact => path == self.text,
            How::Prefix(length) => path.starts_with(&self.text[..length]),
            How::Suffix => {
                let end = &self.text[2..];
                path.ends_with(end) || end.strip_prefix(b"/") == Some(path)
            }
            How::Tokens if !path.starts_with(&self.start) || !path.ends_with(&self.end) => false,
            How::Tokens => {
                let mut places = Places::start(self);
                places.read(path);
                places.at_end()
            }
        }
    }

    /// Whether a path below a directory may fit. Says yes rather too often.
    pub fn fits_below(&self, dir: &[u8]) -> bool {
        if self.how == How::Suffix || dir.is_empty() {
            return true;
        }
        if let (How::Exact, true) = (&self.how, dir.len() < self.text.len()) {
            return self.text.starts_with(dir) && self.text[dir.len()] == b'/';
        }
        let mut places = Places::start(self);
        places.read(dir);
        places.read(b"/");
        places.any()
    }
}

/// Bytes that are no UTF-8 stand for each other, so that they are none.
fn is_literal(token: &Token) -> bool {
    matches!(token, Token::One(character) if *character != char::REPLACEMENT_CHARACTER)
}

fn literal<'a>(tokens: impl Iterator<Item = &'a Token>) -> String {
    let characters = tokens.take_while(|token| is_literal(token)).map(|token| match token {
        Token::One(character) => *character,
        _ => char::REPLACEMENT_CHARACTER,
    });
    characters.collect()
}

/// What kind docker's matcher takes it for. That matters for `**x`, which there ends any path ending in x as long as nothing else in it
/// is special.
fn kind(text: &[u8], tokens: &[Token]) -> How {
    let plain = |tokens: &[Token]| {
        tokens.iter().all(|token| matches!(token, Token::One(_))) && !text.contains(&b'\\')
    };
    match tokens {
        [Token::Rest] => How::Suffix,
        [Token::Dirs, rest @ ..] if plain(rest) => How::Suffix,
        [start @ .., Token::Rest] if plain(start) => How::Prefix(text.len() - 2),
        all if plain(all) && std::str::from_utf8(text).is_ok() => How::Exact,
        _ => How::Tokens,
    }
}

struct Tokens<'a> {
    rest: &'a [u8],
    syntax: Syntax,
}

impl Tokens<'_> {
    fn read(mut self) -> Result<Vec<Token>, &'static str> {
        let mut tokens = Vec::new();
        while let Some(character) = self.next() {
            let token = match character {
                '*' if self.syntax == Syntax::Match => Token::Star,
                '*' => self.stars(),
                '?' => Token::Any,
                '[' => self.class()?,
                '\\' => Token::One(self.next().ok_or("nothing follows the \\ at its end")?),
                other => Token::One(other),
            };
            tokens.push(token);
        }
        Ok(tokens)
    }

    fn next(&mut self) -> Option<char> {
        let (character, length) = first_char(self.rest)?;
        self.rest = &self.rest[length..];
        Some(character)
    }

    /// What follows a star.
    fn stars(&mut self) -> Token {
        let Some(rest) = self.rest.strip_prefix(b"*") else { return Token::Star };
        self.rest = rest.strip_prefix(b"/").unwrap_or(rest);
        if self.rest.is_empty() { Token::Rest } else { Token::Dirs }
    }

    fn class(&mut self) -> Result<Token, &'static str> {
        let negated = self.rest.first() == Some(&b'^');
        if negated {
            self.next();
        }
        let mut ranges = Vec::new();
        loop {
            if self.rest.first() == Some(&b']') && !ranges.is_empty() {
                self.next();
                return Ok(Token::Class { negated, ranges });
            }
            let low = self.member()?;
            let mut high = low;
            if self.rest.first() == Some(&b'-') {
                self.next();
                high = self.member()?;
            }
            if high < low {
                return Err("a range in it runs backwards");
            }
            ranges.push((low, high));
        }
    }

    fn member(&mut self) -> Result<char, &'static str> {
        const OPEN: &str = "a [ in it has no fitting ]";
        match self.next().ok_or(OPEN)? {
            '-' | ']' => Err("- and ] need a \\ in front within [ ]"),
            '\\' => self.next().ok_or(OPEN),
            other => Ok(other),
        }
    }
}

/// The first character; a byte that is no UTF-8 is one of its own, as in Go.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((first as char, 1));
    }
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((char::REPLACEMENT_CHARACTER, 1)),
    };
    let text = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    Some(text.and_then(|text| text.chars().next()).map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, length)))
}

/// The places in a pattern that fit what was read: before token n, n being its length at the end.
struct Places<'a> {
    tokens: &'a [Token],
    now: Vec<bool>,
    next: Vec<bool>,
    /// Inside of what a `Dirs` stands for, by its place.
    inside: Vec<bool>,
}

impl Places<'_> {
    fn start(pattern: &Pattern) -> Places<'_> {
        let count = pattern.tokens.len() + 1;
        let mut places = Places {
            tokens: &pattern.tokens,
            now: vec![false; count],
            next: vec![false; count],
            inside: vec![false; count],
        };
        places.now[0] = true;
        places.pass();
        places
    }

    /// Past tokens that stand for nothing.
    fn pass(&mut self) {
        for (at, token) in self.tokens.iter().enumerate() {
            if self.now[at] && matches!(token, Token::Star | Token::Dirs | Token::Rest) {
                self.now[at + 1] = true;
            }
        }
    }

    fn read(&mut self, mut path: &[u8]) {
        while let Some((character, length)) = first_char(path) {
            path = &path[length..];
            self.next.fill(false);
            for (at, token) in self.tokens.iter().enumerate() {
                let here = self.now[at];
                match token {
                    Token::Star => self.next[at] |= here && character != '/',
                    Token::Rest => self.next[at] |= here,
                    Token::Dirs => {
                        self.inside[at] |= here;
                        self.next[at + 1] |= self.inside[at] && character == '/';
                    }
                    Token::One(wanted) => self.next[at + 1] |= here && character == *wanted,
                    Token::Any => self.next[at + 1] |= here && character != '/',
                    Token::Class { negated, ranges } => {
                        let is_in = || ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                        self.next[at + 1] |= here && is_in() != *negated;
                    }
                }
            }
            std::mem::swap(&mut self.now, &mut self.next);
            self.pass();
            if !self.any() {
                return;
            }
        }
    }

    fn any(&self) -> bool {
        self.now.contains(&true) || self.inside.contains(&true)
    }

    fn at_end(&self) -> bool {
        self.now[self.tokens.len()]
    }
}
