//! `--chmod`: octal, or the words of chmod(1) (POSIX, "chmod", EXTENDED DESCRIPTION).

use fault::{Fault, Result};

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;

/// What permissions become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chmod(How);

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Octal(u32),
    Words(Vec<Clause>),
}

/// One operation: `u+x` has one, `g=u-w` two.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    /// Bits that may be touched, of all twelve.
    who: u32,
    operator: u8,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// Permission bits, as for everybody; whether `X` is among them.
    Bits(u32, bool),
    /// Those of the owner, the group or others, by how far they are from the right.
    CopyOf(u32),
}

impl Chmod {
    /// `0755`, `u=rwX,go=rX`.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for anything else.
    pub fn parse(text: &str) -> Result<Chmod> {
        let bad = || {
            Fault::input(format!("malformed mode {text:?}"))
                .hint("octal from 0 to 07777, or words as of chmod(1): u=rwX,go=rX")
        };
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            return if mode <= 0o7777 { Ok(Chmod(How::Octal(mode))) } else { Err(bad()) };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            read_part(part.as_bytes(), &mut clauses).ok_or_else(bad)?;
        }
        Ok(Chmod(How::Words(clauses)))
    }

    /// The permissions of something that had `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match &self.0 {
            How::Octal(octal) => *octal,
            How::Words(clauses) => {
                clauses.iter().fold(mode & 0o7777, |mode, clause| clause.apply(mode, is_directory))
            }
        }
    }

    /// Those of directories made on the way: words change what is, and there is nothing yet.
    pub fn of_new_directory(&self) -> u32 {
        match self.0 {
            How::Octal(octal) => octal,
            How::Words(_) => 0o755,
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits(bits, conditional) => {
                let may_run = is_directory || mode & 0o111 != 0;
                bits | if conditional && may_run { 0o111 } else { 0 }
            }
            What::CopyOf(from) => ((mode >> from) & 7) * 0o111,
        };
        let bits = bits & self.who;
        match self.operator {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            // What a directory has of set-id stays unless it is named, as with GNU's; of files nothing stays.
            _ => {
                let kept = if is_directory { SET_ID } else { 0 };
                mode & !(self.who & !kept) | bits
            }
        }
    }
}

fn read_part(part: &[u8], clauses: &mut Vec<Clause>) -> Option<()> {
    let operators = part.iter().position(|byte| b"+-=".contains(byte))?;
    let mut who = 0;
    for letter in &part[..operators] {
        who |= match letter {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o1007,
            b'a' => 0o7777,
            _ => return None,
        };
    }
    // Nobody named is everybody: a build has no umask.
    if operators == 0 {
        who = 0o7777;
    }
    let mut rest = &part[operators..];
    while let [operator @ (b'+' | b'-' | b'='), after @ ..] = rest {
        let end = after.iter().position(|byte| b"+-=".contains(byte)).unwrap_or(after.len());
        clauses.push(Clause { who, operator: *operator, what: read_what(&after[..end])? });
        rest = &after[end..];
    }
    Some(())
}

fn read_what(letters: &[u8]) -> Option<What> {
    match letters {
        b"u" => return Some(What::CopyOf(6)),
        b"g" => return Some(What::CopyOf(3)),
        b"o" => return Some(What::CopyOf(0)),
        _ => {}
    }
    let (mut bits, mut conditional) = (0, false);
    for letter in letters {
        match letter {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b's' => bits |= SET_ID,
            b't' => bits |= STICKY,
            b'X' => conditional = true,
            _ => return None,
        }
    }
    Some(What::Bits(bits, conditional))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_with_chmod() {
        for (text, before, directory, after) in [
            ("0755", 0o600, false, 0o755),
            ("7", 0o600, true, 0o7),
            ("04755", 0o600, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("-w", 0o666, false, 0o444),
            ("go-rwx", 0o777, true, 0o700),
            ("g=u", 0o750, false, 0o770),
            ("o=g-w", 0o470, false, 0o475),
            ("u+s", 0o755, false, 0o4755),
            ("ug+s", 0o755, false, 0o6755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o777, true, 0o1777),
            ("u=rw", 0o4755, false, 0o655),
            ("a=rx", 0o2777, true, 0o2555),
            ("a=", 0o777, false, 0),
            ("u+r,u-x", 0o100, false, 0o400),
            ("u=x,g=u", 0o640, false, 0o110),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(chmod.apply(before, directory), after, "{text} {before:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for bad in [
            "",
            "8",
            "0o755",
            "10000",
            "77777777777",
            "rwx",
            "u",
            "u=q",
            "x=r",
            "u=rw,",
            ",u=r",
            "u=gr",
            "-1",
            "0755 ",
        ] {
            assert!(Chmod::parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_permissions_comes_out(text in "[ugoa]{0,3}[-+=][rwxXstugo]{0,4}(,[ugoa]{0,2}[-+=][rwxXst]{0,4})?", mode in 0u32..0o10000, dir: bool) {
            if let Ok(chmod) = Chmod::parse(&text) {
                let after = chmod.apply(mode, dir);
                proptest::prop_assert_eq!(after & !0o7777, 0);
                // An assignment or a removal done twice is done once; so is an addition.
                if !text.contains(',') {
                    proptest::prop_assert_eq!(chmod.apply(after, dir), chmod.apply(chmod.apply(after, dir), dir));
                }
            }
        }
    }
}
