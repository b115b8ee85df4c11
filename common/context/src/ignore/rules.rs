//! Patterns one after the other, of which the last that says something about a path counts.

use super::pattern::{Pattern, Syntax};
use fault::{Fault, Result};

/// Lines of one file. Each costs time for each file of the context.
const MAX_RULES: usize = 10_000;

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// Begins with `!`.
    is_exception: bool,
}

/// What a list of patterns says of paths.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    has_exceptions: bool,
}

/// Which rules a directory fits, or one it lies in: what is below it fits them as well.
#[derive(Clone, Debug, Default)]
pub struct Above(Vec<u64>);

impl Above {
    fn has(&self, rule: usize) -> bool {
        self.0.get(rule / 64).is_some_and(|bits| bits >> (rule % 64) & 1 == 1)
    }

    fn add(&mut self, rule: usize) {
        let word = rule / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (rule % 64);
    }
}

impl Rules {
    /// Blank ones are passed over.
    ///
    /// # Errors
    /// As [`Pattern::new`].
    pub fn new<T: AsRef<[u8]>>(patterns: &[T]) -> Result<Rules> {
        let mut found = Rules::default();
        for text in patterns {
            let text = text.as_ref().trim_ascii();
            if text.is_empty() {
                continue;
            }
            let text = clean(text);
            let (text, is_exception) = match text.strip_prefix(b"!") {
                Some([]) => return Err(Fault::input("a pattern is just \"!\": an exception to nothing")),
                Some(rest) => (rest, true),
                None => (text.as_slice(), false),
            };
            found.has_exceptions |= is_exception;
            found.rules.push(Rule { pattern: Pattern::new(text, Syntax::Ignore)?, is_exception });
            if found.rules.len() > MAX_RULES {
                return Err(Fault::input(format!("there are more than {MAX_RULES} patterns")));
            }
        }
        Ok(found)
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule by which a path counts as matched, if it does; `above` is what [`Rules::below`] said of the directory it lies in.
    pub fn matched(&self, path: &[u8], above: &Above) -> Option<&[u8]> {
        self.look(path, above, |_| {}).map(|rule| self.rules[rule].pattern.text())
    }

    /// The same of a directory, with what to pass on to what is in it.
    pub fn below(&self, path: &[u8], above: &Above) -> (Option<&[u8]>, Above) {
        let mut found = Above::default();
        let matched = self.look(path, above, |rule| found.add(rule));
        (matched.map(|rule| self.rules[rule].pattern.text()), found)
    }

    fn look(&self, path: &[u8], above: &Above, mut fits: impl FnMut(usize)) -> Option<usize> {
        let mut matched = None;
        for (at, rule) in self.rules.iter().enumerate() {
            let inherited = above.has(at);
            // A rule that would change nothing is not looked at, nor passed on to what is below: with `**/c` and `!a` the file a/c is
            // ignored. The documentation can be read otherwise, but this is what BuildKit does (`MatchesUsingParentResults`).
            if !inherited && rule.is_exception != matched.is_some() {
                continue;
            }
            if inherited || rule.pattern.fits(path) {
                fits(at);
                matched = (!rule.is_exception).then_some(at);
            }
        }
        matched
    }

    /// The rule by which a path counts as matched, by itself or by a directory it lies in.
    pub fn find(&self, path: &[u8]) -> Option<&[u8]> {
        let mut above = Above::default();
        for (at, byte) in path.iter().enumerate() {
            if *byte == b'/' {
                above = self.below(&path[..at], &above).1;
            }
        }
        self.matched(path, &above)
    }

    /// Whether in a directory that counts as matched an exception may be met.
    pub fn excepts_below(&self, dir: &[u8]) -> bool {
        self.has_exceptions && self.rules.iter().any(|rule| rule.is_exception && rule.pattern.fits_below(dir))
    }

    /// Whether in a directory that does not count as matched something may.
    pub fn matches_below(&self, dir: &[u8]) -> bool {
        self.rules.iter().any(|rule| !rule.is_exception && rule.pattern.fits_below(dir))
    }
}

/// The shortest name of the same path, by its text alone (Go's `path.Clean`).
pub fn clean(path: &[u8]) -> Vec<u8> {
    let is_absolute = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => {
                    parts.pop();
                }
                _ if is_absolute => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (is_absolute, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}
