//! The container's `/etc/hosts`: a file of its bundle, bound into it and so written in place.

use cli::{Explain, Result};
use record::Record;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Seek, Write};
use store::ContainerDir;

/// The container writes to it too, and nobody's names take more.
const LONGEST: u64 = 1 << 20;

/// Puts the new name where the container's own addresses have the old one.
pub fn rename(dir: &ContainerDir, record: &Record, name: &str) -> Result<()> {
    let addresses: Vec<String> = record
        .networks()?
        .iter()
        .flat_map(|attachment| store::leases::addresses_of(attachment).map(|address| address.to_string()))
        .collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let path = dir.bundle.join("hosts");
    let what = || format!("write {}", path.display());
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).explain(what),
    };
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(LONGEST + 1).read_to_end(&mut bytes).explain(what)?;
    let old = String::from_utf8_lossy(&bytes);
    let own = record.config()?.hostname;
    let host = own.as_deref().unwrap_or_else(|| dir.id.get(..12).unwrap_or_default());
    let new = renamed(&old, &addresses, host, name);
    if new == old || bytes.len() as u64 > LONGEST {
        return Ok(());
    }
    file.rewind()
        .and_then(|()| file.write_all(new.as_bytes()))
        .and_then(|()| file.set_len(new.len() as u64))
        .explain(what)
}

/// net-attach writes `ADDRESS HOST NAME`, and `ADDRESS HOST` where both are the same.
fn renamed(text: &str, addresses: &[String], host: &str, name: &str) -> String {
    let mut new = String::with_capacity(text.len() + name.len());
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let ours = fields.next().filter(|address| addresses.iter().any(|ours| ours == address));
        match (ours, fields.next(), fields.count()) {
            (Some(address), Some(first), ..=1) if first == host => {
                new.extend([address, "\t", host]);
                if name != host {
                    new.extend([" ", name]);
                }
            }
            _ => new.push_str(line),
        }
        new.push('\n');
    }
    new
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn the_line_of_its_own_address_alone() {
        let text = "127.0.0.1\tlocalhost\n10.89.0.2\tabc web\n10.89.0.3\tabc web\n10.89.0.2\tabc web mine\n";
        let new = renamed(text, &["10.89.0.2".to_owned()], "abc", "site");
        assert_eq!(
            new,
            "127.0.0.1\tlocalhost\n10.89.0.2\tabc site\n10.89.0.3\tabc web\n10.89.0.2\tabc web mine\n"
        );
        assert_eq!(
            renamed("10.89.0.2\tweb\n", &["10.89.0.2".to_owned()], "web", "site"),
            "10.89.0.2\tweb site\n"
        );
        assert_eq!(
            renamed("10.89.0.2\tweb site\n", &["10.89.0.2".to_owned()], "web", "web"),
            "10.89.0.2\tweb\n"
        );
    }
}
