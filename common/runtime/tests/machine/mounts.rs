//! Mounts as the specification asks for them, on the real machine.

use crate::world::{FIRST_ID, World, bind, entry, in_user_namespace, remount};
use crate::{SKIPPED, Test, root};
use runtime::mounts::Prepared;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("new_file_systems_have_their_options", new_file_systems_have_their_options),
    ("read_only_comes_last", read_only_comes_last),
    ("a_tmpfs_has_the_mode_of_what_it_hides", a_tmpfs_has_the_mode_of_what_it_hides),
    ("a_tmpfs_gets_a_copy_of_what_it_hides", a_tmpfs_gets_a_copy_of_what_it_hides),
    ("binds_take_over_attributes", binds_take_over_attributes),
    ("binds_keep_what_is_locked", binds_keep_what_is_locked),
    ("attributes_reach_below", attributes_reach_below),
    ("propagation", propagation),
    ("remounts", remounts),
    ("destinations_are_inside", destinations_are_inside),
    ("links_themselves", links_themselves),
    ("proc_cannot_be_covered", proc_cannot_be_covered),
    ("proc_and_sys_are_where_they_say", proc_and_sys_are_where_they_say),
    ("many_layers", many_layers),
    ("control_groups", control_groups),
];

pub fn has(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

fn new_file_systems_have_their_options() {
    if !root() {
        return;
    }
    let world = World::new();
    world.mounts(&[
        entry("tmpfs", "some", "/a", "nosuid,nodev,noexec,noatime,nodiratime,nosymfollow,size=64k,mode=700"),
        entry("tmpfs", "tmpfs", "/b", "strictatime,sync,dirsync,lazytime,iversion,silent,async"),
        entry("tmpfs", "tmpfs", "/c", "rnosuid,rro,defaults,loud,nolazytime,noiversion"),
        entry("mqueue", "mqueue", "/dev/mqueue", "nosuid"),
        entry("devpts", "devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=620"),
        entry("proc", "proc", "/proc", "hidepid=2,subset=pid,ro"),
    ]);
    let [options, _, of_fs] = world.mounted("/a").pop().expect("a");
    assert_eq!(options, "rw,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow");
    assert!(has(&of_fs, "size=64k") && has(&of_fs, "mode=700"), "{of_fs}");
    let [options, _, of_fs] = world.mounted("/b").pop().expect("b");
    assert_eq!(options, "rw");
    assert!(!has(&of_fs, "sync") && has(&of_fs, "dirsync") && has(&of_fs, "lazytime"), "{of_fs}");
    assert_eq!(world.options("/c"), "ro,nosuid,relatime");
    assert!(has(&world.options("/dev/mqueue"), "nosuid"));
    assert!(world.in_root("/dev/pts/ptmx").exists());
    let [options, _, of_fs] = world.mounted("/proc").pop().expect("proc");
    assert!(has(&options, "ro") && has(&of_fs, "hidepid=invisible") && has(&of_fs, "subset=pid"), "{of_fs}");
    assert!(!world.in_root("/proc/sys").exists());
    for bad in [
        entry("tmpfs", "tmpfs", "/x", "nosuchoption"),
        entry("nosuchfs", "x", "/x", ""),
        entry("none", "x", "/x", ""),
    ] {
        let text = world.refused(std::slice::from_ref(&bad));
        assert!(text.starts_with("mounts[0] on /x: "), "{text}");
    }
}

fn read_only_comes_last() {
    if !root() {
        return;
    }
    let world = World::new();
    let source = world.make("source");
    world.mounts(&[
        entry("tmpfs", "tmpfs", "/dev", "ro,mode=755"),
        entry("tmpfs", "tmpfs", "/dev/shm", "nosuid"),
        entry("tmpfs", "tmpfs", "/mnt", "ro"),
        bind(source, "/mnt/deep/er", "bind"),
    ]);
    for (path, readonly) in [("/dev", true), ("/dev/shm", false), ("/mnt", true), ("/mnt/deep/er", false)] {
        assert_eq!(has(&world.options(path), "ro"), readonly, "{path}");
    }
    assert!(std::fs::create_dir(world.in_root("/dev/x")).is_err());
}

fn a_tmpfs_has_the_mode_of_what_it_hides() {
    if !root() {
        return;
    }
    let world = World::new();
    let mode =
        |name: &str| world.in_root(name).metadata().expect("a directory").permissions().mode() & 0o7777;
    for (name, bits) in [("there", 0o710), ("asked", 0o710)] {
        world.make(&format!("root/{name}"));
        std::fs::set_permissions(world.in_root(name), PermissionsExt::from_mode(bits)).expect("a mode");
    }
    world.mounts(&[
        entry("tmpfs", "tmpfs", "/there", "nosuid"),
        entry("tmpfs", "tmpfs", "/asked", "mode=1500"),
        entry("tmpfs", "tmpfs", "/missing/a", ""),
    ]);
    assert_eq!((mode("there"), mode("asked"), mode("missing/a")), (0o710, 0o1500, 0o1777));
    assert_eq!(mode("missing"), 0o755);
}

fn a_tmpfs_gets_a_copy_of_what_it_hides() {
    if !root() {
        return;
    }
    let world = World::new();
    world.write("outside", "not to be seen");
    let file = world.write("root/d/sub/file", "text");
    std::os::unix::fs::chown(&file, Some(7), Some(8)).expect("an owner");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4751)).expect("a mode");
    std::fs::set_permissions(world.path("root/d/sub"), PermissionsExt::from_mode(0o1777)).expect("a mode");
    std::fs::set_permissions(world.path("root/d"), PermissionsExt::from_mode(0o711)).expect("a mode");
    world.link("/outside", "root/d/link");
    world.link(world.path("outside").to_str().expect("a path"), "root/d/out");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("root/d/fifo"),
        rustix::fs::FileType::Fifo,
        0o640.into(),
        0,
    )
    .expect("a fifo");
    let labelled = std::process::Command::new("setcap").arg("cap_net_raw+ep").arg(&file).status();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4751)).expect("a mode");
    world.mounts(&[
        entry("tmpfs", "tmpfs", "/d", "tmpcopyup,ro"),
        entry("tmpfs", "tmpfs", "/new", "tmpcopyup"),
    ]);
    let stat = |name: &str| world.in_root(name).symlink_metadata().expect("an entry");
    let copied = stat("d/sub/file");
    assert_eq!((copied.uid(), copied.gid(), copied.mode() & 0o7777), (7, 8, 0o4751));
    assert_eq!((stat("d").mode() & 0o7777, stat("d/sub").mode() & 0o7777), (0o711, 0o1777));
    assert_eq!(std::fs::read_to_string(world.in_root("d/sub/file")).expect("a file"), "text");
    assert_eq!(std::fs::read_link(world.in_root("d/link")).expect("a link"), Path::new("/outside"));
    assert!(stat("d/out").is_symlink() && stat("d/fifo").file_type().is_fifo());
    assert_eq!(copied.mtime_nsec(), file.metadata().map_or(0, |there| there.mtime_nsec()));
    assert!(has(&world.options("/d"), "ro"));
    if labelled.is_ok_and(|status| status.success()) {
        let shown = std::process::Command::new("getcap").arg(world.in_root("d/sub/file")).output();
        let shown = String::from_utf8_lossy(&shown.expect("run getcap").stdout).into_owned();
        assert!(shown.contains("cap_net_raw"), "{shown}");
    } else {
        println!("{SKIPPED}setcap is missing: capabilities of copied files");
    }
}

/// Options of the source's mount, options of the bind mount, those it has to have and those it must not have.
type Case = (&'static str, &'static str, &'static str, &'static str);

/// What runc makes of each, without a user namespace.
const UNLOCKED: &[Case] = &[
    ("ro,noexec,nosymfollow,nodiratime", "bind", "ro,noexec,nosymfollow,nodiratime", ""),
    ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "rw,nodiratime", "noexec,nosymfollow"),
    ("ro", "bind,nosuid,nodev,rprivate", "rw,nosuid,nodev", "ro"),
    ("ro", "bind,rw,nosuid", "rw,nosuid", ""),
    ("nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,noatime", "nosuid,nodev,noexec"),
    ("nodev,nosuid,noexec,noatime", "bind,ro", "ro,noatime", "nodev,nosuid,noexec"),
    ("nodev,nosymfollow", "bind,ro,symfollow", "ro", "nodev,nosymfollow"),
    ("noatime", "bind,norelatime", "noatime", "relatime"),
    ("noatime", "bind,relatime", "relatime", "noatime"),
    ("noatime", "bind,nodiratime", "nodiratime,relatime", "noatime"),
    ("nodiratime", "bind,strictatime", "rw", "nodiratime,relatime,noatime"),
    ("noatime", "bind,nodiratime,strictatime", "nodiratime", "noatime,relatime"),
    ("relatime", "rbind,rnoatime", "noatime", "relatime"),
    ("noatime", "rbind,ratime", "relatime", "noatime"),
    ("noatime", "rbind,rstrictatime", "rw", "noatime,relatime"),
    ("ro,nosuid,nodev,noexec", "rbind,rrw,rsuid,rdev,rexec", "rw", "nosuid,nodev,noexec"),
    ("", "bind,sync,dirsync,mand,lazytime", "rw,relatime", ""),
];

/// In a user namespace.
const LOCKED: &[Case] = &[
    ("ro,noexec,nosymfollow,nodiratime", "bind", "ro,noexec,nosymfollow,nodiratime", ""),
    ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "ro,noexec,nodiratime", "nosymfollow"),
    ("ro", "bind,nosuid,nodev,rprivate", "ro,nosuid,nodev", ""),
    ("nodev,nosuid,noexec,noatime", "bind,ro", "ro,nodev,nosuid,noexec,noatime", ""),
    ("noatime,nodiratime", "bind,norelatime", "noatime,nodiratime", ""),
    ("nodev,nosymfollow", "bind,rw", "rw,nodev", "nosymfollow"),
];

/// There, too: source and bind mount.
const DENIED: &[(&str, &str)] = &[
    ("ro", "bind,rw,nosuid"),
    ("nodev", "bind,dev"),
    ("nodiratime", "bind,strictatime"),
    ("relatime", "bind,noatime"),
    ("strictatime", "bind,relatime"),
    ("noatime", "bind,relatime"),
    ("ro", "rbind,rrw"),
];

fn check_cases(world: &World, cases: &[Case]) {
    for (index, (_, options, wanted, unwanted)) in cases.iter().enumerate() {
        let destination = format!("/m{index}");
        world.mounts(&[bind(world.path(&format!("s{index}")), &destination, options)]);
        let seen = world.options(&destination);
        let all = wanted.split(',').all(|option| has(&seen, option));
        let none = unwanted.split(',').all(|option| !has(&seen, option));
        assert!(all && none, "{:?}: {seen}", cases[index]);
    }
}

fn binds_take_over_attributes() {
    if !root() {
        return;
    }
    let world = World::new();
    for (index, (source, ..)) in UNLOCKED.iter().enumerate() {
        world.source(&format!("s{index}"), source);
    }
    check_cases(&world, UNLOCKED);
    world.write("file", "x");
    world.mounts(&[bind("file", "/etc/some/file", "bind,ro")]);
    assert!(has(&world.options("/etc/some/file"), "ro"));
    assert!(world.refused(&[bind("file", "/f", "bind,size=1k")]).contains("filesystem-specific"));
    assert!(world.refused(&[bind("missing", "/f", "bind")]).contains("missing"));
}

fn binds_keep_what_is_locked() {
    if !root() {
        return;
    }
    let world = World::new();
    for (index, (source, ..)) in LOCKED.iter().enumerate() {
        world.source(&format!("s{index}"), source);
    }
    for (index, (source, _)) in DENIED.iter().enumerate() {
        world.source(&format!("d{index}"), source);
    }
    std::os::unix::fs::chown(world.path("root"), Some(FIRST_ID), Some(FIRST_ID)).expect("an owner");
    in_user_namespace(0, || {
        check_cases(&world, LOCKED);
        for (index, (_, options)) in DENIED.iter().enumerate() {
            let text = world.refused(&[bind(world.path(&format!("d{index}")), "/d", options)]);
            assert!(text.contains("not permitted"), "{:?}: {text}", DENIED[index]);
        }
    });
}

fn attributes_reach_below() {
    if !root() {
        return;
    }
    let world = World::new();
    world.source("tree", "");
    world.source("tree/sub", "");
    world.mounts(&[
        bind("tree", "/one", "rbind,ro"),
        bind("tree", "/all", "rbind,rro,rnosuid,rnodiratime"),
        bind("tree", "/alone", "bind,ro"),
        bind("tree", "/back", "rbind,rro,rrw"),
    ]);
    for (path, readonly) in [
        ("/one", true),
        ("/one/sub", false),
        ("/all", true),
        ("/all/sub", true),
        ("/alone", true),
        ("/back", false),
    ] {
        assert_eq!(has(&world.options(path), "ro"), readonly, "{path}");
    }
    assert!(has(&world.options("/all/sub"), "nosuid") && has(&world.options("/all/sub"), "nodiratime"));
    assert!(world.mounted("/alone/sub").is_empty());
}

fn propagation() {
    if !root() {
        return;
    }
    let world = World::new();
    world.source("tree", "");
    world.source("tree/sub", "");
    let shared = rustix::mount::MountPropagationFlags::SHARED | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change(world.path("tree"), shared).expect("shared mounts");
    world.mounts(&[
        bind("tree", "/none", "rbind"),
        bind("tree", "/slave", "rbind,rslave"),
        bind("tree", "/shared", "rbind,rshared"),
        bind("tree", "/both", "bind,slave,shared"),
        bind("tree", "/unbindable", "bind,unbindable,ro"),
        entry("tmpfs", "tmpfs", "/tmpfs", "shared"),
    ]);
    for (path, wanted) in [
        ("/none", &[][..]),
        ("/none/sub", &[]),
        ("/slave", &["master:"]),
        ("/slave/sub", &["master:"]),
        ("/shared/sub", &["shared:"]),
        ("/both", &["shared:", "master:"]),
        ("/unbindable", &["unbindable"]),
        ("/tmpfs", &["shared:"]),
    ] {
        let [_, fields, _] = world.mounted(path).pop().expect("a mount");
        let all = wanted.iter().all(|wanted| fields.contains(wanted));
        assert!(all && fields.split_whitespace().count() == wanted.len(), "{path}: {fields}");
    }
    // What is mounted at the source later comes along, but not to those that are private.
    world.source("tree/later", "");
    assert!(world.mounted("/none/later").is_empty() && !world.mounted("/slave/later").is_empty());
}

fn remounts() {
    if !root() {
        return;
    }
    let world = World::new();
    world.source("source", "");
    world.mounts(&[
        bind("source", "/bound", "bind,nosuid"),
        bind("", "/bound", "bind,remount,ro"),
        entry("tmpfs", "tmpfs", "/t", "size=64k,nodev"),
        entry("tmpfs", "tmpfs", "/t", "remount,size=128k,noexec"),
    ]);
    assert_eq!(world.options("/bound"), "ro,relatime");
    assert!(world.mounted("/bound").len() == 1 && world.mounted("/t").len() == 1);
    let [options, _, of_fs] = world.mounted("/t").pop().expect("t");
    assert!(
        has(&options, "noexec") && !has(&options, "nodev") && has(&of_fs, "size=128k"),
        "{options} {of_fs}"
    );
    world.make("root/plain");
    for mount in [bind("", "/plain", "bind,remount,ro"), bind("", "/missing", "bind,remount,ro")] {
        world.refused(&[mount]);
    }
    assert!(!world.in_root("/missing").exists());
}

fn destinations_are_inside() {
    if !root() {
        return;
    }
    let world = World::new();
    world.write("a-file", "bound");
    world.make("source/deep");
    world.make("root/etc");
    world.link("/tmp/foo/bar", "root/jump");
    world.link("/jump/baz/hosts", "root/etc/hosts");
    world.link("../../../../../../escape", "root/up");
    world.link("/tmp/directory", "root/etc/directory");
    let outside = world.path("root");
    world.mounts(&[
        bind("a-file", "/etc/hosts", "bind"),
        bind("source", "/etc/directory", "bind"),
        bind("source", "relative/path", "bind"),
        bind("source", "../../dots/../up/x", "bind"),
        bind("source", outside.join("named/outside").to_str().expect("a path"), "bind"),
        entry("tmpfs", "tmpfs", "/double//slash/", ""),
    ]);
    assert_eq!(std::fs::read_to_string(world.in_root("/tmp/foo/bar/baz/hosts")).expect("a file"), "bound");
    for path in ["/tmp/directory", "/relative/path", "/escape/x", "/named/outside", "/double/slash"] {
        assert_eq!(world.mounted(path).len(), 1, "{path}");
    }
    assert!(!world.path("escape").exists() && !Path::new("/escape").exists());
    world.link("loop", "root/loop");
    for destination in ["/loop", "/", "/..", "/etc/hosts/below"] {
        world.refused(&[bind("source", destination, "bind")]);
    }
    // The source's kind is the mount point's.
    world.refused(&[bind("a-file", "/tmp/directory", "bind")]);
    world.refused(&[bind("source", "/etc/hosts", "bind")]);
}

fn links_themselves() {
    if !root() {
        return;
    }
    let world = World::new();
    world.link("nowhere", "broken");
    world.write("target", "x");
    world.write("root/real", "real");
    world.link("real", "root/link");
    world.mounts(&[
        bind("broken", "/a/sym/link", "rbind,copy-symlink"),
        bind("broken", "/a/sym/link", "rbind,copy-symlink"),
        bind("target", "/a/file", "bind,copy-symlink"),
        bind("target", "/link", "bind,dest-nofollow"),
        bind("broken", "/itself", "bind,src-nofollow"),
    ]);
    assert_eq!(std::fs::read_link(world.in_root("/a/sym/link")).expect("a link"), Path::new("nowhere"));
    assert_eq!(std::fs::read_to_string(world.in_root("/a/file")).expect("a file"), "x");
    assert_eq!(std::fs::read_to_string(world.in_root("/real")).expect("a file"), "real");
    assert_eq!(std::fs::read_to_string(world.in_root("/link")).expect("a file"), "x");
    assert_eq!(std::fs::read_link(world.in_root("/itself")).expect("a link"), Path::new("nowhere"));
    world.refused(&[bind("broken", "/real", "bind,copy-symlink")]);
    world.refused(&[bind("broken", "/elsewhere", "bind")]);
}

fn proc_cannot_be_covered() {
    if !root() {
        return;
    }
    let world = World::new();
    world.source("false", "");
    world.write("false/uptime", "0 0");
    world.link("/proc/self", "root/me");
    let proc = entry("proc", "proc", "/proc", "");
    let over = |mount| world.refused(&[proc.clone(), mount]);
    for mount in [
        entry("tmpfs", "tmpfs", "/proc", ""),
        entry("tmpfs", "tmpfs", "/proc/self", ""),
        entry("tmpfs", "tmpfs", "//proc/./x/../sys", ""),
        entry("sysfs", "sysfs", "/proc/sys", ""),
        entry("proc", "proc", "/proc/1", ""),
        bind("false", "/proc", "bind"),
        bind("false", "/proc/self", "bind"),
        bind("false", "proc/sys/kernel", "bind"),
        bind("false", "/me", "bind"),
        bind("/proc/self", "/proc", "bind"),
        entry("tmpfs", "tmpfs", "/me", ""),
        entry("tmpfs", "tmpfs", "/proc/uptime", ""),
    ] {
        let text = over(mount.clone());
        assert!(text.contains("cannot be mounted because it is"), "{mount}: {text}");
    }
    assert!(world.refused(&[entry("tmpfs", "tmpfs", "/proc/later", "")]).contains("inside /proc"));
    world.mounts(&[
        proc.clone(),
        bind(world.path("false/uptime"), "/proc/uptime", "bind,ro"),
        bind("/proc", "/proc", "rbind"),
    ]);
}

fn proc_and_sys_are_where_they_say() {
    if !root() {
        return;
    }
    let world = World::new();
    world.source("host", "");
    world.make("root/bad");
    world.link("/bad", "root/proc");
    world.link("/missing", "root/sys");
    world.write("root/file", "");
    world.make("root/real");
    world.link("real", "root/middle");
    for mount in [
        entry("proc", "proc", "/proc", ""),
        entry("sysfs", "sysfs", "/sys", ""),
        entry("sysfs", "sysfs", "/file", ""),
        entry("proc", "proc", "/middle/proc", ""),
    ] {
        let text = world.refused(std::slice::from_ref(&mount));
        assert!(text.contains("must be mounted on ordinary directory"), "{mount}: {text}");
    }
    assert!(!world.in_root("/missing").exists() && world.mounted("/bad").is_empty());
    world.mounts(&[
        entry("proc", "proc", "/real/proc", ""),
        entry("sysfs", "sysfs", "/real/sys", "ro,nosuid"),
    ]);
    assert_eq!(world.options("/real/sys"), "ro,nosuid,relatime");
}

fn many_layers() {
    if !root() {
        return;
    }
    let world = World::new();
    // Longer together than one string of fsconfig(2).
    let names: Vec<String> = (0..12).map(|number| format!("{:-<40}{number}", "layer")).collect();
    let layers: Vec<String> = names.iter().map(|name| world.make(name).display().to_string()).collect();
    world.write(&format!("{}/low", names[11]), "lowest");
    let (upper, work) = (world.make("upper"), world.make("work"));
    let options = [
        format!("lowerdir={}", layers.join(":")),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
        "nosuid".to_owned(),
        "noatime".to_owned(),
    ];
    let overlay = serde_json::json!({
        "type": "overlay", "source": "overlay", "destination": "/data", "options": options
    });
    world.mounts(std::slice::from_ref(&overlay));
    assert_eq!(std::fs::read_to_string(world.in_root("/data/low")).expect("a file"), "lowest");
    assert_eq!(world.options("/data"), "rw,nosuid,noatime");
    std::fs::write(world.in_root("/data/new"), "").expect("a file");
    assert!(upper.join("new").exists());
    let mut short = overlay;
    short["destination"] = "/short".into();
    short["options"] = serde_json::json!([format!("lowerdir={}:{}", layers[10], layers[11]), "ro"]);
    world.mounts(&[short]);
    assert!(has(&world.options("/short"), "ro"));
}

fn control_groups() {
    if !root() {
        return;
    }
    let world = World::new();
    let memory = Path::new("/sys/fs/cgroup/memory");
    if !memory.join("tasks").exists() {
        println!("{SKIPPED}no control groups of version 1 here");
        return;
    }
    let groups: Vec<std::path::PathBuf> = ["memory", "pids"]
        .iter()
        .map(|name| Path::new("/sys/fs/cgroup").join(name))
        .filter(|path| path.exists())
        .collect();
    let surroundings =
        runtime::mounts::Surroundings { cgroup: &groups, cgroup_is_v2: false, ..world.surroundings() };
    let root = world.root();
    let mut mounter = runtime::mounts::Mounter::new(&root, &world.path("root"), Prepared::default(), false);
    let mount = crate::world::list(&[entry("cgroup", "cgroup", "/sys/fs/cgroup", "ro,nosuid,noexec,nodev")]);
    mounter.make(0, &mount[0], &surroundings).expect("the mount");
    mounter.finish().expect("the end");
    for name in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"] {
        let options = world.options(name);
        let all = ["ro", "nosuid", "noexec", "nodev"].iter().all(|option| has(&options, option));
        assert!(all, "{name}: {options}");
    }
    assert!(world.in_root("/sys/fs/cgroup/memory/tasks").exists());
    // The host's own are as they were.
    remount(memory, "rw");
}
