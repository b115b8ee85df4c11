//! `options` of a mount, sorted into what each is (config.md, "Linux mount options").
//!
//! They mean what they mean to mount(2) in runc's hands, so that a specification made for runc means the same here.

use fault::{Fault, Result};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};
use sys::mount::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME, MountAttributes,
};

const MS_UNBINDABLE: u64 = 1 << 17;
pub(super) const MS_PRIVATE: u64 = 1 << 18;
pub(super) const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// What is not an access time setting.
const PLAIN: u64 =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;

/// All options known here, sorted; any other is the file system's own.
pub const NAMES: [&str; 65] = [
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
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
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

#[derive(Debug, Default)]
pub(super) struct Options {
    pub bind: bool,
    /// `rbind`.
    pub recursive: bool,
    pub remount: bool,
    /// Attributes of the mount, `MOUNT_ATTR_*`: asked for, and asked not to be.
    set: u64,
    cleared: u64,
    no_access_time: bool,
    relative_access_time: bool,
    strict_access_time: bool,
    /// Any setting of mount(2) is given, be it one a bind mount does not have.
    mentioned: bool,
    /// Of the mount and those below it (`rro` …).
    pub deep: MountAttributes,
    /// In their order; whether those below too.
    pub propagation: Vec<(u64, bool)>,
    /// Settings of the file system that any may have, by the names fsconfig(2) has for them.
    pub superblock: Vec<&'static str>,
    pub copy_up: bool,
    pub copy_symlink: bool,
    pub source_nofollow: bool,
    pub target_nofollow: bool,
    pub map_ids: Option<MapIds>,
    /// For the file system itself.
    pub data: Vec<(String, Option<String>)>,
}

/// Users and groups.
pub(super) type Mappings = (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>);

/// A mount whose files' owners are mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MapIds {
    pub recursive: bool,
    /// Without them the container's.
    pub mappings: Option<Mappings>,
}

impl Options {
    pub fn parse(mount: &Mount) -> Result<Options> {
        let mut options = Options::default();
        for option in mount.options().iter().flatten() {
            options.add(option)?;
        }
        if mount.typ().as_deref() == Some("bind") {
            options.bind = true;
        }
        options.add_mappings(mount)?;
        options.check(mount)?;
        Ok(options)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        let known = self.add_attribute(option) || self.add_deep(option) || self.add_propagation(option);
        if known || self.add_superblock(option) {
            return Ok(());
        }
        match option {
            "defaults" | "" => {}
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "copy-symlink" => self.copy_symlink = true,
            "src-nofollow" => self.source_nofollow = true,
            "dest-nofollow" => self.target_nofollow = true,
            "idmap" => self.map_ids = Some(MapIds::default()),
            "ridmap" => self.map_ids = Some(MapIds { recursive: true, mappings: None }),
            other => match other.split_once('=') {
                Some(("idmap", value)) => {
                    self.map_ids = Some(MapIds { recursive: false, mappings: Some(ranges(value)?) });
                }
                Some((key, value)) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                None => self.data.push((other.to_owned(), None)),
            },
        }
        Ok(())
    }

    fn add_attribute(&mut self, option: &str) -> bool {
        let (flag, set) = match option {
            "ro" => (MOUNT_ATTR_RDONLY, true),
            "rw" => (MOUNT_ATTR_RDONLY, false),
            "nosuid" => (MOUNT_ATTR_NOSUID, true),
            "suid" => (MOUNT_ATTR_NOSUID, false),
            "nodev" => (MOUNT_ATTR_NODEV, true),
            "dev" => (MOUNT_ATTR_NODEV, false),
            "noexec" => (MOUNT_ATTR_NOEXEC, true),
            "exec" => (MOUNT_ATTR_NOEXEC, false),
            "nosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, true),
            "symfollow" => (MOUNT_ATTR_NOSYMFOLLOW, false),
            "nodiratime" => (MOUNT_ATTR_NODIRATIME, true),
            "diratime" => (MOUNT_ATTR_NODIRATIME, false),
            _ => return self.add_access_time(option),
        };
        self.mentioned = true;
        if set {
            self.set |= flag;
            self.cleared &= !flag;
        } else {
            self.set &= !flag;
            self.cleared |= flag;
        }
        true
    }

    fn add_access_time(&mut self, option: &str) -> bool {
        match option {
            "noatime" => self.no_access_time = true,
            "atime" => self.no_access_time = false,
            "relatime" => self.relative_access_time = true,
            "norelatime" => self.relative_access_time = false,
            "strictatime" => self.strict_access_time = true,
            "nostrictatime" => self.strict_access_time = false,
            _ => return false,
        }
        self.mentioned = true;
        true
    }

    fn add_deep(&mut self, option: &str) -> bool {
        let (flag, set) = match option {
            "rro" => (MOUNT_ATTR_RDONLY, true),
            "rrw" => (MOUNT_ATTR_RDONLY, false),
            "rnosuid" => (MOUNT_ATTR_NOSUID, true),
            "rsuid" => (MOUNT_ATTR_NOSUID, false),
            "rnodev" => (MOUNT_ATTR_NODEV, true),
            "rdev" => (MOUNT_ATTR_NODEV, false),
            "rnoexec" => (MOUNT_ATTR_NOEXEC, true),
            "rexec" => (MOUNT_ATTR_NOEXEC, false),
            "rnosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, true),
            "rsymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, false),
            "rnodiratime" => (MOUNT_ATTR_NODIRATIME, true),
            "rdiratime" => (MOUNT_ATTR_NODIRATIME, false),
            // The three are one field, which is cleared first (mount_setattr(2)). Not to be one of them is the default.
            "rnoatime" => return self.set_deep_access_time(MOUNT_ATTR_NOATIME),
            "rstrictatime" => return self.set_deep_access_time(MOUNT_ATTR_STRICTATIME),
            "rrelatime" | "ratime" | "rnorelatime" | "rnostrictatime" => {
                return self.set_deep_access_time(MOUNT_ATTR_RELATIME);
            }
            _ => return false,
        };
        if set {
            self.deep.set |= flag;
            self.deep.clear &= !flag;
        } else {
            self.deep.set &= !flag;
            self.deep.clear |= flag;
        }
        true
    }

    fn set_deep_access_time(&mut self, value: u64) -> bool {
        self.deep.set = self.deep.set & !MOUNT_ATTR_ATIME | value;
        self.deep.clear |= MOUNT_ATTR_ATIME;
        true
    }

    fn add_propagation(&mut self, option: &str) -> bool {
        let propagation = match option {
            "private" => (MS_PRIVATE, false),
            "rprivate" => (MS_PRIVATE, true),
            "shared" => (MS_SHARED, false),
            "rshared" => (MS_SHARED, true),
            "slave" => (MS_SLAVE, false),
            "rslave" => (MS_SLAVE, true),
            "unbindable" => (MS_UNBINDABLE, false),
            "runbindable" => (MS_UNBINDABLE, true),
            _ => return false,
        };
        self.propagation.push(propagation);
        true
    }

    fn add_superblock(&mut self, option: &str) -> bool {
        match option {
            "sync" => self.superblock.push("sync"),
            "async" => self.superblock.push("async"),
            "dirsync" => self.superblock.push("dirsync"),
            "mand" => self.superblock.push("mand"),
            "nomand" => self.superblock.push("nomand"),
            "lazytime" => self.superblock.push("lazytime"),
            "nolazytime" => self.superblock.push("nolazytime"),
            // Nothing to be done: since Linux 6.1 a file system counts versions whenever it can; and what one made by fsopen(2)
            // has to say goes to its context, not to the kernel's log.
            "iversion" | "noiversion" | "silent" | "loud" => {}
            _ => return false,
        }
        self.mentioned = true;
        true
    }

    fn add_mappings(&mut self, mount: &Mount) -> Result<()> {
        let list = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.clone().unwrap_or_default();
        let (users, groups) = (list(mount.uid_mappings()), list(mount.gid_mappings()));
        match (users.is_empty(), groups.is_empty()) {
            (true, true) => {}
            (false, false) => self.map_ids.get_or_insert_default().mappings = Some((users, groups)),
            (true, false) => return Err(Fault::input("gidMappings need uidMappings beside them")),
            (false, true) => return Err(Fault::input("uidMappings need gidMappings beside them")),
        }
        if let Some(MapIds { mappings: Some((users, groups)), .. }) = &self.map_ids {
            crate::mappings::check("uidMappings", users)?;
            crate::mappings::check("gidMappings", groups)?;
        }
        Ok(())
    }

    fn check(&self, mount: &Mount) -> Result<()> {
        let only_bind = [
            (self.map_ids.is_some(), "idmap"),
            (self.copy_symlink, "copy-symlink"),
            (self.source_nofollow, "src-nofollow"),
            (self.target_nofollow, "dest-nofollow"),
        ];
        if !self.bind {
            if let Some((_, name)) = only_bind.iter().find(|(given, _)| *given) {
                return Err(Fault::input(format!("option {name} is for bind mounts only")));
            }
            if self.copy_up && mount.typ().as_deref() != Some("tmpfs") {
                return Err(Fault::input("option tmpcopyup is for tmpfs only"));
            }
            return Ok(());
        }
        if let Some((name, _)) = self.data.first() {
            return Err(Fault::input(format!(
                "option {name:?}: bind mounts cannot have any filesystem-specific options applied"
            )));
        }
        if self.copy_up {
            return Err(Fault::input("option tmpcopyup is for tmpfs only"));
        }
        if !self.remount && mount.source().as_ref().is_none_or(|source| source.as_os_str().is_empty()) {
            return Err(Fault::input("a bind mount needs a source"));
        }
        Ok(())
    }

    pub fn is_readonly(&self) -> bool {
        (self.set | self.deep.set) & MOUNT_ATTR_RDONLY != 0
    }

    /// Takes out what makes the mount read-only, to be applied when nothing is put in it any more. Returns whether that reaches
    /// those below it.
    pub fn take_readonly(&mut self) -> bool {
        let deep = self.deep.set & MOUNT_ATTR_RDONLY != 0;
        self.set &= !MOUNT_ATTR_RDONLY;
        self.deep.set &= !MOUNT_ATTR_RDONLY;
        deep
    }

    pub fn sets(&self, flag: u64) -> bool {
        self.set & flag != 0
    }

    /// What was asked for, but for access times.
    pub fn asked(&self) -> u64 {
        self.set & PLAIN
    }

    /// Attributes of a file system that is mounted anew.
    pub fn of_new(&self) -> u64 {
        self.set | self.access_time().unwrap_or(MOUNT_ATTR_RELATIME)
    }

    /// Attributes of a mount that takes them over from another; `None`: all of them. If any is given, those that are not are
    /// cleared, but for those of access time, which stay when none of them is set.
    pub fn of_bind(&self) -> Option<MountAttributes> {
        self.mentioned.then(|| self.over(PLAIN))
    }

    /// The same where the other mount's may not be cleared, as in a user namespace: nor are they then, unless that is asked for.
    pub fn of_locked_bind(&self) -> Option<MountAttributes> {
        self.mentioned.then(|| self.over(self.cleared & PLAIN | MOUNT_ATTR_NOSYMFOLLOW))
    }

    fn over(&self, clear: u64) -> MountAttributes {
        let mut attributes =
            MountAttributes { set: self.set & PLAIN, clear: clear & !self.set, propagation: 0 };
        let directories = self.set & MOUNT_ATTR_NODIRATIME;
        if self.access_time().is_some() || directories != 0 {
            attributes.set |= self.access_time().unwrap_or(MOUNT_ATTR_RELATIME) | directories;
            attributes.clear |= MOUNT_ATTR_ATIME | (MOUNT_ATTR_NODIRATIME & !directories);
        }
        attributes
    }

    /// The strictest comes first, as in mount(2).
    fn access_time(&self) -> Option<u64> {
        if self.strict_access_time {
            Some(MOUNT_ATTR_STRICTATIME)
        } else if self.no_access_time {
            Some(MOUNT_ATTR_NOATIME)
        } else {
            self.relative_access_time.then_some(MOUNT_ATTR_RELATIME)
        }
    }
}

/// crun's `idmap=uids=0-1000-10#20-3000-1;gids=0-1000-10`: first on disk, first outside, how many.
fn ranges(value: &str) -> Result<Mappings> {
    let bad =
        || Fault::input(format!("option idmap={value}: it is written idmap=uids=0-1000-10;gids=0-1000-10"));
    let range = |text: &str| -> Option<LinuxIdMapping> {
        let mut numbers = text.split('-').map(|number| number.parse::<u32>().ok());
        let builder = LinuxIdMappingBuilder::default();
        let builder = builder.container_id(numbers.next()??).host_id(numbers.next()??).size(numbers.next()??);
        if numbers.next().is_some() { None } else { builder.build().ok() }
    };
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for part in value.split(';') {
        let (name, list) = part.split_once('=').ok_or_else(bad)?;
        let target = match name {
            "uids" => &mut users,
            "gids" => &mut groups,
            _ => return Err(bad()),
        };
        *target = list.split('#').map(range).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
    }
    if users.is_empty() || groups.is_empty() { Err(bad()) } else { Ok((users, groups)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        serde_json::from_value(json!({
            "destination": "/d", "type": kind, "source": "/s", "options": options
        }))
        .unwrap()
    }

    fn parse(kind: &str, options: &[&str]) -> Options {
        Options::parse(&mount(kind, options)).unwrap()
    }

    #[test]
    fn every_name_is_known() {
        assert!(NAMES.is_sorted());
        for name in NAMES {
            let mut options = Options::default();
            options.add(name).unwrap();
            assert!(options.data.is_empty(), "{name}");
        }
        let options = parse("tmpfs", &["size=1k", "huge", "mode=1777", ""]);
        let some = |text: &str| Some(text.to_owned());
        let wanted = [("size", some("1k")), ("huge", None), ("mode", some("1777"))];
        assert_eq!(options.data, wanted.map(|(key, value)| (key.to_owned(), value)));
    }

    #[test]
    fn a_bind_mount_takes_over_what_nothing_is_said_of() {
        assert!(parse("none", &["rbind", "rprivate", "rro"]).of_bind().is_none());
        let readonly = parse("none", &["bind", "ro"]);
        let attributes = readonly.of_bind().unwrap();
        assert_eq!((attributes.set, attributes.clear), (MOUNT_ATTR_RDONLY, PLAIN & !MOUNT_ATTR_RDONLY));
        let attributes = readonly.of_locked_bind().unwrap();
        assert_eq!((attributes.set, attributes.clear), (MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSYMFOLLOW));
        let attributes = parse("none", &["bind", "ro", "rw", "dev"]).of_locked_bind().unwrap();
        let cleared = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSYMFOLLOW;
        assert_eq!((attributes.set, attributes.clear), (0, cleared));
    }

    #[test]
    fn access_times_are_one_setting() {
        let of = |options: &[&str]| {
            let attributes = parse("bind", options).of_bind().unwrap();
            let field = MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME;
            (attributes.set & field, attributes.clear & field)
        };
        for kept in ["atime", "norelatime", "nostrictatime", "diratime", "ro"] {
            assert_eq!(of(&[kept]), (0, 0), "{kept}");
        }
        let all = MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME;
        assert_eq!(of(&["relatime"]), (MOUNT_ATTR_RELATIME, all));
        assert_eq!(of(&["noatime", "strictatime"]), (MOUNT_ATTR_STRICTATIME, all));
        assert_eq!(of(&["noatime", "atime", "relatime"]), (MOUNT_ATTR_RELATIME, all));
        assert_eq!(of(&["nodiratime", "norelatime"]), (MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_ATIME));
        assert_eq!(parse("tmpfs", &["noatime", "nodev"]).of_new(), MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODEV);
    }

    #[test]
    fn recursive_attributes_replace_each_other() {
        let deep = parse("bind", &["rro", "rrw", "rnosuid", "rnoatime", "ratime"]).deep;
        assert_eq!((deep.set, deep.clear), (MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY | MOUNT_ATTR_ATIME));
    }

    #[test]
    fn read_only_can_wait() {
        let mut options = parse("tmpfs", &["ro", "nosuid"]);
        assert!(options.is_readonly());
        assert!(!options.take_readonly());
        assert!(!options.is_readonly() && options.of_new() == MOUNT_ATTR_NOSUID);
        assert!(parse("tmpfs", &["rro"]).take_readonly());
    }

    #[test]
    fn mappings() {
        let mut given = mount("none", &["bind"]);
        let one =
            |first| LinuxIdMappingBuilder::default().container_id(0u32).host_id(first).size(9u32).build();
        given.set_uid_mappings(Some(vec![one(100u32).unwrap()]));
        assert!(Options::parse(&given).is_err());
        given.set_gid_mappings(Some(vec![one(200).unwrap()]));
        let wanted =
            MapIds { recursive: false, mappings: Some((vec![one(100).unwrap()], vec![one(200).unwrap()])) };
        assert_eq!(Options::parse(&given).unwrap().map_ids, Some(wanted.clone()));
        let text = parse("none", &["bind", "idmap=uids=0-100-9;gids=0-200-9"]);
        assert_eq!(text.map_ids, Some(wanted));
        given.set_options(Some(vec!["rbind".into(), "ridmap".into()]));
        assert!(Options::parse(&given).unwrap().map_ids.unwrap().recursive);
        given.set_gid_mappings(Some(vec![one(u32::MAX).unwrap()]));
        assert!(Options::parse(&given).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (kind, options) in [
            ("none", &["bind", "size=1k"][..]),
            ("tmpfs", &["idmap"]),
            ("tmpfs", &["copy-symlink"]),
            ("proc", &["tmpcopyup"]),
            ("none", &["bind", "tmpcopyup"]),
            ("none", &["bind", "idmap=uids=0-1-10"]),
            ("none", &["bind", "idmap=uids=0-1-10;gids=@0-1-10"]),
            ("none", &["bind", "idmap=uids=0-1-10-4;gids=0-1-10"]),
        ] {
            assert!(Options::parse(&mount(kind, options)).is_err(), "{kind} {options:?}");
        }
        let no_source: Mount =
            serde_json::from_value(json!({"destination": "/d", "options": ["bind"]})).unwrap();
        assert!(Options::parse(&no_source).is_err());
    }
}
