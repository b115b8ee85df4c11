//! Mounts: `-v`, `--mount`, `--tmpfs`, and the objects of a record, all into one validated type.

use super::quantity;
use fault::{Fault, Result};
use record::{Mount, MountWish, Quantity};
use std::collections::BTreeMap;

/// A mount that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// Absolute, without `.`, `..` and double slashes; never `/`.
    pub target: String,
    pub read_only: ReadOnly,
    /// Plain mount options: `noexec`, `nosuid` …; of a tmpfs `size=…` and `mode=…` too.
    pub options: Vec<String>,
    /// Give what is mounted to the container's user.
    pub chown: bool,
    /// Writes go elsewhere.
    pub overlay: Option<OverlayPlan>,
    pub kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    Bind {
        /// Absolute path on the host.
        source: String,
        /// Make it, as a directory, when it is missing.
        create_source: bool,
        propagation: &'static str,
        recursive: bool,
    },
    Volume {
        /// `None`: one without a name, for this container.
        name: Option<String>,
        propagation: &'static str,
        /// Fill it with what the image has there when it is empty.
        populate: bool,
        more: VolumePlan,
    },
    Tmpfs,
    /// An image's files.
    Image {
        reference: String,
        subpath: Option<String>,
    },
}

/// What else can be said of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumePlan {
    /// A directory or file in it, relative, without `..`.
    pub subpath: Option<String>,
    /// Of a volume that is made.
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// Where an overlay's writes go; `None`: to a layer that is gone with the container's run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayPlan {
    /// Absolute paths of the host: upper and work directory.
    pub writes: Option<(String, String)>,
}

/// How far read-only reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnly {
    #[default]
    No,
    /// With all that is mounted below, where the kernel can (5.12); else the mount alone.
    Deep,
    /// The mount alone.
    Shallow,
    /// With all that is mounted below, or not at all.
    DeepOrFail,
}

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// Options without a value any mount may have.
const FLAGS: [&str; 24] = [
    "async",
    "atime",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "relatime",
    "ridmap",
    "strictatime",
    "suid",
];

/// What runc lets be mounted inside /proc: single files that programs like lxcfs stand in for.
const PROC_FILES: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
];

/// Any form a record takes, validated.
pub fn mount(wish: &MountWish) -> Result<MountPlan> {
    match wish {
        MountWish::Text(text) => {
            plan(&parse(text)?).map_err(|fault| fault.within(format!("mount \"{text}\"")))
        }
        MountWish::Mount(mount) => {
            plan(mount).map_err(|fault| fault.within(format!("mount at \"{}\"", mount.target)))
        }
    }
}

/// A text in the grammar of `--mount` if it begins with one of its keys, else in that of `-v`.
pub fn parse(text: &str) -> Result<Mount> {
    const KEYS: [&str; 8] = ["type", "source", "src", "target", "dst", "destination", "readonly", "ro"];
    let first = text.split(['=', ',']).next().unwrap_or(text).trim_start_matches('"').to_ascii_lowercase();
    if KEYS.contains(&first.as_str()) { parse_mount(text) } else { parse_volume(text) }
}

/// `-v [source:]target[:options]`.
pub fn parse_volume(text: &str) -> Result<Mount> {
    let wrong = |why: String| {
        Fault::input(format!("\"{text}\" is not a volume: {why}"))
            .hint("[source:]target[:options]: /srv:/srv:ro, data:/var/lib/data")
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(wrong("it has more than three parts".to_owned())),
    };
    if target.is_empty() || source == Some("") {
        return Err(wrong("a part is empty".to_owned()));
    }
    let is_path = source.is_some_and(|source| source.starts_with(['/', '.', '~']));
    let mut mount = Mount {
        kind: Some(if is_path { "bind" } else { "volume" }.to_owned()),
        source: source.map(str::to_owned),
        target: target.to_owned(),
        create_source: is_path,
        ..Mount::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => mount.read_only = true,
            // The labels are SELinux's, which is not supported; docker ignores them on machines without it. The
            // other three once told macOS how to cache.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" if !is_path => mount.no_copy = true,
            "copy" if !is_path => mount.no_copy = false,
            "U" => mount.chown = true,
            "O" => mount.overlay = true,
            "rbind" if is_path => mount.non_recursive = false,
            "bind" if is_path => mount.non_recursive = true,
            _ if option.starts_with("upperdir=") || option.starts_with("workdir=") => {
                let (key, path) = option.split_once('=').unwrap_or_default();
                let place = if key == "upperdir" { &mut mount.upper } else { &mut mount.work };
                *place = Some(path.to_owned());
            }
            _ if PROPAGATIONS.contains(&option) => mount.propagation = Some(option.to_owned()),
            _ if FLAGS.contains(&option) => mount.options.push(option.to_owned()),
            _ => return Err(wrong(format!("there is no option \"{option}\""))),
        }
    }
    Ok(mount)
}

/// `--mount type=…,source=…,target=…`.
pub fn parse_mount(text: &str) -> Result<Mount> {
    let wrong = |why: String| {
        Fault::input(format!("\"{text}\" is not a mount: {why}"))
            .hint("type=bind|volume|tmpfs|image,source=…,target=…[,readonly]")
    };
    let mut mount = Mount::default();
    let mut families: Vec<(&'static str, String)> = Vec::new();
    let mut writable = false;
    for field in csv(text).ok_or_else(|| wrong("a quote is not closed".to_owned()))? {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.trim().to_ascii_lowercase();
        let flag = || boolean(value).ok_or_else(|| wrong(format!("{key} is not true or false")));
        let needed = || {
            value
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| wrong(format!("{key} needs a value")))
        };
        if let Some(family) = ["bind", "volume", "tmpfs", "image"]
            .into_iter()
            .find(|f| key.strip_prefix(f).is_some_and(|k| k.starts_with('-')))
        {
            families.push((family, key.clone()));
        }
        match key.as_str() {
            "type" => mount.kind = Some(needed()?.to_ascii_lowercase()),
            "source" | "src" => mount.source = value.filter(|v| !v.is_empty()).map(str::to_owned),
            "target" | "dst" | "destination" => mount.target = needed()?,
            "readonly" | "ro" => mount.read_only = flag()?,
            "rw" | "readwrite" => {
                writable = flag()?;
                mount.read_only = !writable;
            }
            "bind-propagation" => mount.propagation = Some(needed()?),
            "bind-nonrecursive" => mount.non_recursive = flag()?,
            "bind-recursive" => match needed()?.as_str() {
                "enabled" => {}
                "disabled" => mount.non_recursive = true,
                "writable" => mount.options.push("ro".to_owned()),
                "readonly" => mount.options.push("rro".to_owned()),
                other => {
                    return Err(wrong(format!(
                        "bind-recursive is not \"{other}\" but enabled, disabled, writable or readonly"
                    )));
                }
            },
            "bind-create-src" => mount.create_source = flag()?,
            // The labels are SELinux's, which is not supported; docker ignores them on machines without it.
            "relabel" | "bind-relabel" => match needed()?.as_str() {
                "shared" | "private" => {}
                other => return Err(wrong(format!("{key} is not \"{other}\" but shared or private"))),
            },
            "volume-nocopy" | "nocopy" => mount.no_copy = flag()?,
            "volume-driver" => mount.driver = Some(needed()?),
            "volume-opt" | "volume-label" => {
                let pair = needed()?;
                let (name, value) = match pair.split_once('=') {
                    Some((name, value)) if !name.is_empty() => (name, value),
                    None if key == "volume-label" => (pair.as_str(), ""),
                    _ => return Err(wrong(format!("{key}={pair} is not of the form name=value"))),
                };
                let map = if key == "volume-opt" { &mut mount.driver_options } else { &mut mount.labels };
                map.insert(name.to_owned(), value.to_owned());
            }
            "volume-subpath" | "image-subpath" | "subpath" => mount.subpath = Some(needed()?),
            "u" | "chown" => mount.chown = flag()?,
            "o" | "overlay" => mount.overlay = flag()?,
            "upperdir" => mount.upper = Some(needed()?),
            "workdir" => mount.work = Some(needed()?),
            "tmpcopyup" if flag()? => mount.options.push("tmpcopyup".to_owned()),
            "tmpcopyup" | "notmpcopyup" | "z" | "Z" => {}
            _ if value.is_none() && FLAGS.contains(&key.as_str()) => mount.options.push(key.clone()),
            "tmpfs-size" => mount.size = Some(Quantity::Text(needed()?)),
            "tmpfs-mode" => mount.mode = Some(needed()?),
            "consistency" => {}
            _ => return Err(wrong(format!("there is no key \"{key}\""))),
        }
    }
    if mount.target.is_empty() {
        return Err(wrong("it has no target".to_owned()));
    }
    let kind = mount.kind.get_or_insert_with(|| "volume".to_owned());
    if let Some((_, key)) = families.iter().find(|(family, _)| family != kind) {
        return Err(wrong(format!("{key} does not go with type={kind}")));
    }
    if writable && kind == "image" {
        return Err(wrong("an image can be mounted for reading only".to_owned()));
    }
    Ok(mount)
}

/// `--tmpfs target[:options]`.
pub fn parse_tmpfs(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = Mount { kind: Some("tmpfs".to_owned()), target: target.to_owned(), ..Mount::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            None if option == "ro" => mount.read_only = true,
            Some(("size", size)) => mount.size = Some(Quantity::Text(size.to_owned())),
            Some(("mode", mode)) => mount.mode = Some(mode.to_owned()),
            _ => mount.options.push(option.to_owned()),
        }
    }
    Ok(mount)
}

/// `--volumes-from`: another container, and what is to be different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountsFrom {
    pub container: String,
    /// `None`: as it is there.
    pub read_only: Option<bool>,
    pub no_copy: bool,
}

/// `CONTAINER[:OPTIONS]`.
pub fn mounts_from(text: &str) -> Result<MountsFrom> {
    let (container, options) = text.split_once(':').unwrap_or((text, ""));
    let mut from = MountsFrom { container: container.to_owned(), read_only: None, no_copy: false };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => from.read_only = Some(true),
            "rw" => from.read_only = Some(false),
            "nocopy" => from.no_copy = true,
            // The labels are SELinux's, which is not supported.
            "z" | "Z" => {}
            _ => {
                return Err(Fault::input(format!("\"{text}\": there is no option \"{option}\""))
                    .hint("CONTAINER[:ro|rw|z|nocopy]"));
            }
        }
    }
    if container.is_empty() {
        return Err(Fault::input(format!("\"{text}\" names no container to take mounts from")));
    }
    Ok(from)
}

/// An absolute path in the container without `.`, `..` and double slashes. Text only: what symbolic links make of
/// it is the runtime's to settle.
pub fn clean_target(path: &str) -> Result<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Fault::input(format!(
            "the target \"{}\" is not an absolute path",
            path.replace('\0', "\\0")
        )));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Fault::input("the target cannot be \"/\""));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Whether a text may name a volume; docker's rule, and short enough for a file name.
pub fn is_volume_name(name: &str) -> bool {
    name.len() >= 2 && super::is_name(name)
}

fn plan(mount: &Mount) -> Result<MountPlan> {
    let target = clean_target(&mount.target)?;
    if (target == "/proc" || target.starts_with("/proc/")) && !PROC_FILES.contains(&target.as_str()) {
        return Err(Fault::input("nothing can be mounted over /proc or inside it"));
    }
    let propagation = match mount.propagation.as_deref() {
        None | Some("") => "rprivate",
        Some(wanted) => PROPAGATIONS.into_iter().find(|known| *known == wanted).ok_or_else(|| {
            Fault::input(format!("there is no propagation \"{wanted}\""))
                .hint(format!("one of: {}", PROPAGATIONS.join(" ")))
        })?,
    };
    let kind = mount.kind.as_deref().unwrap_or(match &mount.source {
        Some(source) if source.starts_with('/') => "bind",
        _ => "volume",
    });
    if kind != "tmpfs" && (mount.size.is_some() || mount.mode.is_some()) {
        return Err(Fault::input(format!("size and mode are a tmpfs's, not a {kind}'s")));
    }
    if kind != "bind" && (mount.non_recursive || mount.create_source) {
        return Err(Fault::input(format!("non_recursive and create_source are a bind's, not a {kind}'s")));
    }
    if kind != "volume" && mount.no_copy {
        return Err(Fault::input(format!("no_copy is a volume's, not a {kind}'s")));
    }
    if kind != "volume"
        && (mount.driver.is_some() || !mount.driver_options.is_empty() || !mount.labels.is_empty())
    {
        return Err(Fault::input(format!("driver, its options and labels are a volume's, not a {kind}'s")));
    }
    if !matches!(kind, "volume" | "image") && mount.subpath.is_some() {
        return Err(Fault::input(format!("a subpath is a volume's or an image's, not a {kind}'s")));
    }
    if !matches!(kind, "volume" | "bind") && (mount.overlay || mount.chown) {
        return Err(Fault::input(format!("overlay and chown are a volume's or a bind's, not a {kind}'s")));
    }
    let subpath = mount.subpath.as_deref().map(clean_subpath).transpose()?;
    let overlay = overlay(mount)?;
    let kind = match kind {
        "bind" => MountKind::Bind {
            source: bind_source(mount.source.as_deref())?,
            create_source: mount.create_source,
            propagation,
            recursive: !mount.non_recursive,
        },
        "volume" => MountKind::Volume {
            name: volume_name(mount.source.as_deref())?,
            propagation,
            populate: !mount.no_copy,
            more: VolumePlan {
                subpath,
                driver: mount.driver.clone().filter(|driver| !driver.is_empty()),
                options: mount.driver_options.clone(),
                labels: mount.labels.clone(),
            },
        },
        "image" => MountKind::Image {
            reference: mount
                .source
                .clone()
                .filter(|source| !source.is_empty() && !source.contains('\0'))
                .ok_or_else(|| Fault::input("an image needs a source: its reference"))?,
            subpath,
        },
        "tmpfs" if mount.source.is_some() => return Err(Fault::input("a tmpfs has no source")),
        "tmpfs" => MountKind::Tmpfs,
        other => {
            return Err(Fault::input(format!("there is no mount type \"{other}\""))
                .hint("one of: bind volume tmpfs image"));
        }
    };
    let (read_only, options) = options(mount, &kind)?;
    if mount.chown && (read_only != ReadOnly::No || overlay.is_some()) {
        return Err(Fault::input(
            "chown changes what is mounted, which read-only and overlay are to keep as it is",
        ));
    }
    Ok(MountPlan { target, read_only, options, chown: mount.chown, overlay, kind })
}

fn overlay(mount: &Mount) -> Result<Option<OverlayPlan>> {
    let absolute = |path: &String| path.starts_with('/') && !path.contains('\0');
    match (mount.overlay, &mount.upper, &mount.work) {
        (false, None, None) => Ok(None),
        (false, ..) => Err(Fault::input("upper and work are an overlay's").hint("O, or overlay=true")),
        (true, None, None) => Ok(Some(OverlayPlan::default())),
        (true, Some(upper), Some(work)) if absolute(upper) && absolute(work) => {
            Ok(Some(OverlayPlan { writes: Some((upper.clone(), work.clone())) }))
        }
        (true, ..) => Err(Fault::input(
            "upper and work directory of an overlay are two absolute paths, or neither is given",
        )),
    }
}

/// A relative path without `.`, `..` and double slashes. What symbolic links make of it is settled where it is opened.
fn clean_subpath(path: &str) -> Result<String> {
    let wrong = |why: &str| Err(Fault::input(format!("the subpath \"{}\" {why}", path.replace('\0', "\\0"))));
    if path.starts_with('/') || path.contains('\0') {
        return wrong("is not a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        return wrong("leads out: it has \"..\" in it");
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() { wrong("is empty") } else { Ok(parts.join("/")) }
}

fn bind_source(source: Option<&str>) -> Result<String> {
    match source {
        Some(source) if source.starts_with('/') && !source.contains('\0') => Ok(source.to_owned()),
        Some(source) => Err(Fault::input(format!(
            "the source \"{}\" is not an absolute path",
            source.replace('\0', "\\0")
        ))),
        None => Err(Fault::input("a bind needs a source")),
    }
}

fn volume_name(source: Option<&str>) -> Result<Option<String>> {
    match source {
        None | Some("") => Ok(None),
        Some(name) if is_volume_name(name) => Ok(Some(name.to_owned())),
        Some(name) => Err(Fault::input(format!("\"{name}\" is not a volume's name"))
            .hint("two or more letters, digits, and after the first also _ . -; for a directory of the host give its absolute path")),
    }
}

fn options(mount: &Mount, kind: &MountKind) -> Result<(ReadOnly, Vec<String>)> {
    let mut read_only = if mount.read_only { ReadOnly::Deep } else { ReadOnly::No };
    let mut options = Vec::new();
    for option in &mount.options {
        let (name, value) =
            option.split_once('=').map_or((option.as_str(), None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("ro", None) => read_only = ReadOnly::Shallow,
            ("rro", None) => read_only = ReadOnly::DeepOrFail,
            ("rw" | "z" | "Z", None) => {}
            (flag, None) if FLAGS.contains(&flag) => options.push(option.clone()),
            ("tmpcopyup", None) if *kind == MountKind::Tmpfs => options.push(option.clone()),
            ("uid" | "gid" | "nr_inodes" | "nr_blocks", Some(value))
                if *kind == MountKind::Tmpfs
                    && value.bytes().all(|b| b.is_ascii_alphanumeric())
                    && !value.is_empty() =>
            {
                options.push(option.clone());
            }
            ("size", Some(value)) if *kind == MountKind::Tmpfs => {
                options.push(tmpfs_size(&Quantity::Text(value.to_owned()))?);
            }
            ("mode", Some(value)) if *kind == MountKind::Tmpfs => options.push(tmpfs_mode(value)?),
            _ => {
                return Err(Fault::input(format!(
                    "there is no mount option \"{}\" here",
                    option.replace('\0', "\\0")
                )));
            }
        }
    }
    if let Some(size) = &mount.size {
        options.push(tmpfs_size(size)?);
    }
    if let Some(mode) = &mount.mode {
        options.push(tmpfs_mode(mode)?);
    }
    Ok((read_only, options))
}

fn tmpfs_size(size: &Quantity) -> Result<String> {
    // tmpfs(5): a percentage of the machine's memory.
    if let Quantity::Text(text) = size
        && let Some(percent) = text.strip_suffix('%')
        && percent.parse::<u8>().is_ok_and(|percent| (1..=100).contains(&percent))
    {
        return Ok(format!("size={text}"));
    }
    quantity::bytes_of(size).map(|bytes| format!("size={bytes}"))
}

fn tmpfs_mode(mode: &str) -> Result<String> {
    let digits = mode.strip_prefix("0o").unwrap_or(mode);
    match u32::from_str_radix(digits, 8) {
        Ok(bits) if bits <= 0o7777 && !digits.starts_with('+') => Ok(format!("mode={bits:o}")),
        _ => Err(Fault::input(format!("\"{mode}\" is not a mode")).hint("octal permissions: 1777, 0755")),
    }
}

fn boolean(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
        Some(_) => None,
    }
}

/// Fields between commas; a field in double quotes may hold commas, and quotes doubled (RFC 4180).
fn csv(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(fields),
        }
    }
}

fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests;
