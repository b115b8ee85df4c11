//! Being a helper.

use crate::{Login, MAX_BYTES, NOT_FOUND};
use clap::{Arg, Command};
use fault::{Explain, Fault, Kind, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};

/// Where a helper keeps what it is given.
pub trait Keychain {
    /// # Errors
    /// [`Kind::NotFound`] when it keeps nothing for the server.
    fn get(&self, server: &str) -> Result<Login>;
    fn store(&self, login: &Login) -> Result<()>;
    /// # Errors
    /// [`Kind::NotFound`] when it keeps nothing for the server.
    fn erase(&self, server: &str) -> Result<()>;
    /// User names by server.
    fn list(&self) -> Result<BTreeMap<String, String>>;
}

/// The command line of a helper.
pub fn command(name: &'static str, about: &'static str) -> Command {
    let action = |name: &'static str, about: &'static str| Command::new(name).about(about);
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(action("get", "Read a server's address from stdin, print its login as JSON"))
        .subcommand(action(
            "store",
            "Read a login as JSON (ServerURL, Username, Secret) from stdin and keep it",
        ))
        .subcommand(action("erase", "Read a server's address from stdin and forget its login"))
        .subcommand(action("list", "Print the servers and their user names as one JSON object"))
        .subcommand(action("version", "Print the version").arg(Arg::new("ignored").hide(true).num_args(0..)))
}

/// One call: an action, stdin, stdout. Returns the exit status.
///
/// Failures go to stdout, where the protocol has them; what helps a person goes to stderr.
pub fn main(
    command: Command,
    arguments: &[OsString],
    open: impl FnOnce() -> Result<Box<dyn Keychain>>,
) -> u8 {
    let name = command.get_name().to_owned();
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&name, &error),
    };
    let action = matches.subcommand_name().unwrap_or_default();
    let done = match action {
        "version" => Ok(format!("{name} (staves) v{}\n", env!("CARGO_PKG_VERSION"))),
        _ => open().and_then(|keychain| act(&*keychain, action, io::stdin().lock())),
    };
    match done {
        Ok(text) => match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Err(fault) => {
            let text = if fault.kind() == Kind::NotFound { NOT_FOUND.to_owned() } else { fault.to_string() };
            let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            let _ = writeln!(io::stdout(), "{text}");
            if let Some(hint) = fault.hint_text() {
                let _ = writeln!(io::stderr(), "hint: {hint}");
            }
            1
        }
    }
}

/// Help and version go to stdout; anything else is one line, as of all tools, and a way out.
fn usage(name: &str, error: &clap::Error) -> u8 {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    // With the output gone there is nobody left to tell, here and below.
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let what = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option))
            if error.kind() == ErrorKind::UnknownArgument && option.starts_with('-') =>
        {
            format!("unknown option {option}")
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    };
    let _ = writeln!(io::stderr(), "{name}: {what}\nhint: `{name} --help` tells all");
    2
}

fn act(keychain: &dyn Keychain, action: &str, input: impl Read) -> Result<String> {
    match action {
        "list" => json(&keychain.list()?),
        "store" => {
            let bytes = read(input)?;
            // The parser's message would quote what is around the error, a secret perhaps.
            let login: Login = serde_json::from_slice(&bytes).map_err(|_| {
                Fault::input("stdin is not a login: a JSON object of ServerURL, Username, Secret")
            })?;
            check_server(&login.server)?;
            if login.user.is_empty() {
                return Err(Fault::input("no credentials username"));
            }
            keychain.store(&login)?;
            Ok(String::new())
        }
        _ => {
            let bytes = read(input)?;
            let text = String::from_utf8(bytes).ok();
            let server =
                text.as_deref().ok_or_else(|| Fault::input("the server's address is not text"))?.trim();
            check_server(server)?;
            if action == "erase" {
                keychain.erase(server)?;
                return Ok(String::new());
            }
            json(&keychain.get(server)?)
        }
    }
}

fn read(input: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).explain(|| "read stdin".to_owned())?;
    if bytes.len() > MAX_BYTES {
        return Err(Fault::input("stdin holds more than a megabyte"));
    }
    Ok(bytes)
}

/// An address is one line: what is kept by it may be kept in lines.
fn check_server(server: &str) -> Result<()> {
    if server.is_empty() {
        return Err(Fault::input("no credentials server URL"));
    }
    if server.len() > 2048 || server.chars().any(char::is_control) {
        return Err(Fault::input("the server's address is too long or has control characters"));
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string(value).explain(|| "write credentials".to_owned())? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[derive(Default)]
    struct InMemory(RefCell<BTreeMap<String, Login>>);

    impl Keychain for InMemory {
        fn get(&self, server: &str) -> Result<Login> {
            self.0.borrow().get(server).cloned().ok_or_else(|| Fault::not_found("none"))
        }

        fn store(&self, login: &Login) -> Result<()> {
            self.0.borrow_mut().insert(login.server.clone(), login.clone());
            Ok(())
        }

        fn erase(&self, server: &str) -> Result<()> {
            self.0.borrow_mut().remove(server).map(drop).ok_or_else(|| Fault::not_found("none"))
        }

        fn list(&self) -> Result<BTreeMap<String, String>> {
            Ok(self.0.borrow().values().map(|login| (login.server.clone(), login.user.clone())).collect())
        }
    }

    #[test]
    fn the_protocol_is_spoken() {
        let keychain = InMemory::default();
        let text = r#"{"ServerURL":"https://r.example","Username":"u","Secret":"s\n"}"#;
        assert_eq!(act(&keychain, "store", text.as_bytes()).unwrap(), "");
        assert_eq!(act(&keychain, "get", &b"https://r.example\n"[..]).unwrap(), format!("{text}\n"));
        assert_eq!(act(&keychain, "list", &b""[..]).unwrap(), "{\"https://r.example\":\"u\"}\n");
        act(&keychain, "erase", &b"https://r.example"[..]).unwrap();
        assert_eq!(act(&keychain, "get", &b"https://r.example"[..]).unwrap_err().kind(), Kind::NotFound);
        for (action, input) in [
            ("get", ""),
            ("get", "a\nb"),
            ("store", "hunter2"),
            ("store", r#"{"Username":"u"}"#),
            ("store", r#"{"ServerURL":"r"}"#),
            ("store", "{\"ServerURL\":\"r\\nx\",\"Username\":\"u\"}"),
        ] {
            let fault = act(&keychain, action, input.as_bytes()).unwrap_err();
            assert_eq!(fault.kind(), Kind::Input, "{input}");
            assert!(!fault.to_string().contains("hunter2"));
        }
        assert_eq!(act(&keychain, "get", io::repeat(b'x')).unwrap_err().kind(), Kind::Input);
    }
}
