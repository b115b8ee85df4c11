//! Forget logins to registries.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result};
use record::Record;
use registry::login::{Account, Place};
use registry::{Client, Options};
use serde_json::json;
use std::path::PathBuf;

/// Forget logins to registries
///
/// Takes a login out of the credential helper that is configured for the registry and out of the file. Other files that podman and
/// skopeo read are left alone; one that has a login too is named.
#[derive(Debug, clap::Parser)]
#[command(
    name = "reg-logout",
    version,
    after_help = "Examples:\n  reg-logout\n  reg-logout registry.example:5000\n  reg-logout --all --authfile ./auth.json"
)]
pub struct Args {
    /// The registry, or a part of one, as given to reg-login
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,

    /// Forget all logins the file has or knows a helper of
    #[arg(short, long, conflicts_with = "registry")]
    pub all: bool,

    /// The file of logins [default: $REGISTRY_AUTH_FILE, else docker's config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "reg-logout", common);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let place = Place::new(args.authfile.as_deref())?;
    let client = Client::new(Options::default());
    let accounts = if args.all { client.accounts(&place)? } else { vec![Account::parse(&args.registry)?] };
    context.each(accounts, |context, account| {
        log_out(&client, &place, &account, args.all, context).map_err(|fault| fault.on(account.to_string()))
    });
    Ok(())
}

fn log_out(
    client: &Client,
    place: &Place,
    account: &Account,
    is_one_of_all: bool,
    context: &mut Context,
) -> Result<()> {
    let was_there = client.forget_login(place, account)?;
    if let Some(file) = client.elsewhere(place, account) {
        context.warn(&account.to_string(), &format!("{} still has a login", file.display()));
    }
    if !was_there {
        // A registry the file only knows a helper of.
        return if is_one_of_all { Ok(()) } else { Err(Fault::not_found("not logged in")) };
    }
    let mut record = Record::new();
    record.set("logout", &json!({"registry": account.to_string()}))?;
    let name = account.to_string();
    context.print_result(&record, &name, &format!("logged out of {name}"))
}
