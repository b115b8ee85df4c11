//! Devices, the console, masked and read-only paths, in roots an image could have made.

use crate::world::{FIRST_ID, World, bind, entry, in_user_namespace};
use crate::{Test, root};
use oci_spec::runtime::LinuxDevice;
use runtime::devices;
use runtime::masks;
use runtime::mounts::{Mounter, Prepared};
use runtime::root::Root;
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("devices_are_made", devices_are_made),
    ("devices_are_made_in_a_root_without_mounts", devices_are_made_in_a_root_without_mounts),
    ("devices_that_are_something_else_are_an_error", devices_that_are_something_else_are_an_error),
    ("devices_are_not_made_on_somebody_elses_mounts", devices_are_not_made_on_somebody_elses_mounts),
    ("devices_are_bound_in_a_user_namespace", devices_are_bound_in_a_user_namespace),
    ("the_console_is_mounted_on_no_link", the_console_is_mounted_on_no_link),
    ("masked_paths_show_nothing", masked_paths_show_nothing),
    ("a_false_null_masks_nothing", a_false_null_masks_nothing),
    ("read_only_paths_keep_the_rest", read_only_paths_keep_the_rest),
];

fn asked(list: &Value) -> Vec<LinuxDevice> {
    serde_json::from_value(list.clone()).expect("devices")
}

/// Makes the mounts, then the devices.
fn set_up(world: &World, root: &Root, mounts: &[Value], devices: &Value) -> fault::Result<()> {
    let mut mounter = Mounter::new(root, &world.path("root"), Prepared::default(), false);
    for (index, mount) in crate::world::list(mounts).iter().enumerate() {
        mounter.make(index, mount, &world.surroundings())?;
    }
    devices::set_up(root, mounter.dev(), &asked(devices))?;
    mounter.finish()
}

/// Kind (`c`, `b`, `p`), numbers, mode and owner.
fn node(path: &Path) -> (char, u32, u32, u32, u32, u32) {
    let stat = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kind = stat.file_type();
    let kind = match (kind.is_char_device(), kind.is_block_device(), kind.is_fifo()) {
        (true, ..) => 'c',
        (_, true, _) => 'b',
        (.., true) => 'p',
        _ => '?',
    };
    let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    (kind, major, minor, stat.mode() & 0o7777, stat.uid(), stat.gid())
}

fn own_dev(options: &str) -> Vec<Value> {
    vec![
        entry("tmpfs", "tmpfs", "/dev", &format!("mode=755,{options}")),
        entry("devpts", "devpts", "/dev/pts", "newinstance,ptmxmode=0666"),
    ]
}

fn devices_are_made() {
    if !root() {
        return;
    }
    let world = World::new();
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o27));
    let devices = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/deep/er/disk", "type": "b", "major": 7, "minor": 0, "fileMode": 0o60660},
        {"path": "/dev/fifo", "type": "p", "fileMode": 0o600},
        {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o620, "gid": 5},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        {"path": "/opt/some/where", "type": "u", "major": 1, "minor": 3}
    ]);
    set_up(&world, &world.root(), &own_dev("ro"), &devices).expect("the devices");
    let at = |name: &str| node(&world.in_root(name));
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        assert_eq!(at(&format!("/dev/{name}")), ('c', 1, minor, 0o666, 0, 0), "{name}");
    }
    assert_eq!(at("/dev/tty"), ('c', 5, 0, 0o620, 0, 5));
    assert_eq!(at("/dev/fuse"), ('c', 10, 229, 0o640, 7, 8));
    assert_eq!(at("/dev/deep/er/disk"), ('b', 7, 0, 0o660, 0, 0));
    assert_eq!((at("/dev/fifo").0, at("/dev/fifo").3), ('p', 0o600));
    assert_eq!(at("/opt/some/where"), ('c', 1, 3, 0o666, 0, 0));
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        let link = std::fs::read_link(world.in_root("/dev").join(name)).expect("a link");
        assert_eq!(link, Path::new(target));
    }
    let core = std::fs::read_link(world.in_root("/dev/core")).is_ok();
    assert_eq!(core, Path::new("/proc/kcore").exists());
    // What it was before.
    assert_eq!(rustix::process::umask(umask).as_raw_mode(), 0o27);
}

fn devices_are_made_in_a_root_without_mounts() {
    if !root() {
        return;
    }
    let world = World::new();
    set_up(&world, &world.root(), &[], &json!([])).expect("the devices");
    assert_eq!(node(&world.in_root("/dev/null")), ('c', 1, 3, 0o666, 0, 0));
    // Again: what is there is right.
    world.link("elsewhere", "root/dev/console");
    std::fs::remove_file(world.in_root("/dev/ptmx")).expect("a link");
    world.write("root/dev/ptmx", "no link");
    set_up(&world, &world.root(), &[], &json!([])).expect("the devices");
    assert_eq!(std::fs::read_link(world.in_root("/dev/ptmx")).expect("a link"), Path::new("pts/ptmx"));
}

fn devices_that_are_something_else_are_an_error() {
    if !root() {
        return;
    }
    let device = json!([{"path": "/opt/x", "type": "c", "major": 1, "minor": 3}]);
    for (name, target) in
        [("root/dev/null", None), ("root/dev/null", Some("/dev/zero")), ("root/opt/x", None)]
    {
        let world = World::new();
        match target {
            None => drop(world.write(name, "")),
            Some(target) => {
                world.make("root/dev");
                world.link(target, name);
            }
        }
        let fault = set_up(&world, &world.root(), &[], &device).expect_err("in the way").to_string();
        assert!(fault.contains("exists and is not the device asked for"), "{fault}");
    }
}

fn devices_are_not_made_on_somebody_elses_mounts() {
    if !root() {
        return;
    }
    let none = json!([]);
    let device = |path: &str| json!([{"path": path, "type": "c", "major": 10, "minor": 229}]);
    let is_empty =
        |world: &World| std::fs::read_dir(world.path("host")).expect("a directory").next().is_none();
    // The image's /dev leads to a directory of the host's that is bound in the container.
    for link in ["/data", "../data", "data/."] {
        let world = World::new();
        world.make("host");
        world.link(link, "root/dev");
        let bound = [bind("host", "/data", "bind")];
        let fault = set_up(&world, &world.root(), &bound, &none).expect_err("a link").to_string();
        assert!(fault.contains("ordinary directory"), "{fault}");
        assert!(is_empty(&world));
    }
    // It is mounted there under another name.
    let world = World::new();
    world.make("host");
    world.make("root/dev");
    world.link("/dev", "root/name");
    let bound = [bind("host", "/name", "bind")];
    let fault = set_up(&world, &world.root(), &bound, &none).expect_err("a mount").to_string();
    assert!(fault.contains("ordinary directory") && is_empty(&world), "{fault}");
    // A directory of the host's below /dev, and elsewhere, directly and by a link.
    let world = World::new();
    world.make("host");
    world.link("/data", "root/opt");
    let mut mounts = own_dev("");
    mounts.extend([bind("host", "/dev/snd", "bind"), bind("host", "/data", "bind")]);
    for path in ["/dev/snd/x", "/dev/snd/deep/x", "/data/x", "/opt/x", "/opt/deep/x"] {
        let fault = set_up(&world, &world.root(), &mounts, &device(path)).expect_err("not ours").to_string();
        assert!(fault.contains("is not there"), "{path}: {fault}");
        assert!(is_empty(&world), "{path}");
    }
    // The host's own /dev: left alone, and what is asked for is there or not.
    let world = World::new();
    let dev = world.make("host");
    let number = rustix::fs::makedev(10, 229);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, dev.join("there"), kind, mode, number).expect("a device");
    let bound = [bind("host", "/dev", "bind")];
    set_up(&world, &world.root(), &bound, &device("/dev/there")).expect("it is there");
    set_up(&world, &world.root(), &bound, &device("/dev/missing")).expect_err("it is not");
    assert_eq!(std::fs::read_dir(&dev).expect("a directory").count(), 1);
    assert_eq!(node(&dev.join("there")).3, 0o600);
}

fn devices_are_bound_in_a_user_namespace() {
    if !root() {
        return;
    }
    let world = World::new();
    std::os::unix::fs::chown(world.path("root"), Some(FIRST_ID), Some(FIRST_ID)).expect("an owner");
    let devices = json!([{"path": "/dev/fifo", "type": "p"}]);
    let other = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]);
    let missing = json!([{"path": "/dev/no-such-device", "type": "c", "major": 1, "minor": 5}]);
    in_user_namespace(0, || {
        set_up(&world, &world.root(), &own_dev(""), &devices).expect("the devices");
        let null = world.in_root("/dev/null");
        assert_eq!((node(&null).0, node(&null).1, node(&null).2), ('c', 1, 3));
        std::fs::write(&null, "anything").expect("write to the null device");
        assert_eq!(node(&world.in_root("/dev/fifo")).0, 'p');
        let fault = set_up(&world, &world.root(), &own_dev(""), &other).expect_err("another").to_string();
        assert!(fault.contains("the host's"), "{fault}");
        set_up(&world, &world.root(), &own_dev(""), &missing).expect_err("the host has none");
    });
}

fn the_console_is_mounted_on_no_link() {
    if !root() {
        return;
    }
    let world = World::new();
    let root = world.root();
    world.mount_in(&root, &own_dev(""), Prepared::default()).expect("the mounts");
    world.write("root/victim", "");
    std::os::unix::fs::symlink("/victim", world.in_root("/dev/console")).expect("a link");
    let fault = devices::console(&root).expect_err("a link").to_string();
    assert!(fault.contains("/dev/console") && world.mounted("/victim").is_empty(), "{fault}");
    std::fs::remove_file(world.in_root("/dev/console")).expect("a link");
    let (master, slave) = devices::console(&root).expect("a terminal");
    rustix::io::write(&slave, b"hi\n").expect("write");
    // A terminal passes on what is written in pieces of its own choice.
    let mut printed = Vec::new();
    while !printed.ends_with(b"\n") {
        let mut bytes = [0; 8];
        let count = rustix::io::read(&master, &mut bytes).expect("read");
        printed.extend(&bytes[..count]);
    }
    assert_eq!(printed, b"hi\r\n");
    assert_eq!(node(&world.in_root("/dev/console")).0, 'c');
    // A false multiplexer.
    let world = World::new();
    let root = world.root();
    world.write("root/dev/pts/ptmx", "");
    let fault = devices::console(&root).expect_err("a file").to_string();
    assert!(fault.contains("not the terminal multiplexer"), "{fault}");
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn masked_paths_show_nothing() {
    if !root() {
        return;
    }
    let world = World::new();
    for name in ["root/secret/file", "root/one/x", "root/two/x", "root/three/x"] {
        world.write(name, "to be hidden");
    }
    world.link("/one", "root/link");
    let root = world.root();
    set_up(&world, &root, &own_dev(""), &json!([])).expect("the devices");
    let paths = [
        "/one",
        "/secret/file",
        "/missing",
        "/secret/file/below",
        "/two",
        "/one/",
        "/secret/file",
        "//three",
    ];
    masks::mask(&root, &strings(&paths)).expect("masks");
    let device = |name: &str| world.in_root(name).metadata().expect("a directory").dev();
    for name in ["/one", "/two", "/three"] {
        assert_eq!(std::fs::read_dir(world.in_root(name)).expect("a directory").count(), 0, "{name}");
        assert!(std::fs::write(world.in_root(name).join("new"), "").is_err(), "{name}");
        assert_eq!((world.mounted(name).len(), device(name)), (1, device("/one")), "{name}");
    }
    assert_eq!(std::fs::read_to_string(world.in_root("/secret/file")).expect("a file"), "");
    assert_eq!(world.mounted("/secret/file").len(), 1);
    masks::mask(&root, &strings(&["/link"])).expect("through a link");
    assert_eq!(world.mounted("/one").len(), 2);
    assert!(world.mounted("/missing").is_empty() && !world.in_root("/missing").exists());
}

fn a_false_null_masks_nothing() {
    if !root() {
        return;
    }
    for case in 0..3 {
        let world = World::new();
        world.write("root/secret", "to be hidden");
        world.make("root/dev");
        let null = world.path("root/dev/null");
        match case {
            0 => drop(world.write("root/dev/null", "false")),
            1 => world.link("/secret", "root/dev/null"),
            _ => {
                let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
                let zero = rustix::fs::makedev(1, 5);
                rustix::fs::mknodat(rustix::fs::CWD, &null, kind, mode, zero).expect("a device");
            }
        }
        let root = world.root();
        masks::mask(&root, &strings(&["/secret"])).expect_err("false");
        assert!(world.mounted("/secret").is_empty());
    }
}

fn read_only_paths_keep_the_rest() {
    if !root() {
        return;
    }
    let world = World::new();
    world.write("root/plain/x", "");
    world.write("root/file", "");
    let mounts = [
        entry("tmpfs", "tmpfs", "/data", "nosuid,nodev,noexec,noatime"),
        entry("tmpfs", "tmpfs", "/data/sub", ""),
        entry("proc", "proc", "/proc", "nosuid,nodev,noexec"),
    ];
    let root = world.root();
    world.mount_in(&root, &mounts, Prepared::default()).expect("the mounts");
    masks::make_readonly(&root, &strings(&["/data", "/plain", "/file", "/none", "/plain/", "/proc/sys"]))
        .expect("read-only");
    assert_eq!(world.options("/data"), "ro,nosuid,nodev,noexec,noatime");
    assert_eq!(world.options("/data/sub"), "ro,relatime");
    assert_eq!(world.options("/proc/sys"), "ro,nosuid,nodev,noexec,relatime");
    assert_eq!(world.mounted("/plain").len(), 1);
    assert!(std::fs::write(world.in_root("/plain/x"), "y").is_err());
    assert!(std::fs::write(world.in_root("/file"), "y").is_err());
    assert_eq!(world.in_root("/plain").metadata().map_or(0, |stat| stat.permissions().mode() & 0o777), 0o755);
}
