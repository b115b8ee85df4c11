//! Log in to a registry.
#![forbid(unsafe_code)]

mod terminal;

use clap::ArgAction;
use cli::{Common, Context, Explain, Fault, Kind, OutputMode, Result};
use record::Record;
use registry::login::{Account, Answer, Place};
use registry::{Client, Options};
use serde_json::json;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

/// Longer is no password or token.
const MAX_PASSWORD_BYTES: u64 = 256 << 10;

/// Log in to a registry
///
/// Asks the registry whether the login holds, then keeps it where docker, podman and skopeo find it too: with the credential helper
/// that is configured (`credsStore`, `credHelpers`; `credential-helpers` of registries.conf), else in docker's config.json or the
/// file REGISTRY_AUTH_FILE names. Without a name and a password a login that is kept already is checked, or both are asked for on the
/// terminal.
#[derive(Debug, clap::Parser)]
#[command(
    name = "reg-login",
    version,
    args_override_self = true,
    after_help = "Examples:\n  reg-login\n  pass show work/registry | reg-login -u me --password-stdin registry.example:5000\n  reg-login --get-login -q quay.io\n  reg-login -u robot --password-stdin --authfile ./auth.json quay.io/team <token"
)]
pub struct Args {
    /// The registry, or a part of one: quay.io, registry.example:5000, quay.io/team
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,

    /// Name of the user
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,

    /// Password or token; everybody on this machine can read it in the list of processes
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,

    /// Read the password from stdin
    #[arg(long)]
    pub password_stdin: bool,

    /// Print the name of the user logged in, and do nothing
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    pub get_login: bool,

    /// Keep the login in this file [default: $REGISTRY_AUTH_FILE, else docker's config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    /// Use the certificates in this directory in place of those in certs.d
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Check certificates, and speak plain HTTP to registries on this machine only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub tls_verify: bool,

    /// Print only the user's name
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "reg-login", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let account = Account::parse(&args.registry)?;
    let place = Place::new(args.authfile.as_deref())?;
    let options = Options { tls_verify: args.tls_verify, ..Options::default() };
    let client = Client::with_certificates(options, args.cert_dir.clone());
    let named = |fault: Fault| fault.on(account.to_string());
    if args.get_login {
        return print_user(&client, &place, &account, context).map_err(named);
    }
    if args.password.is_some() {
        context.warn(
            "",
            "everybody on this machine can read -p in the list of processes; there is --password-stdin",
        );
    }
    if args.username.is_none() && args.password.is_none() && !args.password_stdin {
        match client.check_kept_login(&place, &account) {
            Ok(Some(_)) => {
                let user = client.user_of(&place, &account)?.unwrap_or_default();
                return print(&account, &user, None, context);
            }
            // One that does not hold any more is what this is called for.
            Err(fault) if fault.kind() != Kind::Denied => return Err(named(fault)),
            _ => {}
        }
    }
    let (user, password) = ask(args, &account)?;
    log_in(&client, &place, &account, &user, &password, context).map_err(named)
}

fn log_in(
    client: &Client,
    place: &Place,
    account: &Account,
    user: &str,
    password: &str,
    context: &mut Context,
) -> Result<()> {
    if client.check_login(account, user, password)? == Answer::NotAsked {
        context.warn(&account.to_string(), "the registry asks for no login: this one is kept unchecked");
    }
    let kept_in = client.keep_login(place, account, user, password)?;
    if let Some(file) = client.elsewhere(place, account).filter(|file| file.display().to_string() != kept_in)
    {
        context.warn(
            &account.to_string(),
            &format!("{} has a login too, which podman, skopeo and img-pull take first", file.display()),
        );
    }
    print(account, user, Some(&kept_in), context)
}

/// The name and the password: from the flags, stdin, or the terminal.
fn ask(args: &Args, account: &Account) -> Result<(String, String)> {
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin || args.password.is_some() => {
            return Err(Fault::usage("a password is given, and no name of a user").hint("-u USER"));
        }
        None => terminal::ask(&format!("User name for {account}: "))?,
    };
    // What comes before the first colon is the name (RFC 7617, section 2).
    if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
        return Err(Fault::usage("the user's name is empty, or has a colon or control characters in it"));
    }
    let password = if let Some(password) = &args.password {
        password.clone()
    } else if args.password_stdin {
        from_stdin()?
    } else {
        terminal::ask_secretly(&format!("Password of {user}: "))?
    };
    if password.is_empty() {
        return Err(Fault::usage("the password is empty"));
    }
    if password.contains('\0') {
        return Err(Fault::usage("the password has a NUL character in it"));
    }
    Ok((user, password))
}

fn from_stdin() -> Result<String> {
    if std::io::stdin().is_terminal() {
        return Err(Fault::usage("--password-stdin, and stdin is a terminal").hint("pipe the password in"));
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_PASSWORD_BYTES + 1).read_to_end(&mut bytes);
    read.explain(|| "read the password from stdin".to_owned())?;
    if bytes.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(Fault::input("there is more on stdin than a password"));
    }
    let text = String::from_utf8(bytes).map_err(|_| Fault::input("the password on stdin is not UTF-8"))?;
    // As docker does: the line's end is not the password's.
    Ok(text.trim_end_matches('\n').trim_end_matches('\r').to_owned())
}

fn print_user(client: &Client, place: &Place, account: &Account, context: &mut Context) -> Result<()> {
    let user = client.user_of(place, account)?.ok_or_else(|| Fault::not_found("not logged in"))?;
    match context.mode() {
        OutputMode::Json => print(account, &user, None, context),
        _ => context.print(&format!("{user}\n")),
    }
}

fn print(account: &Account, user: &str, kept_in: Option<&str>, context: &mut Context) -> Result<()> {
    let mut record = Record::new();
    let mut login = json!({"registry": account.to_string(), "user": user});
    if let Some(kept_in) = kept_in {
        login["kept_in"] = kept_in.into();
    }
    record.set("login", &login)?;
    let words = format!("logged in to {account} as {user}");
    let words = kept_in.map_or(words.clone(), |kept_in| format!("{words}; kept in {kept_in}"));
    context.print_result(&record, user, &words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn flags_are_checked_before_anything_is_done() {
        let parse = |words: &[&str]| Args::try_parse_from(std::iter::once(&"reg-login").chain(words));
        assert_eq!(parse(&[]).unwrap().registry, "docker.io");
        assert!(parse(&["-p", "x", "--password-stdin"]).is_err());
        assert!(parse(&["--get-login", "-u", "x"]).is_err());
        let account = Account::parse("r.example").unwrap();
        for words in
            [&["-p", "x"][..], &["-u", "a:b", "-p", "x"], &["-u", "a", "-p", ""], &["-u", "", "-p", "x"]]
        {
            assert_eq!(ask(&parse(words).unwrap(), &account).unwrap_err().kind(), Kind::Usage, "{words:?}");
        }
    }
}
