//! A file of an image as a record and as people read it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use layer::scan::Xattr;
use layer::{Item, ItemKind, Node, Time};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Bytes that are text as a rule: where they are not UTF-8, what is not is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

impl Text<'_> {
    /// The bytes themselves, where [`Text`] does not show them.
    fn exact(self) -> Option<String> {
        std::str::from_utf8(self.0).is_err().then(|| STANDARD.encode(self.0))
    }
}

/// A file, directory or whatever else is in an image.
#[derive(Clone, Debug, Serialize)]
pub struct FileRecord<'a> {
    /// The image's name, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<&'a str>,
    /// Absolute.
    path: Cow<'a, str>,
    /// The path's bytes in base64, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Octal digits, as chmod(1) takes them.
    mode: String,
    uid: u32,
    gid: u32,
    /// Bytes of content.
    size: u64,
    /// RFC 3339; absent for directories no layer lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<String>,
    /// Where a symbolic link points; of a layer's hard link, the path it links to.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_base64: Option<String>,
    /// Names it has, where there are more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    /// Values in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<Cow<'a, str>, String>,
    /// Of the content, where it was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    /// Digest of the layer it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Device {
    major: u32,
    minor: u32,
}

impl<'a> FileRecord<'a> {
    /// Of a file of the merged tree; `layer` is the digest of the one it comes from.
    pub fn of_node(path: &[u8], node: Node<'a>, layer: Option<&'a str>) -> FileRecord<'a> {
        let item = node.item();
        let absolute = absolute(path);
        FileRecord {
            image: None,
            path_base64: Text(&absolute).exact(),
            path: String::from_utf8_lossy(&absolute).into_owned().into(),
            kind: node.kind().name(),
            mode: octal(node.mode()),
            uid: node.uid(),
            gid: node.gid(),
            size: node.size(),
            mtime: node.mtime().map(rfc3339),
            link: item.and_then(link_of),
            link_base64: item.and_then(link_of).and_then(Text::exact),
            links: Some(node.links()).filter(|links| *links > 1),
            device: item.and_then(device_of),
            xattrs: xattrs(node.xattrs()),
            digest: item.and_then(|item| item.content.as_deref()).map(oci::Digest::as_str),
            layer,
        }
    }

    /// Of a layer's own entry.
    pub fn of_item(item: &'a Item, layer: &'a str) -> FileRecord<'a> {
        let absolute = absolute(&item.path);
        FileRecord {
            image: None,
            path_base64: Text(&absolute).exact(),
            path: String::from_utf8_lossy(&absolute).into_owned().into(),
            kind: item.kind.name(),
            mode: octal(item.mode),
            uid: item.uid,
            gid: item.gid,
            size: item.size,
            mtime: Some(rfc3339(item.mtime)),
            link: link_of(item),
            link_base64: link_of(item).and_then(Text::exact),
            links: None,
            device: device_of(item),
            xattrs: xattrs(&item.xattrs),
            digest: item.content.as_deref().map(oci::Digest::as_str),
            layer: Some(layer),
        }
    }

    /// Absolute.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes of content.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One line of JSON without its newline.
    pub fn to_line(&self) -> String {
        // Strings and numbers: nothing JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As `ls -l` shows them, in columns: mode, owner, size, time, path with a link's target.
    pub fn columns(&self) -> [String; 5] {
        let size = match self.device {
            Some(device) => format!("{}, {}", device.major, device.minor),
            None => self.size.to_string(),
        };
        let mtime = self.mtime.as_deref().unwrap_or("-");
        let path = match self.link {
            Some(Text(link)) => {
                let arrow = if self.kind == ItemKind::HardLink.name() { "=>" } else { "->" };
                let slash = if arrow == "=>" { "/" } else { "" };
                format!("{} {arrow} {slash}{}", self.path, String::from_utf8_lossy(link))
            }
            None => self.path.clone().into_owned(),
        };
        [
            mode_text(self.kind, u32::from_str_radix(&self.mode, 8).unwrap_or(0)),
            format!("{}:{}", self.uid, self.gid),
            size,
            shown(mtime),
            path,
        ]
    }
}

fn absolute(path: &[u8]) -> Vec<u8> {
    let mut absolute = Vec::with_capacity(path.len() + 1);
    absolute.push(b'/');
    absolute.extend_from_slice(path);
    absolute
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn link_of(item: &Item) -> Option<Text<'_>> {
    matches!(item.kind, ItemKind::Symlink | ItemKind::HardLink).then_some(Text(&item.link))
}

fn device_of(item: &Item) -> Option<Device> {
    let (major, minor) = item.device;
    matches!(item.kind, ItemKind::CharDevice | ItemKind::BlockDevice).then_some(Device { major, minor })
}

fn xattrs(all: &[Xattr]) -> BTreeMap<Cow<'_, str>, String> {
    all.iter().map(|(name, value)| (String::from_utf8_lossy(name), STANDARD.encode(value))).collect()
}

/// `2024-01-02T03:04:05.678Z`; a time beyond the year 9999 in seconds, `@253402300800`.
pub fn rfc3339(time: Time) -> String {
    match Timestamp::new(time.seconds, time.nanoseconds as i32) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => format!("@{}", time.seconds),
    }
}

/// A time as people are shown it: to the minute, in UTC.
pub fn shown(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..16)) {
        (Some(day), Some(minute)) if rfc3339.as_bytes()[10] == b'T' => format!("{day} {minute}"),
        _ => rfc3339.to_owned(),
    }
}

/// `drwxr-xr-x`, as ls(1) has it. Whiteouts are `w`, marks of opaque directories `o`, hard links `h` as in `tar -tv`.
pub fn mode_text(kind: &str, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        "directory" => 'd',
        "symlink" => 'l',
        "chardevice" => 'c',
        "blockdevice" => 'b',
        "fifo" => 'p',
        "hardlink" => 'h',
        "whiteout" => 'w',
        "opaque" => 'o',
        _ => '-',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_times_are_as_people_know_them() {
        for (kind, mode, wanted) in [
            ("file", 0o644, "-rw-r--r--"),
            ("directory", 0o1777, "drwxrwxrwt"),
            ("file", 0o4755, "-rwsr-xr-x"),
            ("file", 0o6644, "-rwSr-Sr--"),
            ("directory", 0o1000, "d--------T"),
            ("symlink", 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode_text(kind, mode), wanted);
        }
        let time = |seconds, nanoseconds| rfc3339(Time { seconds, nanoseconds });
        assert_eq!(time(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(time(-2, 750_000_000), "1969-12-31T23:59:58.75Z");
        assert_eq!(time(i64::MAX, 0), format!("@{}", i64::MAX));
        assert_eq!(time(i64::MIN, 999_999_999), format!("@{}", i64::MIN));
        assert_eq!(shown("1970-01-01T00:00:00Z"), "1970-01-01 00:00");
        assert_eq!(shown("@12"), "@12");
    }
}
