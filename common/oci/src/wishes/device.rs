//! `--device host[:container[:permissions]]`.

use fault::{Fault, Result};

/// A device of the host for the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWish {
    pub host: String,
    pub container: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Fails on relative paths, on letters other than r, w and m, and on more than three parts.
pub fn device(text: &str) -> Result<DeviceWish> {
    let wrong = |why: &str| {
        Fault::input(format!("\"{text}\" is not a device: {why}"))
            .hint("host[:container[:rwm]]: /dev/fuse, /dev/sda:/dev/xvda:r")
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        // `/dev/x:r` gives permissions, `/dev/x:/dev/y` a place.
        [host, second] if is_permissions(second) => (*host, *host, *second),
        [host, container] => (*host, *container, "rwm"),
        [host, container, permissions] => (*host, *container, *permissions),
        _ => return Err(wrong("it has more than three parts")),
    };
    if !is_permissions(permissions) {
        return Err(wrong("permissions are some of r, w and m, each once"));
    }
    if host.contains('\0') || !host.starts_with('/') {
        return Err(wrong("the path on the host is not absolute"));
    }
    let container = super::mount::clean_target(container)
        .map_err(|_| wrong("the path in the container is not absolute"))?;
    Ok(DeviceWish { host: host.to_owned(), container, permissions: permissions.to_owned() })
}

/// Whether this is a name of the Container Device Interface, `vendor.com/class=name`, and not a path.
pub fn is_cdi_name(text: &str) -> bool {
    !text.starts_with('/')
        && text.split_once('=').is_some_and(|(kind, name)| kind.contains('/') && !name.is_empty())
}

fn is_permissions(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
        && ["r", "w", "m"].iter().all(|letter| text.matches(letter).count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        for (text, expected) in [
            ("/dev/fuse", ["/dev/fuse", "/dev/fuse", "rwm"]),
            ("/dev/sda:/dev/xvda", ["/dev/sda", "/dev/xvda", "rwm"]),
            ("/dev/sda:rw", ["/dev/sda", "/dev/sda", "rw"]),
            ("/dev/sda:/dev/x/../y:m", ["/dev/sda", "/dev/y", "m"]),
        ] {
            let found = device(text).unwrap();
            assert_eq!([found.host, found.container, found.permissions], expected);
        }
        for text in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/dev/a:/dev/b:rr",
            "/a:/b:r:w",
            "/dev/a:",
            "/dev/a:/:r",
        ] {
            assert!(device(text).is_err(), "{text}");
        }
    }
}
