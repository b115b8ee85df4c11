//! The addresses a container had, which it is to have again or not.

use crate::Args;
use cli::Result;
use record::{Attachment, Extra, Record};
use store::ContainerDir;

/// Members of `config` that ask for addresses.
const ADDRESSES: [&str; 2] = ["ip", "ip6"];
const HARDWARE_ADDRESSES: [&str; 2] = ["mac_address", "mac"];

/// Takes wishes for addresses out of a record that are not to be heeded.
///
/// # Errors
/// For a record without a usable `config`.
pub fn ignore(args: &Args, record: &mut Record) -> Result<()> {
    let members = ADDRESSES.iter().filter(|_| args.ignore_static_ip);
    let members: Vec<_> =
        members.chain(HARDWARE_ADDRESSES.iter().filter(|_| args.ignore_static_mac)).collect();
    let Some(mut config) = record.get::<Extra>("config")? else { return Ok(()) };
    let before = config.len();
    for member in members {
        config.shift_remove(*member);
    }
    let mut changed = config.len() < before;
    let wishes = config.get_mut("networks").and_then(serde_json::Value::as_array_mut);
    for wish in wishes.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
        for (member, ignored) in
            [("ip", args.ignore_static_ip), ("ip6", args.ignore_static_ip), ("mac", args.ignore_static_mac)]
        {
            changed |= ignored && wish.shift_remove(member).is_some();
        }
    }
    if changed {
        record.set("config", &config)?;
    }
    Ok(())
}

/// What net-attach is told of an earlier attachment: the network, and the address to be preferred, which connections that are restored need.
///
/// # Errors
/// For a record without usable `networks`.
pub fn earlier(args: &Args, record: &Record) -> Result<Vec<Attachment>> {
    let attachment = |one: Attachment| Attachment {
        name: one.name,
        addresses: if args.ignore_static_ip { Vec::new() } else { one.addresses },
        mac: one.mac.filter(|_| !args.ignore_static_mac),
        ..Attachment::default()
    };
    Ok(record.networks()?.into_iter().map(attachment).collect())
}

/// The same for a container that is here.
pub fn forget(args: &Args, dir: &ContainerDir) -> Result<()> {
    if !args.ignore_static_ip && !args.ignore_static_mac {
        return Ok(());
    }
    dir.update(|record| {
        ignore(args, record)?;
        let mut networks = record.networks()?;
        for attachment in &mut networks {
            if args.ignore_static_ip {
                attachment.addresses.clear();
            }
            if args.ignore_static_mac {
                attachment.mac = None;
            }
        }
        if record.contains("networks") { record.set("networks", &networks) } else { Ok(()) }
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn addresses_are_kept_unless_they_are_to_be_ignored() {
        let text = r#"{"config":{"ip":"10.89.0.7","mac_address":"02:00:00:00:00:07","networks":[{"name":"bridge","ip":"10.89.0.7","mac":"02:00:00:00:00:07"}],"tty":true},"networks":[{"name":"bridge","addresses":["10.89.0.7/16"],"mac":"m","gateway":"g","ports":[{"host":80,"container":80,"protocol":"tcp"}]}]}"#;
        let record = Record::parse(text).unwrap();
        let args = Args::parse_from(["ctr-restore", "x"]);
        let kept = earlier(&args, &record).unwrap();
        assert_eq!((kept[0].addresses.len(), kept[0].ports.len(), kept[0].mac.is_some()), (1, 0, true));
        let mut same = record.clone();
        ignore(&args, &mut same).unwrap();
        assert_eq!(same.to_line(), record.to_line());
        let args = Args::parse_from(["ctr-restore", "--ignore-static-ip", "--ignore-static-mac", "x"]);
        let kept = earlier(&args, &record).unwrap();
        assert!(kept[0].addresses.is_empty() && kept[0].mac.is_none() && kept[0].name == "bridge");
        ignore(&args, &mut same).unwrap();
        assert_eq!(same.raw("config"), Some(r#"{"networks":[{"name":"bridge"}],"tty":true}"#));
        assert!(ignore(&args, &mut Record::parse(r#"{"config":7}"#).unwrap()).is_err());
    }
}
