//! Signals by name or number (signal(7)).

use fault::{Fault, Result};

/// Names by number, 1 to 31, without `SIG`. The numbers are those of x86, arm and most others.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// glibc keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`; the number.
pub fn signal(text: &str) -> Result<i32> {
    by_number(text).or_else(|| by_name(text)).ok_or_else(|| {
        Fault::input(format!("no signal is called \"{text}\""))
            .hint("a name or number as in signal(7): TERM, SIGKILL, 9, RTMIN+3")
    })
}

/// `SIGTERM` for 15; `None` when no signal has the number.
pub fn signal_name(number: i32) -> Option<String> {
    if (RTMIN..=RTMAX).contains(&number) {
        return Some(match number - RTMIN {
            0 => "SIGRTMIN".to_owned(),
            offset => format!("SIGRTMIN+{offset}"),
        });
    }
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    NAMES.get(index).map(|name| format!("SIG{name}"))
}

fn by_number(text: &str) -> Option<i32> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| (1..=RTMAX).contains(number))
}

fn by_name(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|name| *name == bare) {
        return i32::try_from(index + 1).ok();
    }
    match bare {
        "IOT" => return Some(6),
        "POLL" => return Some(29),
        "CLD" => return Some(17),
        _ => {}
    }
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() {
            return Some(0);
        }
        let digits = rest.strip_prefix(sign)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok()
    };
    let number = if let Some(rest) = bare.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(bare.strip_prefix("RTMAX")?, '-')?)?
    };
    Some(number).filter(|number| (RTMIN..=RTMAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("15", 15),
            ("Int", 2),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
            ("CLD", 17),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for text in [
            "",
            "SIG",
            "0",
            "-1",
            "65",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN+",
            "RTMIN-1",
            "RTMIN++1",
            "TERMINATE",
            "99999999999",
        ] {
            assert!(signal(text).is_err(), "{text}");
        }
        for number in 1..=64 {
            if let Some(name) = signal_name(number) {
                assert_eq!(signal(&name).unwrap(), number);
            }
        }
        assert_eq!(signal_name(0), None);
        assert_eq!(signal_name(i32::MIN), None);
    }
}
