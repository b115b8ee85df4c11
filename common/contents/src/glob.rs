//! Paths and patterns of paths.

/// A path from the root, which stands for itself and all below it; or a pattern of one: `*` and `?` and `[a-z]` do not stand for
/// `/`, `**` stands for any number of directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Vec<u8>,
    components: Vec<Vec<u8>>,
}

impl Pattern {
    /// What a user wrote; a slash in front or at the end says nothing more.
    pub fn new(text: impl AsRef<[u8]>) -> Pattern {
        let text = text.as_ref();
        let components = text.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
        Pattern { text: text.to_vec(), components: components.map(<[u8]>::to_vec).collect() }
    }

    /// As it was written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether it is no pattern but a path.
    pub fn is_literal(&self) -> bool {
        !self.text.iter().any(|b| b"*?[".contains(b))
    }

    /// Whether a path (without a slash in front), or a directory it lies in, fits.
    pub fn fits(&self, path: &[u8]) -> bool {
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
        // Which first components of the pattern fit what was seen of the path so far.
        let count = self.components.len();
        let mut fitting = vec![false; count + 1];
        fitting[0] = true;
        self.pass_stars(&mut fitting);
        for part in parts {
            if fitting[count] {
                return true;
            }
            let mut next = vec![false; count + 1];
            for (at, component) in self.components.iter().enumerate() {
                if !fitting[at] {
                    continue;
                }
                if component == b"**" {
                    next[at] = true;
                } else if component_fits(component, part) {
                    next[at + 1] = true;
                }
            }
            self.pass_stars(&mut next);
            fitting = next;
        }
        fitting[count]
    }

    /// `**` also stands for no directory.
    fn pass_stars(&self, fitting: &mut [bool]) {
        for (at, component) in self.components.iter().enumerate() {
            if fitting[at] && component == b"**" {
                fitting[at + 1] = true;
            }
        }
    }
}

/// Goes back to the last `*` only, which is enough and takes no more than the product of the lengths.
fn component_fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(after) = one(pattern, p, name[n]) {
            p = after;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Where the pattern goes on if what is at `at` fits one byte.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => {
            let end = at + 2 + pattern.get(at + 2..)?.iter().position(|b| *b == b']')?;
            let set = &pattern[at + 1..end];
            let (not, set) = match set {
                [b'!' | b'^', rest @ ..] if !rest.is_empty() => (true, rest),
                set => (false, set),
            };
            let mut within = false;
            let mut index = 0;
            while index < set.len() {
                if let [low, b'-', high, ..] = set[index..] {
                    within |= (low..=high).contains(&byte);
                    index += 3;
                } else {
                    within |= set[index] == byte;
                    index += 1;
                }
            }
            (within != not).then_some(end + 1)
        }
        b'\\' => (pattern.get(at + 1) == Some(&byte)).then_some(at + 2),
        other => (*other == byte).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_paths() {
        for (pattern, path, fits) in [
            ("etc", "etc", true),
            ("/etc/", "etc/passwd", true),
            ("etc", "etcetera", false),
            ("/", "anything", true),
            ("etc/*.conf", "etc/a.conf", true),
            ("etc/*.conf", "etc/a/b.conf", false),
            ("etc/*.d", "etc/a.d/b", true),
            ("**/*.so", "usr/lib/a.so", true),
            ("**/*.so", "a.so", true),
            ("usr/**/x", "usr/x", true),
            ("usr/**/x", "usr/a/b/x/y", true),
            ("usr/**", "usr", true),
            ("u?r", "usr", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]x", "]x", true),
            ("[x", "[x", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*", ".hidden", true),
            ("x\\*", "x*", true),
            ("x\\*", "xy", false),
            ("./etc", "etc/passwd", true),
        ] {
            assert_eq!(Pattern::new(pattern).fits(path.as_bytes()), fits, "{pattern} {path}");
        }
        assert!(Pattern::new("/etc/passwd").is_literal());
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let pattern = Pattern::new(format!("{}b", "*a".repeat(2000)));
        assert!(!pattern.fits(&[b'a'; 255]));
        let pattern = Pattern::new("**/".repeat(1000));
        assert!(pattern.fits(&b"a/".repeat(2000)));
    }
}
