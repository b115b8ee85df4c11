//! `HEALTHCHECK`.

use super::Healthcheck;
use super::flags::{Flags, Kind};
use crate::parser::{Arguments, Node};
use crate::{Problem, suggest};
use std::time::Duration;

const FLAGS: [(&str, Kind); 5] = [
    ("interval", Kind::One),
    ("timeout", Kind::One),
    ("start-period", Kind::One),
    ("start-interval", Kind::One),
    ("retries", Kind::One),
];

pub fn healthcheck(node: &Node) -> Result<Healthcheck, Problem> {
    let mut flags = Flags::read(&node.flags, &FLAGS)?;
    let (words, is_json) = match &node.arguments {
        Arguments::Json(words) => (words.as_slice(), true),
        Arguments::Words(words) => (words.as_slice(), false),
        _ => (&[][..], false),
    };
    let Some((kind, command)) = words.split_first() else {
        return Err(Problem::new("HEALTHCHECK requires at least one argument"));
    };
    match kind.to_ascii_uppercase().as_str() {
        // Its flags mean nothing and docker takes them.
        "NONE" if command.is_empty() => {
            return Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
        }
        "NONE" => return Err(Problem::new("HEALTHCHECK NONE takes no arguments")),
        "CMD" if command.is_empty() => {
            return Err(Problem::new("a command is missing after HEALTHCHECK CMD"));
        }
        "CMD" => {}
        other => {
            let problem = Problem::new(format!("unknown type {other:?} in HEALTHCHECK"));
            return Err(match suggest::hint(other, ["CMD", "NONE"]) {
                Some(hint) => problem.hint(hint),
                None => problem.hint("CMD and a command, or NONE"),
            });
        }
    }
    let kind = if is_json { "CMD" } else { "CMD-SHELL" };
    Ok(Healthcheck {
        test: std::iter::once(kind.to_owned()).chain(command.iter().cloned()).collect(),
        interval: duration(&mut flags, "interval")?,
        timeout: duration(&mut flags, "timeout")?,
        start_period: duration(&mut flags, "start-period")?,
        start_interval: duration(&mut flags, "start-interval")?,
        retries: retries(&mut flags)?,
    })
}

/// A length of time with a unit; zero is what was not given.
fn duration(flags: &mut Flags, name: &str) -> Result<Duration, Problem> {
    let Some(text) = flags.one(name) else { return Ok(Duration::ZERO) };
    let malformed = |why: &str| {
        Problem::new(format!("--{name}={}: {why}", crate::problem::shorten(&text)))
            .hint("numbers with a unit each, of ns, us, ms, s, m and h: 1m30s, 500ms")
    };
    if text != "0" && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(malformed("the unit is missing"));
    }
    let time = oci::wishes::health::duration(&text).map_err(|_| malformed("not a length of time"))?;
    if !time.is_zero() && time < Duration::from_millis(1) {
        return Err(malformed("shorter than a millisecond"));
    }
    if i64::try_from(time.as_nanos()).is_err() {
        return Err(malformed("too long"));
    }
    Ok(time)
}

fn retries(flags: &mut Flags) -> Result<u32, Problem> {
    let Some(text) = flags.one("retries") else { return Ok(0) };
    text.parse::<u32>().ok().filter(|number| i32::try_from(*number).is_ok()).ok_or_else(|| {
        Problem::new(format!("--retries={} is not a number of times", crate::problem::shorten(&text)))
    })
}
