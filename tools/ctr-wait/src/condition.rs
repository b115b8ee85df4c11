//! `--for`: what is waited for.

use cli::{Fault, Result};
use regex_lite::{Regex, RegexBuilder};

/// Bytes of a compiled expression: what is given on a command line is far below.
const LARGEST_REGEX: usize = 1 << 20;

#[derive(Clone, Debug)]
pub enum Condition {
    Running,
    Healthy,
    Exited,
    /// Somebody listens on it in the container.
    Port {
        number: u16,
        protocol: Protocol,
    },
    /// A line of the present run's output matches.
    Log(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Condition {
    pub fn parse(text: &str) -> Result<Condition> {
        let wrong = |why: &str| Fault::usage(format!("--for {text}: {why}"));
        match text.split_once(':') {
            None => match text {
                "running" => Ok(Condition::Running),
                "healthy" => Ok(Condition::Healthy),
                "exited" => Ok(Condition::Exited),
                _ => Err(wrong("there is no such condition")
                    .hint("running, healthy, exited, port:NUMBER[/udp] or log:REGEX")),
            },
            Some(("port", port)) => {
                let (number, protocol) = match port.split_once('/') {
                    None | Some((_, "tcp")) => (port.trim_end_matches("/tcp"), Protocol::Tcp),
                    Some((number, "udp")) => (number, Protocol::Udp),
                    Some(_) => return Err(wrong("the protocol is tcp or udp")),
                };
                let number = number.parse().ok().filter(|number| *number > 0);
                let number = number.ok_or_else(|| wrong("a port is a number from 1 to 65535"))?;
                Ok(Condition::Port { number, protocol })
            }
            Some(("log", pattern)) => RegexBuilder::new(pattern)
                .size_limit(LARGEST_REGEX)
                .build()
                .map(Condition::Log)
                .map_err(|error| wrong("not a regular expression").because(error)),
            Some(_) => Err(wrong("there is no such condition")
                .hint("running, healthy, exited, port:NUMBER[/udp] or log:REGEX")),
        }
    }

    /// What it is called in messages.
    pub fn words(&self) -> String {
        match self {
            Condition::Running => "it ran".to_owned(),
            Condition::Healthy => "it was healthy".to_owned(),
            Condition::Exited => "it had ended".to_owned(),
            Condition::Port { number, protocol } => {
                let protocol = if *protocol == Protocol::Tcp { "tcp" } else { "udp" };
                format!("anything in it listened on port {number}/{protocol}")
            }
            Condition::Log(pattern) => format!("a line it printed matched {:?}", pattern.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_as_people_write_them() {
        assert!(matches!(Condition::parse("running"), Ok(Condition::Running)));
        assert!(matches!(
            Condition::parse("port:80"),
            Ok(Condition::Port { number: 80, protocol: Protocol::Tcp })
        ));
        assert!(matches!(Condition::parse("port:80/tcp"), Ok(Condition::Port { number: 80, .. })));
        assert!(matches!(
            Condition::parse("port:53/udp"),
            Ok(Condition::Port { protocol: Protocol::Udp, .. })
        ));
        let Ok(Condition::Log(pattern)) = Condition::parse("log:^ready: [0-9]+$") else { panic!() };
        assert!(pattern.is_match("ready: 17") && !pattern.is_match("not ready: 17"));
        for bad in [
            "",
            "happy",
            "port:",
            "port:0",
            "port:70000",
            "port:80/sctp",
            "log:(",
            "x:y",
            "log:(((a{99}){99}){99}){99}",
        ] {
            assert_eq!(Condition::parse(bad).unwrap_err().kind(), cli::Kind::Usage, "{bad}");
        }
    }
}
