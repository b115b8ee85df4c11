//! Patterns of `${name#…}` and its like: `*` is anything, `?` one character, neither a line's end.

use crate::{Problem, limits};

/// What may still be spent on matching.
pub struct Work(pub usize);

impl Work {
    fn spend(&mut self, amount: usize) -> Result<(), Problem> {
        self.0 =
            self.0.checked_sub(amount).ok_or_else(|| Problem::new("its patterns take too long to match"))?;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Letter(char),
    One,
    Star,
}

#[derive(Debug)]
pub struct Pattern(Vec<Token>);

impl Pattern {
    /// `\` takes the meaning off `*`, `?` and itself, and off the `/` and `}` that would end the pattern; before anything else it
    /// is an error.
    pub fn parse(text: &str) -> Result<Pattern, Problem> {
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let token = match c {
                '*' => Token::Star,
                '?' => Token::One,
                '\\' => match rest.next() {
                    Some(c @ ('*' | '?' | '\\' | '/' | '}')) => Token::Letter(c),
                    _ => {
                        return Err(Problem::new(format!(
                            "the pattern {text:?} has an escape that means nothing"
                        )));
                    }
                },
                c => Token::Letter(c),
            };
            // Several are as good as one.
            if token != Token::Star || tokens.last() != Some(&Token::Star) {
                tokens.push(token);
            }
        }
        Ok(Pattern(tokens))
    }

    /// Without the shortest or longest beginning that matches.
    pub fn trim_start(&self, value: &str, longest: bool, work: &mut Work) -> Result<String, Problem> {
        let letters: Vec<char> = value.chars().collect();
        let end = Matcher::new(&self.0).end(&letters, 0, longest, work)?.unwrap_or(0);
        Ok(letters[end..].iter().collect())
    }

    /// Without the shortest or longest end that matches: the same from the other side.
    pub fn trim_end(&self, value: &str, longest: bool, work: &mut Work) -> Result<String, Problem> {
        let letters: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let end = Matcher::new(&tokens).end(&letters, 0, longest, work)?.unwrap_or(0);
        Ok(letters[end..].iter().rev().collect())
    }

    /// With the first match, or all that do not overlap, replaced.
    pub fn replace(&self, value: &str, with: &str, all: bool, work: &mut Work) -> Result<String, Problem> {
        let letters: Vec<char> = value.chars().collect();
        let mut matcher = Matcher::new(&self.0);
        let mut text = String::new();
        let (mut copied, mut start) = (0, 0);
        while start <= letters.len() {
            let Some(end) = matcher.end(&letters, start, true, work)? else {
                start += 1;
                if self.0.first() == Some(&Token::Star) {
                    // What fits nowhere from here fits from nowhere on this line: the star would have passed over the letters between.
                    while start <= letters.len() && letters[start - 1] != '\n' {
                        start += 1;
                    }
                }
                continue;
            };
            text.extend(&letters[copied..start]);
            // Nothing right after a match is no match of its own.
            if end > copied || start == 0 {
                text.push_str(with);
            }
            if text.len() > limits::WORD_BYTES {
                return Err(Problem::new(format!("it grows beyond {} bytes", limits::WORD_BYTES)));
            }
            copied = end;
            start = end.max(start + 1);
            if !all {
                break;
            }
        }
        text.extend(&letters[copied..]);
        Ok(text)
    }
}

/// A pattern followed through a text, all its possibilities at once: no text takes longer than its length times the pattern's.
struct Matcher<'a> {
    tokens: &'a [Token],
    current: Vec<usize>,
    next: Vec<usize>,
    /// When each state was last entered.
    entered: Vec<usize>,
    moment: usize,
}

impl<'a> Matcher<'a> {
    fn new(tokens: &'a [Token]) -> Matcher<'a> {
        Matcher {
            tokens,
            current: Vec::new(),
            next: Vec::new(),
            entered: vec![0; tokens.len() + 1],
            moment: 0,
        }
    }

    /// Where a match that begins at `start` ends.
    fn end(
        &mut self,
        letters: &[char],
        start: usize,
        longest: bool,
        work: &mut Work,
    ) -> Result<Option<usize>, Problem> {
        let mut found = None;
        self.current.clear();
        self.moment += 1;
        enter(self.tokens, &mut self.entered, self.moment, &mut self.current, 0);
        for position in start..=letters.len() {
            if self.entered[self.tokens.len()] == self.moment {
                found = Some(position);
                if !longest {
                    break;
                }
            }
            let Some(letter) = letters.get(position).filter(|_| !self.current.is_empty()) else { break };
            work.spend(self.current.len())?;
            self.moment += 1;
            self.next.clear();
            for state in self.current.drain(..) {
                let goes_to = match self.tokens.get(state) {
                    Some(Token::Letter(wanted)) if wanted == letter => state + 1,
                    Some(Token::One) if *letter != '\n' => state + 1,
                    Some(Token::Star) if *letter != '\n' => state,
                    _ => continue,
                };
                enter(self.tokens, &mut self.entered, self.moment, &mut self.next, goes_to);
            }
            std::mem::swap(&mut self.current, &mut self.next);
        }
        // So that a look at nothing costs something, too.
        work.spend(1)?;
        Ok(found)
    }
}

/// Adds a state, and the one behind it where a star may be nothing.
fn enter(tokens: &[Token], entered: &mut [usize], moment: usize, states: &mut Vec<usize>, state: usize) {
    let mut state = state;
    while entered[state] != moment {
        entered[state] = moment;
        states.push(state);
        if tokens.get(state) != Some(&Token::Star) {
            return;
        }
        state += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_front_is_looked_for_once_a_line() {
        let replace = |pattern: &str, value: &str, work: usize| {
            Pattern::parse(pattern).unwrap().replace(value, "-", true, &mut Work(work))
        };
        for (pattern, value, expected) in [
            ("*b", "aaba\nab\nc\nb", "-a\n-\nc\n-"),
            ("*\nb", "aa\nc\nb", "aa\n-"),
            ("*", "a\nb", "-\n-"),
            ("*c", "ab\n\n", "ab\n\n"),
        ] {
            assert_eq!(replace(pattern, value, 1000).unwrap(), expected, "{pattern} in {value:?}");
        }
        // Found by the fuzzer: tried at each letter it was the square of the text's length.
        let long = "x".repeat(100_000);
        assert_eq!(replace("*y", &long, 1_000_000).unwrap(), long);
        assert!(replace("?*y", &long, 1_000_000).is_err(), "what takes long is refused");
    }
}
